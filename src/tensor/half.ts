/**
 * Values of 16 bits as float32, each exactly, piece by piece through the kernels' working space: no copy of a whole
 * tensor is made in linear memory. Kernel: assembly/gemm/half.ts.
 */
import { engine } from "../runtime/engine.js";
import { formatOf, type HalfType } from "./dtype.js";

/** Values at a time: 64 KB of them and 128 KB of float32 fit the working space and the second-level cache. */
const PIECE = 32768;
/** Where the float32 values of a piece go in the working space. */
const WIDE = 2 * PIECE;

/**
 * @param place puts `count` values, of which the first is number `first`, into linear memory, or says where they lie
 */
function widened(size: number, dtype: HalfType, place: (first: number, count: number) => number): Float32Array {
  const { kernels, memory, scratch, isRehearsal } = engine();
  if (isRehearsal) return memory.f32(scratch, size).slice();
  const values = new Float32Array(size);
  for (let first = 0; first < size; first += PIECE) {
    const count = Math.min(PIECE, size - first);
    kernels.widen(scratch + WIDE, place(first, count), count, formatOf(dtype));
    values.set(memory.f32(scratch + WIDE, count), first);
  }
  return values;
}

/** A float32 copy of values that lie at an address. @internal */
export function widenedAt(address: number, size: number, dtype: HalfType): Float32Array {
  return widened(size, dtype, (first) => address + 2 * first);
}

/** A float32 copy of values that come as bytes, little-endian, from outside of linear memory. @internal */
export function widenedBytes(bytes: Uint8Array, dtype: HalfType): Float32Array {
  const { memory, scratch } = engine();
  return widened(bytes.length / 2, dtype, (first, count) => {
    memory.u8(scratch, 2 * count).set(bytes.subarray(2 * first, 2 * (first + count)));
    return scratch;
  });
}

/**
 * Values of 16 bits and blocks as float32, each exactly, piece by piece through the kernels' working space: no copy of
 * a whole tensor is made in linear memory. Kernels: assembly/gemm/half.ts, assembly/gemm/blocks.ts.
 */
import { engine } from "../runtime/engine.js";
import { type CompactType, formatOf, storedBytes } from "./dtype.js";

/** Values at a time, whole blocks: they and 128 KB of float32 fit the working space and the second-level cache. */
const PIECE = 32768;
/** Where the float32 values of a piece go in the working space; no format takes more than two bytes for a value. */
const WIDE = 2 * PIECE;

/**
 * @param place puts `count` values, of which the first is number `first`, into linear memory, or says where they lie
 */
function widened(size: number, dtype: CompactType, place: (first: number, count: number) => number): Float32Array {
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
export function widenedAt(address: number, size: number, dtype: CompactType): Float32Array {
  return widened(size, dtype, (first) => address + storedBytes(first, dtype));
}

/** A float32 copy of values that come as bytes, little-endian, from outside of linear memory. @internal */
export function widenedBytes(bytes: Uint8Array, dtype: CompactType): Float32Array {
  const { memory, scratch } = engine();
  const size = Math.round(bytes.length / (storedBytes(PIECE, dtype) / PIECE));
  return widened(size, dtype, (first, count) => {
    const from = storedBytes(first, dtype);
    const length = storedBytes(count, dtype);
    memory.u8(scratch, length).set(bytes.subarray(from, from + length));
    return scratch;
  });
}

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

/** @param take a piece's values, of which the first is number `first` */
function eachPiece(size: number, take: (first: number, count: number) => void): void {
  for (let first = 0; first < size; first += PIECE) take(first, Math.min(PIECE, size - first));
}

/** A float32 copy of values that lie at an address. @internal */
export function widenedAt(address: number, size: number, dtype: HalfType): Float32Array {
  const { kernels, memory, scratch, isRehearsal } = engine();
  if (isRehearsal) return memory.f32(address, size).slice();
  const values = new Float32Array(size);
  eachPiece(size, (first, count) => {
    kernels.widen(scratch + WIDE, address + 2 * first, count, formatOf(dtype));
    values.set(memory.f32(scratch + WIDE, count), first);
  });
  return values;
}

/** A float32 copy of values that come as bytes, little-endian, from outside of linear memory. @internal */
export function widenedBytes(bytes: Uint8Array, dtype: HalfType): Float32Array {
  const { memory, scratch } = engine();
  const values = new Float32Array(bytes.length / 2);
  eachPiece(values.length, (first, count) => {
    memory.u8(scratch, 2 * count).set(bytes.subarray(2 * first, 2 * (first + count)));
    values.set(widenedAt(scratch, count, dtype), first);
  });
  return values;
}

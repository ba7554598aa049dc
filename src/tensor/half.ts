/**
 * Values of 16 bits as float32, each exactly, piece by piece through the kernels' working space: no copy of a whole
 * tensor is made on the way. Kernel: assembly/gemm/half.ts.
 */
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { formatOf, type HalfType } from "./dtype.js";

/** Values at a time: 64 KB of them and 128 KB of float32 fit the working space and the second-level cache. */
const PIECE = 32768;
const FROM = 4 * PIECE;

/** Runs fn for each piece of `size` values. */
function eachPiece(size: number, fn: (first: number, count: number) => void): void {
  for (let first = 0; first < size; first += PIECE) fn(first, Math.min(PIECE, size - first));
}

/**
 * Writes values that come as bytes, little-endian as files have them, to an address as float32.
 * @throws ArgumentError for half a value
 * @internal
 */
export function widenTo(address: number, bytes: Uint8Array, dtype: HalfType): void {
  if (bytes.length % 2 !== 0)
    throw new ArgumentError(`widenTo: ${bytes.length} bytes of ${dtype}; expected whole values, of 2 bytes each.`);
  const { kernels, memory, scratch } = engine();
  eachPiece(bytes.length / 2, (first, count) => {
    memory.u8(scratch, 2 * count).set(bytes.subarray(2 * first, 2 * (first + count)));
    kernels.widen(address + 4 * first, scratch, count, formatOf(dtype));
  });
}

/** A float32 copy of values that lie at an address. @internal */
export function widenedAt(address: number, size: number, dtype: HalfType): Float32Array {
  const { kernels, memory, scratch, isRehearsal } = engine();
  if (isRehearsal) return memory.f32(address, size).slice();
  const values = new Float32Array(size);
  eachPiece(size, (first, count) => {
    kernels.widen(scratch, address + 2 * first, count, formatOf(dtype));
    values.set(memory.f32(scratch, count), first);
  });
  return values;
}

/** A float32 copy of values that lie outside of linear memory. @internal */
export function widenedBytes(bytes: Uint8Array, dtype: HalfType): Float32Array {
  const { memory, scratch } = engine();
  const values = new Float32Array(bytes.length / 2);
  eachPiece(values.length, (first, count) => {
    widenTo(scratch + FROM, bytes.subarray(2 * first, 2 * (first + count)), dtype);
    values.set(memory.f32(scratch + FROM, count), first);
  });
  return values;
}

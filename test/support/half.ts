/** Weights of 16 bits for tests, and what their values are by arithmetic on doubles. */
import { nn } from "../../src/index.js";
import { skipInit } from "../../src/nn/skip_init.js";
import type { HalfType } from "../../src/tensor/dtype.js";

export const HALVES: readonly HalfType[] = ["bfloat16", "float16"];

/** The float32 bits of one value's 16. */
export function widenedBits(bits: number, dtype: HalfType): number {
  if (dtype === "bfloat16") return (bits << 16) >>> 0;
  const view = new DataView(new ArrayBuffer(4));
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) view.setUint32(0, ((bits & 0x8000) << 16) | 0x7f800000 | (mantissa << 13));
  else if (exponent === 0) view.setFloat32(0, sign * mantissa * 2 ** -24);
  else view.setFloat32(0, sign * (1024 + mantissa) * 2 ** (exponent - 25));
  return view.getUint32(0);
}

/** A parameter that is stored so, frozen, of these 16-bit patterns. */
export function halfParameter(shape: readonly number[], bits: Uint16Array, dtype: HalfType): nn.Parameter {
  const p = skipInit(() => new nn.Parameter(shape, false)).materialize(dtype);
  p.bytes.set(new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength));
  return p;
}

/** Bits of values about as large as weights are, some of them subnormal in float16, zero or negative. */
export function halfBits(n: number, dtype: HalfType, seed: number): Uint16Array {
  let state = seed >>> 0;
  return Uint16Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const mixed = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) >>> 0;
    const low = mixed & 0xffff;
    if (dtype === "bfloat16") return (low & 0x807f) | ((118 + ((mixed >>> 16) & 7)) << 7);
    return (low & 0x83ff) | (((mixed >>> 16) % 15) << 10);
  });
}

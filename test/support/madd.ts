/** What matrix products are made of, in either arithmetic, for references that fix every bit. */
import { engine } from "../../src/runtime/engine.js";

const f32 = Math.fround;
const double = new Float64Array(1);
const bits = new BigUint64Array(double.buffer);
const words = new Uint32Array(double.buffer);

/** c + a b of float32 values. */
export type Madd = (c: number, a: number, b: number) => number;

/** The product is rounded, then the sum. */
export const separate: Madd = (c, a, b) => f32(c + f32(a * b));

/**
 * Rounded once. The product is exact in float64. So is what float64's sum leaves out (Knuth's two-sum), and with its
 * last bit made odd where it leaves something out, the sum rounds to float32 as the exact one does (Boldo and Melquiond
 * 2008). That bit matters only to a tie, or below float32's normal numbers.
 */
export const fused: Madd = (c, a, b) => {
  const x = a * b;
  const sum = x + c;
  double[0] = sum;
  if ((words[0]! & 0x1fffffff) !== 0x10000000 && Math.abs(sum) >= 2 ** -126) return f32(sum);
  const part = sum - x;
  const rest = x - (sum - part) + (c - part);
  // Of an infinity or NaN the rest is NaN.
  if (Math.abs(rest) > 0 && (bits[0]! & 1n) === 0n) bits[0]! += rest > 0 === sum > 0 ? 1n : -1n;
  return f32(double[0]);
};

/** That of the engine there is. */
export const madd = (): Madd => (engine().arithmetic === "fused" ? fused : separate);

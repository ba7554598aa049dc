/** The fused build's own export, beside those of index.ts: what tells it from the default build. */
import { madd, madd1, plus, product } from "./gemm/madd";

/**
 * Whether this machine and engine round a multiply-add of this build once: a[i] * b[i] + c[i], of which two roundings
 * make something else. In turn the end of a square is lost, a sum becomes zero, a product is too large, and a tie
 * between the smallest subnormal numbers is met. From memory, so that no compiler computes it.
 */
const values = memory.data<f32>(
  [
    // (1 + 2^-12)^2 - 1, 0.1 * 10 - 1, 2^127 * 2 - 2^127, 2^-75 * 2^-75 + 2^-149
    1.000244140625, 0.10000000149011612, 1.7014118346046923e38, 2.6469779601696886e-23, 1.000244140625, 10, 2,
    2.6469779601696886e-23, -1, -1, -1.7014118346046923e38, 1.401298464324817e-45,
    // 2^-11 + 2^-24, 2^-26, 2^127, 2^-148
    0.00048834085464477539, 1.4901161193847656e-8, 1.7014118346046923e38, 2.802596928649634e-45,
  ],
  16,
);

export function fuses(): bool {
  const a = v128.load(values),
    b = v128.load(values, 16),
    c = v128.load(values, 32),
    once = v128.load(values, 48);
  let all =
    i32x4.all_true(f32x4.eq(madd(c, a, b), once)) && i32x4.all_true(f32x4.eq(plus(c, product(a, b), a, b), once));
  for (let i: usize = 0; i < 16; i += 4) {
    const at = values + i;
    all = all && madd1(load<f32>(at, 32), load<f32>(at), load<f32>(at, 16)) == load<f32>(at, 48);
  }
  return all;
}

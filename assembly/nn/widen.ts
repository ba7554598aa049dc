/**
 * y = x, from bfloat16 to float32, which has these 16 bits and 16 zeros. x may be the second half of y's own block: no
 * value is written over one that is still to be read.
 */
export function bfloat16Widen(y: usize, x: usize, n: i32): void {
  let i = n;
  for (; i >= 8; i -= 8) {
    const halves = v128.load(x);
    v128.store(y, i32x4.shl(i32x4.extend_low_i16x8_u(halves), 16));
    v128.store(y, i32x4.shl(i32x4.extend_high_i16x8_u(halves), 16), 16);
    y += 32;
    x += 16;
  }
  for (; i > 0; i--) {
    store<u32>(y, (<u32>load<u16>(x)) << 16);
    y += 4;
    x += 2;
  }
}

/** Values of float32 as 16 bits, rounded to nearest, ties to even. */

/** The upper half of each float32; a NaN stays one by setting its quiet bit. */
export function toBfloat16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!;
    const isNaN = (x & 0x7fffffff) > 0x7f800000;
    halves[i] = isNaN ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return new Uint8Array(halves.buffer);
}

/** IEEE 754 binary16; what is beyond it becomes infinite. */
export function toFloat16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) halves[i] = half(bits[i]!);
  return new Uint8Array(halves.buffer);
}

function half(x: number): number {
  const sign = (x >>> 16) & 0x8000;
  const magnitude = x & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  // From 65520 on the nearest is infinite.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // From 2^-14 on the exponent fits: it is moved by 112, and 13 bits are rounded away.
  if (magnitude >= 0x38800000) {
    const moved = magnitude - 0x38000000;
    return sign | ((moved + 0xfff + ((moved >>> 13) & 1)) >>> 13);
  }
  // Below half of the smallest, 2^-25, and at it: zero.
  if (magnitude <= 0x33000000) return sign;
  const shift = 126 - (magnitude >>> 23);
  const fraction = (magnitude & 0x7fffff) | 0x800000;
  const kept = fraction >>> shift;
  const rest = fraction & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  return sign | (rest > middle || (rest === middle && (kept & 1) === 1) ? kept + 1 : kept);
}

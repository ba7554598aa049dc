/** Float32 values compared by their bits. */
import assert from "node:assert/strict";

/**
 * @param cols length of a row: a place is told as [row, column]
 * @param anyNaN whether any NaN equals any NaN: WebAssembly leaves a NaN's payload open
 * @throws AssertionError that names the first element that differs, and says how many do
 */
export function compareBits(
  actual: Float32Array,
  expected: Float32Array,
  cols: number,
  anyNaN: boolean,
  label: () => string,
): void {
  assert.equal(actual.length, expected.length, `${label()}: length`);
  const a = bitsOf(actual);
  const e = bitsOf(expected);
  const differs = (i: number): boolean =>
    a[i] !== e[i] && !(anyNaN && Number.isNaN(actual[i]) && Number.isNaN(expected[i]));
  for (let i = 0; i < a.length; i++) {
    if (!differs(i)) continue;
    let count = 0;
    for (let j = i; j < a.length; j++) if (differs(j)) count++;
    const show = (x: Float32Array, bits: Uint32Array): string =>
      `${x[i]} (0x${bits[i]!.toString(16).padStart(8, "0")})`;
    assert.fail(
      `${label()}: element [${Math.floor(i / cols)}, ${i % cols}] is ${show(actual, a)}, expected ` +
        `${show(expected, e)}; ${count} of ${a.length} elements differ`,
    );
  }
}

const bitsOf = (x: Float32Array): Uint32Array => new Uint32Array(x.buffer, x.byteOffset, x.length);

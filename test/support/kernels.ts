/**
 * Support for kernel tests: operands in linear memory between poisoned guards, seeded random values
 * and comparison by bits.
 *
 * An operand is a row-major [rows, cols] matrix whose rows are `ld` elements apart (a vector is one
 * row). It starts `offset` elements after a 64-byte boundary:
 *
 *   64 bytes + offset | row 0 | ld - cols | row 1 | ld - cols | ... | last row | 64 bytes
 *
 * Everything that is not an element holds a signalling NaN: a value read where there is none turns
 * results into NaN, a write destroys the pattern, and an output element that was poisoned too and
 * still has it was never written. `atEnd` puts the last element into the last four bytes of linear
 * memory instead, in the page that the allocator never hands out: one byte read beyond it traps.
 */
import assert from "node:assert/strict";
import type { LinearMemory } from "../../src/runtime/memory.js";
import { compareBits } from "./bits.js";

export const POISON = 0x7fa5a5a5;
const GUARD = 16;
const PAGE = 65536;

export interface Placement {
  /** Elements between the starts of two rows; default cols. */
  ld?: number;
  /** Elements between a 64-byte boundary and the first element; default 0. */
  offset?: number;
  /**
   * Last element in the last bytes of linear memory. Valid until memory grows: make it last; in a new engine, if beyond
   * 64 KiB.
   */
  atEnd?: boolean;
}

export class Operand {
  readonly ld: number;
  /** Address of the first element. */
  readonly address: number;
  readonly #memory: LinearMemory;
  readonly #block: number | undefined;
  /** The region with its guards: address and size in words, and the word where the elements start. */
  readonly #start: number;
  readonly #size: number;
  readonly #first: number;
  #filled: Float32Array = new Float32Array(0);

  constructor(
    memory: LinearMemory,
    readonly rows: number,
    readonly cols: number,
    placement: Placement = {},
  ) {
    const { ld = cols, offset = 0, atEnd = false } = placement;
    const span = rows === 0 || cols === 0 ? 0 : (rows - 1) * ld + cols;
    this.#memory = memory;
    this.ld = ld;
    this.#first = GUARD + offset;
    this.#size = this.#first + span + (atEnd ? 0 : GUARD);
    // More than that page holds takes the heap's end as well, which is what a new engine hands out.
    if (!atEnd || this.#size * 4 > PAGE) this.#block = memory.alloc(this.#size * 4);
    this.#start = atEnd ? memory.wasm.buffer.byteLength - this.#size * 4 : this.#block!;
    assert.ok(this.#start >= (this.#block ?? 0), "an operand at the end of memory must not begin before its block");
    this.address = this.#start + this.#first * 4;
    this.#words().fill(POISON);
  }

  /** Sets the elements, row by row. */
  fill(values: Float32Array): this {
    assert.equal(values.length, this.rows * this.cols);
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    const words = this.#words();
    for (let r = 0, i = 0; r < this.rows; r++) {
      for (let c = 0, w = this.#first + r * this.ld; c < this.cols; c++) words[w++] = bits[i++]!;
    }
    this.#filled = values;
    return this;
  }

  /** Poisons the elements too. */
  poison(): this {
    this.#words().fill(POISON);
    return this;
  }

  /** The elements, row by row, copied as bits. */
  read(): Float32Array {
    const bits = new Uint32Array(this.rows * this.cols);
    const words = this.#words();
    for (let r = 0, i = 0; r < this.rows; r++) {
      for (let c = 0, w = this.#first + r * this.ld; c < this.cols; c++) bits[i++] = words[w++]!;
    }
    return new Float32Array(bits.buffer);
  }

  /** Nothing was written before, after or between the rows. */
  assertGuards(label: () => string): void {
    const words = this.#words();
    const rows = this.cols === 0 ? 0 : this.rows;
    let w = 0;
    for (let r = 0; r <= rows; r++) {
      const end = r < rows ? this.#first + r * this.ld : this.#size;
      for (; w < end; w++) {
        if (words[w] !== POISON) {
          assert.fail(
            `${label()}: wrote outside a [${this.rows}, ${this.cols}] operand with ld ${this.ld}, ` +
              `at element ${w - this.#first} from its start`,
          );
        }
      }
      w += this.cols;
    }
  }

  /** Neither the elements that `fill` set nor their surroundings have changed. */
  assertUnchanged(label: () => string): void {
    this.assertGuards(label);
    assertSameBits(this.read(), this.#filled, this.cols, () => `${label()}: an input was changed`);
  }

  free(): void {
    if (this.#block !== undefined) this.#memory.free(this.#block);
  }

  #words(): Uint32Array {
    return new Uint32Array(this.#memory.wasm.buffer, this.#start, this.#size);
  }
}

/** [rows, cols] -> [cols, rows] */
export function transposed(x: Float32Array, rows: number, cols: number): Float32Array {
  const y = new Float32Array(x.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) y[c * rows + r] = x[r * cols + c]!;
  return y;
}

/** Equal bits, except that any NaN equals any NaN. */
export function assertSameBits(actual: Float32Array, expected: Float32Array, cols: number, label: () => string): void {
  compareBits(actual, expected, cols, true, label);
}

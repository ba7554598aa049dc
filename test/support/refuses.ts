/** Misuse is refused: a test of its own for each case. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { memoryStats, type WasmLoraError } from "../../src/index.js";

export type ErrorClass = new (...args: never[]) => WasmLoraError;

/** fn throws `error`, whose message holds every one of `words`; live memory is what it was. */
export function refuses(label: string, error: ErrorClass, words: string[], fn: () => unknown): void {
  test(label, () => {
    const before = memoryStats();
    assert.throws(fn, (e: unknown) => {
      assert(e instanceof error, `${label}: expected ${error.name}, got ${String(e)}`);
      assert.match(e.code, /^ERR_/);
      assert.equal(e.name, error.name);
      for (const w of words) assert(e.message.includes(w), `"${e.message}" does not say "${w}"`);
      return true;
    });
    const after = memoryStats();
    assert.deepEqual([after.liveBytes, after.blocks], [before.liveBytes, before.blocks], `${label}: memory leaked`);
  });
}

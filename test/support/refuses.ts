/** Misuse is refused: what its errors say, and a test of its own for each case. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { memoryStats, type WasmLoraError } from "../../src/index.js";

export type ErrorClass = new (...args: never[]) => WasmLoraError;

/** For assert.throws and assert.rejects: an `error`, whose message holds every one of `words`. */
export function says(error: ErrorClass, ...words: string[]): (e: unknown) => true {
  return (e) => {
    assert(e instanceof error, `expected ${error.name}, got ${String(e)}`);
    assert.match(e.code, /^ERR_/);
    assert.equal(e.name, error.name);
    for (const word of words) assert(e.message.includes(word), `"${e.message}" does not say "${word}"`);
    return true;
  };
}

/** A test that fn throws so, and that live memory is what it was. */
export function refuses(label: string, error: ErrorClass, words: string[], fn: () => unknown): void {
  test(label, () => {
    const before = memoryStats();
    assert.throws(fn, says(error, ...words));
    const after = memoryStats();
    assert.deepEqual([after.liveBytes, after.blocks], [before.liveBytes, before.blocks], `${label}: memory leaked`);
  });
}

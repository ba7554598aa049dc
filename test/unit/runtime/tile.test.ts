/** The choice of the register tile, with an engine whose products take as long as the test says. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { chooseTile } from "../../../src/runtime/tile.js";

/** Which tile is in use after the choice. milliseconds(big, round) of the clock are what a product takes. */
function choiceOf(milliseconds: (big: boolean, round: number) => number): boolean {
  const { now } = performance;
  const rounds = [0, 0];
  let clock = 1000;
  let inUse = false;
  const engine = {
    kernels: {
      useBigTile(big: boolean) {
        inUse = big;
      },
      sgemmNN() {
        clock += milliseconds(inUse, rounds[Number(inUse)]!++);
      },
    },
    memory: {
      f32: (_: number, length: number) => new Float32Array(length),
      withBlocks: (_: readonly number[], fn: (...at: number[]) => void) => fn(64, 128, 192),
    },
    scratch: 4096,
  } as unknown as Parameters<typeof chooseTile>[0];
  performance.now = () => clock;
  try {
    chooseTile(engine);
  } finally {
    performance.now = now;
  }
  return inUse;
}

test("the faster tile is chosen", () => {
  assert.equal(
    choiceOf((big) => (big ? 0.1 : 0.11)),
    true,
  );
  assert.equal(
    choiceOf((big) => (big ? 0.15 : 0.11)),
    false,
  );
  assert.equal(
    choiceOf(() => 0.11),
    false,
  );
});

test("it waits for the optimising compiler", () => {
  assert.equal(
    choiceOf((big, round) => (round < 8 ? (big ? 0.4 : 0.5) : big ? 0.15 : 0.11)),
    false,
  );
  assert.equal(
    choiceOf((big, round) => (round < 8 ? (big ? 0.5 : 0.4) : big ? 0.1 : 0.11)),
    true,
  );
});

test("in doubt it is the small one: one not optimised yet, no time left, a clock that stands still", () => {
  assert.equal(
    choiceOf((big) => (big ? 0.15 : 0.6)),
    false,
  );
  assert.equal(
    choiceOf((big) => (big ? 3 : 3.5)),
    false,
  );
  assert.equal(
    choiceOf(() => 0),
    false,
  );
});

test.run();

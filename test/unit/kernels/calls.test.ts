/**
 * Kernels' calls by name. What tsc must refuse stands below `@ts-expect-error`: if it were taken, the tests would not
 * compile. That each field arrives where the kernel reads it is what the other tests of this folder compare by bits.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { type Engine, init } from "../../../src/index.js";
import type { Kernels, LoraMerge } from "../../../src/runtime/abi.js";

/** Never called: tsc reads it. */
export function refused({ kernels }: Engine, call: LoraMerge, withoutRows: Omit<LoraMerge, "rows">): void {
  kernels.loraMerge(call);
  // @ts-expect-error rows is missing
  kernels.loraMerge(withoutRows);
  // @ts-expect-error wieght is no field, and weight is missing
  kernels.loraMerge({ a: 0, b: 0, wieght: 0, k: 1, d: 1, r: 1, s: 1, fanInFanOut: false, rows: 0, scratch: 0 });
  // @ts-expect-error bias is a field of another block
  kernels.loraMerge({ ...call, bias: 0 });
  // @ts-expect-error fanInFanOut is true or false
  kernels.loraMerge({ ...call, fanInFanOut: 1 });
  // @ts-expect-error names, not positions
  kernels.loraMerge(1, 1, 1, 1, 0, false, 0, 0, 0, 0);
}

/** Kernels with more than eight arguments; the build refuses them, too. */
type TooLong = {
  [Name in keyof Kernels]: Parameters<Kernels[Name]>["length"] extends 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 ? never : Name;
}[keyof Kernels];
export const none: TooLong[] = [] satisfies never[];

/** W [2, 2] + s * B A for A = [1, 2], B = [3, 4]ᵀ and W = 0. */
function merged({ kernels, memory, scratch }: Engine): number[] {
  return memory.withBlocks([16, 8, 8, kernels.mergeRowsBytes(2)], (weight, a, b, rows) => {
    memory.f32(weight, 4).fill(0);
    memory.f32(a, 2).set([1, 2]);
    memory.f32(b, 2).set([3, 4]);
    kernels.loraMerge({ weight, a, b, k: 2, d: 2, r: 1, s: 0.5, fanInFanOut: false, rows, scratch });
    return [...memory.f32(weight, 4)];
  });
}

test("a call finds its block, also after memory has grown", async () => {
  const engine = await init();
  const { memory } = engine;
  const expected = [1.5, 3, 2, 4];
  assert.deepEqual(merged(engine), expected);
  const { reservedBytes } = memory.stats();
  memory.withBlocks([2 * reservedBytes], () => {
    assert(memory.stats().reservedBytes > reservedBytes);
    assert.deepEqual(merged(engine), expected);
  });
});

test("the block is the engine's for good: calls leave no memory behind", async () => {
  const engine = await init();
  const before = engine.memory.stats();
  merged(engine);
  assert.deepEqual(engine.memory.stats().liveBytes, before.liveBytes);
  assert.deepEqual(engine.memory.stats().blocks, before.blocks);
});

test.run();

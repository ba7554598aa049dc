/**
 * Fused arithmetic: how it is asked for, how it is refused where it is not to be had, and that its products are the
 * canonical sums of multiply-adds rounded once: those of sgemm.test.ts, bit for bit. Ends engines.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, EngineError, init, StateError, supportsFused } from "../../../src/index.js";
import { initFused, runs } from "../../support/fused_engine.js";
import { fused, separate } from "../../support/madd.js";
import { computeWith } from "../../support/sgemm.js";

const f32 = Math.fround;

test("the reference rounds once, also where float64 would make a tie of it", () => {
  assert.equal(fused(-1, f32(0.1), 10), 2 ** -26);
  assert.equal(separate(-1, f32(0.1), 10), 0);
  const [a, b, c] = [1 + 2 ** -23, 1 - 2 ** -23, 2 ** -24];
  assert.equal(fused(a, a, b * c), a);
  assert.equal(f32(a + a * b * c), 1 + 2 ** -22);
  // Between subnormal numbers, where float32 has fewer bits: 2^-150 is half of the smallest.
  assert.equal(fused(2 ** -149, 2 ** -75, 2 ** -75), 2 ** -148);
  assert.equal(separate(2 ** -149, 2 ** -75, 2 ** -75), 2 ** -149);
  assert.equal(fused(0, 2 ** -75, 2 ** -75 * a), 2 ** -149);
  assert.equal(fused(-(2 ** 127), 2 ** 127, 2), 2 ** 127);
  assert.equal(separate(-(2 ** 127), 2 ** 127, 2), Infinity);
  for (const [x, y, z] of [
    [Infinity, 1, -1],
    [1, Infinity, -2],
    [3e38, 3e38, 2],
    [NaN, 1, 1],
    [Infinity, -Infinity, 1],
    [-0, 0, -1],
    [0, -0, 1],
  ] as const)
    assert(Object.is(fused(x, y, z), separate(x, y, z)), `${x} + ${y} * ${z}`);
});

test("without being asked for, it does not compute, and a later call cannot ask for the other", async () => {
  for (const options of [undefined, {}, { fused: false }]) {
    const engine = await init(options);
    assert.equal(engine.arithmetic, "separate");
    await assert.rejects(
      init({ fused: true }),
      (e: Error) =>
        e instanceof StateError && e.message.includes("separate") && e.message.includes("fused was asked for"),
    );
    engine.close();
  }
});

test("asked for, it computes, or is refused with the reason", async () => {
  const engine = await initFused();
  assert.equal(engine.arithmetic, runs ? "fused" : "separate");
  assert.equal(await init(), engine);
  if (runs)
    await assert.rejects(
      init({ fused: false }),
      (e: Error) =>
        e instanceof StateError && e.message.includes("fused") && e.message.includes("separate was asked for"),
    );
  engine.close();
  if (await supportsFused()) {
    const both = await Promise.all([init({ fused: true }), init({ fused: true }), init()]);
    assert.equal(new Set(both).size, 1);
    both[0].close();
  } else
    await assert.rejects(
      init({ fused: true }),
      (e: Error) =>
        e instanceof EngineError && /^init: .*(relaxed SIMD|round a multiply-add once|workerd)/.test(e.message),
    );
  assert.equal((await init()).arithmetic, "separate");
});

test("init refuses a fused that is no boolean, or beside a module", async () => {
  await assert.rejects(
    init({ fused: 1 as never }),
    (e: unknown) => e instanceof ArgumentError && e.message.includes("fused") && e.message.includes("number"),
  );
  await assert.rejects(
    init({ fused: true, module: {} as never }),
    (e: unknown) => e instanceof ArgumentError && e.message.includes("module"),
  );
});

test("what is no fused build does not support it", async () => {
  assert.equal(await supportsFused({} as never), false);
  (await init()).close();
  await initFused();
});

computeWith(initFused);
await import("./sgemm.test.js");

test.run();

/** Threads: their bits are those of one, in both arithmetics, and they end with their engine. Ends engines. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { type Engine, init, ops, scope, zeros } from "../../../src/index.js";
import { inlineModule } from "../../../src/inline.js";
import { engine } from "../../../src/runtime/engine.js";
import { rehearse } from "../../../src/runtime/rehearsal.js";
import { runs as fuses } from "../../support/fused_engine.js";
import { COUNTS, dividedWork } from "../../support/threads.js";

/** Runs fn, and gives what it warned of. */
async function warned(fn: () => Promise<unknown>): Promise<string[]> {
  const { warn } = console;
  const warnings: string[] = [];
  console.warn = (text: string): void => void warnings.push(text);
  try {
    await fn();
  } finally {
    console.warn = warn;
  }
  return warnings;
}

/** Where there are none, one computes, and a warning says why. */
const [refusal] = await warned(() => init({ threads: 2 }));
const hasThreads = engine().threads === 2;
engine().close();
const testThreads = hasThreads ? test : test.skip;

const bitsOfAll = (): Uint32Array[] =>
  scope(() => {
    const all: Uint32Array[] = [];
    // Copied at once: memory grows, and a view is of what it was.
    for (const data of dividedWork()) all.push(new Uint32Array(Float32Array.from(data).buffer));
    return all;
  });

test.after.each(() => {
  try {
    engine().close();
  } catch {
    // There is none, or it was closed.
  }
});

test("there are threads, or a word says why one computes", () => {
  assert.equal(hasThreads, refusal === undefined);
  if (refusal !== undefined) assert(refusal.startsWith("wasm-lora: one thread computes, to the same bits: "), refusal);
});

for (const fused of [false, true])
  (fused && !fuses ? test.skip : testThreads)(
    `${COUNTS.join(", ")} threads have the bits of one in ${fused ? "fused" : "separate"} arithmetic`,
    async () => {
      await init({ fused });
      const expected = bitsOfAll();
      engine().close();
      for (const threads of COUNTS) {
        await init({ fused, threads });
        assert.equal(engine().threads, threads);
        const got = bitsOfAll();
        for (const [i, bits] of expected.entries()) assert.deepEqual(got[i], bits, `result ${i} of ${threads} threads`);
        engine().close();
      }
    },
  );

testThreads("a module of wasm-lora/inline is compiled for them, or refused", async () => {
  await init({ module: await inlineModule({ shared: true }), threads: 2 });
  assert.equal(engine().threads, 2);
  engine().close();
  await assert.rejects(init({ module: await inlineModule(), threads: 2 }), /inlineModule\({ shared: true }\)/);
});

testThreads("of two calls at once the second waits for the threads of the first", async () => {
  const both = await Promise.all([init({ threads: 3 }), init({ threads: 3 })]);
  assert.equal(both[0], both[1]);
  assert.equal(both[1].threads, 3);
  await init({ threads: 3 });
  await assert.rejects(init({ threads: 2 }), /threads = 3; got 2/);
  both[0].close();
});

testThreads("an engine that is closed while its threads start lets its caller go on", async () => {
  const starting = init({ threads: 3 });
  // Its module is there after some turns, its threads later.
  let made: Engine | undefined;
  while (!made) {
    await Promise.resolve();
    try {
      made = engine();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }
  made.close();
  assert.equal(await starting, made);
  assert(!made.alive);
});

testThreads("a rehearsal counts the working space of all threads, and disturbs none", async () => {
  await init({ threads: 3 });
  const run = (): number => scope(() => ops.matmul(zeros([200, 300]), zeros([300, 100])).size);
  const planned = rehearse((stats) => {
    const before = stats().liveBytes;
    run();
    return { before, peak: stats().peakBytes };
  });
  const { memory } = engine();
  memory.resetPeak();
  const before = memory.stats().liveBytes;
  run();
  assert.equal(memory.stats().peakBytes - before, planned.peak - planned.before);
  assert.equal(engine().threads, 3);
  engine().close();
});

test.run();

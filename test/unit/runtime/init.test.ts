/**
 * The ways to the kernels: the file beside the code, a module given to init(), the module inside JavaScript. Ends
 * engines.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import {
  ArgumentError,
  EngineError,
  init,
  lora,
  manualSeed,
  memoryStats,
  ops,
  optim,
  scope,
  tensor,
} from "../../../src/index.js";
import { inlineModule } from "../../../src/inline.js";
import { engine } from "../../../src/runtime/engine.js";
import { base64 } from "../../../src/runtime/wasm_base64.js";
import { ROOT } from "../../support/root.js";

const file = new Uint8Array(readFileSync(new URL("build/wasm-lora.wasm", ROOT)));

/** The factors and losses of three steps. */
function train(): Float32Array {
  manualSeed(3);
  const layer = new lora.Linear(9, 5, { r: 2 });
  const optimizer = new optim.AdamW(layer.parameters(), { lr: 0.01 });
  const results: number[] = [];
  for (let step = 0; step < 3; step++) {
    scope(() => {
      const loss = ops.sum(
        ops.gelu(
          layer.forward(
            tensor(
              Float32Array.from({ length: 27 }, (_, i) => i / 9 - 1),
              [3, 9],
            ),
          ),
        ),
      );
      loss.backward();
      optimizer.step();
      optimizer.zeroGrad();
      results.push(loss.item());
    });
  }
  for (const { data } of lora.loraStateDict(layer).values()) results.push(...data);
  return new Float32Array(results);
}

test("concurrent calls give one engine, also after a close", async () => {
  for (let round = 0; round < 3; round++) {
    const module = await inlineModule();
    const engines = await Promise.all([init(), init({ module }), init(), init({ maximumBytes: 2 ** 32 })]);
    assert.equal(new Set(engines).size, 1);
    assert.equal(engines[0], engine());
    assert(engine().alive);
    const t = tensor([1, 2]);
    assert.equal(await init(), engines[0], "and it stays");
    assert.deepEqual([...t.data], [1, 2]);
    engine().close();
  }
});

test("of concurrent calls that ask for different engines one kind is refused, and one engine is made", async () => {
  const calls = await Promise.allSettled([
    init({ maximumBytes: 1 << 24 }),
    init({ maximumBytes: 1 << 25 }),
    init({ maximumBytes: 1 << 24 }),
  ]);
  const engines = calls.flatMap((c) => (c.status === "fulfilled" ? [c.value] : []));
  assert(engines.length > 0 && engines.length < 3 && new Set(engines).size === 1);
  for (const c of calls) if (c.status === "rejected") assert((c.reason as { code: string }).code === "ERR_STATE");
  engine().close();
});

test("a call that is refused leaves the others be", async () => {
  const module = await inlineModule();
  const [refused, given] = await Promise.allSettled([init({ module, maximumBytes: 5 }), init({ module })]);
  assert(refused.status === "rejected" && refused.reason instanceof ArgumentError);
  assert(given.status === "fulfilled" && given.value === engine());
  engine().close();
});

test("the inline module is the file, byte for byte", () => {
  assert.deepEqual(
    Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)),
    file,
  );
});

test("the same bits from the file, from a given module and from the inline one", async () => {
  const results: Float32Array[] = [];
  for (const module of [undefined, await WebAssembly.compile(file), await inlineModule()]) {
    await init(module && { module });
    results.push(train());
    engine().close();
  }
  assert.equal(results[0]!.length, 3 + 2 * 9 + 5 * 2);
  assert(results[0]!.every((value) => Number.isFinite(value) && value !== 0));
  assert.deepEqual(results[1], results[0]);
  assert.deepEqual(results[2], results[0]);
});

test("init refuses what is not a module of these kernels", async () => {
  for (const module of [file, "wasm-lora.wasm", new URL("file:///wasm-lora.wasm"), 7, {}, null]) {
    await assert.rejects(
      init({ module: module as never }),
      (e: unknown) =>
        e instanceof ArgumentError &&
        e.message.includes("init: module must be a WebAssembly.Module") &&
        e.message.includes("WebAssembly.compile"),
    );
  }
  // A module without imports and exports.
  const foreign = await WebAssembly.compile(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]));
  await assert.rejects(
    init({ module: foreign }),
    (e: unknown) =>
      e instanceof ArgumentError && e.message.includes("heapBase") && e.message.includes("wasm-lora.wasm"),
  );
  assert.throws(() => memoryStats(), EngineError, "no engine came of it");
});

test.run();

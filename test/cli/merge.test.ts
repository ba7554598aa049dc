/**
 * wasm-lora merge, which writes a weight at a time, against mergeAndUnload, which holds all of them: every adapter that
 * PEFT trained here, on a base of float32 and on one that is stored as bf16.
 */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { init, io, models, peft } from "../../src/index.js";
import { merge } from "../../src/cli/merge.js";
import { familyPath } from "../support/families.js";
import { assertBits } from "../support/golden.js";

await init();
const ZOO = familyPath("zoo");
const folder = mkdtempSync(join(tmpdir(), "merge-"));
test.after(() => rmSync(folder, { recursive: true }));

/** The base with its weights as bf16. */
const half = join(folder, "half");
{
  const { tensors } = io.parseSafetensors(readFileSync(join(ZOO, "base/model.safetensors")));
  const entries = [...tensors.values()].map((t) => ({ ...t, dtype: "BF16" as const, data: io.toFloat32(t) }));
  mkdirSync(half);
  writeFileSync(join(half, "config.json"), readFileSync(join(ZOO, "base/config.json")));
  writeFileSync(join(half, "model.safetensors"), io.serializeSafetensors(entries));
}

const { log, error } = console;
for (const [kind, base] of [
  ["float32", join(ZOO, "base")],
  ["bf16", half],
] as const)
  for (const name of readdirSync(ZOO).filter((entry) => entry !== "base" && !entry.includes(".")))
    test(`${name} on ${kind}`, async () => {
      const out = join(folder, `${kind}-${name}`);
      const adapter = join(ZOO, name);
      const { model } = models.loadModel(base);
      let expected: Map<string, Float32Array> | undefined;
      let refusal: unknown;
      try {
        const merged = peft.LoraModel.fromPretrained(model, adapter).mergeAndUnload(["default"], { safeMerge: true });
        expected = new Map([...merged.namedParameters()].map(([key, p]) => [key, p.toFloat32()]));
      } catch (cause) {
        refusal = cause;
      }
      model.dispose();
      console.log = console.error = () => {};
      try {
        if (expected === undefined) {
          await assert.rejects(merge({ model: base, adapter, out }), (cause: Error) => {
            assert.equal(cause.message, (refusal as Error).message);
            return true;
          });
          assert.ok(!readdirSync(folder).some((entry) => entry.startsWith(`${kind}-${name}`)));
          return;
        }
        await merge({ model: base, adapter, out });
      } finally {
        Object.assign(console, { log, error });
      }
      const { tensors, metadata } = io.parseSafetensors(readFileSync(join(out, "model.safetensors")));
      assert.equal(metadata["format"], "pt");
      assert.deepEqual([...tensors.keys()].sort(), [...expected.keys()].sort());
      for (const [key, values] of expected) assertBits(key, io.toFloat32(tensors.get(key)!), values);
      const again = models.loadModel(out).model;
      for (const [key, values] of expected) assertBits(key, again.stateDict().get(key)!.data, values);
      again.dispose();
    });

test.run();

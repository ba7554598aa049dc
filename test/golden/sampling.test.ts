/** What the logits processors of transformers leave of logits (test/fixtures/sampling.safetensors), and how likely. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, ops, scope, tensor } from "../../src/index.js";
import { checkedSampling, keptIds, Sampler } from "../../src/models/sampling.js";
import { assertClose, f32, ints, readGolden } from "../support/golden.js";

await init();
const golden = readGolden("sampling");
const cases = JSON.parse(golden.metadata["cases"]!) as { options: Record<string, number>; processors: string[] }[];
const NAMES = {
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  repetition_penalty: "repetitionPenalty",
} as const;

for (const [i, { options, processors }] of cases.entries())
  test(`${JSON.stringify(options)}: ${processors.join(", ")}`, () => {
    const key = String(i).padStart(2, "0");
    const given = Object.entries(options).map(([name, value]) => [NAMES[name as keyof typeof NAMES], value]);
    const sampling = checkedSampling("t", { temperature: 1, ...Object.fromEntries(given) });
    const scores = f32(golden, `${key}.scores`).data;
    const expected = [...scores.keys()].filter((id) => scores[id]! > -Infinity);
    scope(() => {
      // A draw leaves its logits as the penalty has made them.
      const logits = tensor(f32(golden, `${key}.logits`).data);
      const token = new Sampler("t", sampling, 1, ints(golden, `${key}.ids`).data).draw(logits);
      const scaled = ops.scale(logits, 1 / sampling.temperature);
      const all = ops.softmax(scaled).data;
      const kept = (keptIds(scaled.data, all, sampling) ?? [...all.keys()]).sort((a, b) => a - b);
      assert.deepEqual(kept, expected);
      assert.ok(kept.includes(token));
      const total = kept.reduce((sum, id) => sum + all[id]!, 0);
      const got = Float32Array.from(all, (p, id) => (kept.includes(id) ? p / total : 0));
      assertClose("probabilities", got, f32(golden, `${key}.probabilities`).data, 1e-5, 0);
      assertClose(
        "scores",
        Float32Array.from(kept, (id) => scaled.data[id]!),
        Float32Array.from(kept, (id) => scores[id]!),
      );
    });
  });

test.run();

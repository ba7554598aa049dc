/**
 * PEFT 0.21's adapters on a model whose head is its table (test/fixtures/peft_tied/make.py): what is trained of the
 * two, and whether both follow; ranks, alphas, layers and patterns beside. Loaded, saved again, merged and written as a
 * whole.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { fileURLToPath } from "node:url";
import { init, models, noGrad, peft, scope, tensor } from "../../src/index.js";
import { assertClose } from "../support/golden.js";
import { ROOT } from "../support/root.js";

const FIXTURES = new URL("test/fixtures/peft_tied/", ROOT);
const folder = mkdtempSync(join(tmpdir(), "peft-tied-"));
await init();
test.after(() => rmSync(folder, { recursive: true }));

const { ids, logits } = JSON.parse(readFileSync(new URL("reference.json", FIXTURES), "utf8")) as {
  ids: number[][];
  logits: Record<string, number[]>;
};
const at = (name: string): string => fileURLToPath(new URL(name, FIXTURES));
const base = (): models.CausalLM => models.loadModel(at("model")).model;

function logitsOf(model: models.CausalLM): Float32Array {
  return noGrad(() =>
    scope(() => model.forward(tensor(Int32Array.from(ids.flat()), [ids.length, ids[0]!.length])).data.slice()),
  );
}

for (const [name, expected] of Object.entries(logits)) {
  test(name, () => {
    const adapted = peft.LoraModel.fromPretrained(base(), at(name));
    const own = logitsOf(adapted.model);
    assertClose(name, own, expected);
    adapted.savePretrained(`${folder}/${name}`);
    const again = peft.LoraModel.fromPretrained(base(), `${folder}/${name}`);
    assert.deepEqual(logitsOf(again.model), own, "saved and loaded again");
    again.dispose();
    assertClose(`${name} merged`, logitsOf(adapted.mergeAndUnload()), expected);
    adapted.dispose();
  });
}

test.run();

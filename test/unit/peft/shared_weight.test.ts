/**
 * One weight in two modules of a model that does not tell so: one adapter's parts in both are merged into it, one after
 * the other, and taken back the other way round.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, manualSeed, nn, ops, peft, type Tensor, tensor } from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { assertValues, layersOf, outputs, values } from "../../support/peft.js";

await init();

/** ids [n] -> [n, 6]; without getOutputEmbeddings. */
class Shared extends nn.Module {
  readonly wte: nn.Layer = new nn.Embedding(6, 4);
  readonly head: nn.Layer = new nn.Linear(4, 6, { bias: false });
  readonly last: nn.Layer = new nn.Linear(6, 6, { bias: false });

  constructor() {
    super();
    Object.assign(this.head, { weight: (this.wte as nn.Embedding).weight });
  }

  forward(ids: Tensor): Tensor {
    return this.last.forward(ops.relu(this.head.forward(this.wte.forward(ids))));
  }
}

const ids = (): Tensor => tensor(new Int32Array([0, 2, 5]), [3]);

const CONFIGS: readonly [string, Partial<peft.LoraConfig>][] = [
  ["rows of a table and a product", { targetModules: ["head", "last"], trainableTokenIndices: { wte: [2, 4] } }],
  ["rows of two", { targetModules: ["last"], trainableTokenIndices: { wte: [2, 4], head: [1, 3] } }],
];

for (const [title, config] of CONFIGS) {
  function adapt(): peft.LoraModel<Shared> {
    manualSeed(1);
    const adapted = peft.getLoraModel(new Shared(), { ...config, r: 2, initLoraWeights: false });
    for (const [key, p] of adapted.namedParameters()) if (key.includes("trainable_tokens")) p.data.fill(0.5);
    return adapted;
  }

  test(`${title}: unmerged, the weight has its bits`, () => {
    const adapted = adapt();
    const before = values(adapted);
    adapted.mergeAdapter();
    assert.notDeepEqual(values(adapted), before);
    adapted.unmergeAdapter();
    assertValues("unmerged", adapted, before);
    adapted.dispose();
  });

  test(`${title}: a merge that is refused after both leaves the weight's bits`, () => {
    const adapted = adapt();
    const { layer } = layersOf(adapted).find(({ path }) => path === "last")!;
    layer.adapters.get("default")!.loraA.data[0] = NaN;
    const before = values(adapted);
    assert.throws(() => adapted.mergeAdapter(["default"], { safeMerge: true }), ArgumentError);
    assertValues("refused", adapted, before);
    adapted.dispose();
  });

  test(`${title}: disableAdapter runs the base while both are merged, which they stay`, () => {
    const adapted = adapt();
    const base = adapted.disableAdapter(() => outputs(adapted.model, ids));
    adapted.mergeAdapter();
    const merged = values(adapted);
    assertBits(
      "base",
      adapted.disableAdapter(() => outputs(adapted.model, ids)),
      base,
    );
    assertValues("merged", adapted, merged);
    adapted.dispose();
  });
}

test.run();

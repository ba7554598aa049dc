/**
 * Rows of an embedding table that are trained alone (PEFT's trainable_token_indices), and of a head that is the table.
 * Expected logits: by hand in float64, of a model whose layers add nothing: head · rmsnorm(table[id]).
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  io,
  manualSeed,
  memoryStats,
  models,
  type nn,
  noGrad,
  optim,
  peft,
  scope,
  StateError,
  tensor,
} from "../../../src/index.js";
import { indexCopy } from "../../../src/autograd/ops/index_copy.js";
import { assertBits } from "../../support/golden.js";
import { gradcheck, gridTensor } from "../../support/gradcheck.js";
import { greedy, LLAMA } from "../../support/language_models.js";
import { outputs, tiny, values, assertValues } from "../../support/peft.js";
import { stream } from "../../support/random.js";
import { refuses } from "../../support/refuses.js";

await init();
const V = 7;
const D = 4;
const EPS = 1e-5;
const SIZES = { hiddenSize: D, intermediateSize: 2, numHiddenLayers: 1, numAttentionHeads: 1, numKeyValueHeads: 1 };
const CONFIG = { ...LLAMA, ...SIZES, headDim: D, vocabSize: V, maxPositionEmbeddings: 16, rmsNormEps: EPS };
const random = stream(9);
const numbers = (n: number): Float32Array => Float32Array.from({ length: n }, () => random() * 2 - 1);
const TABLE = numbers(V * D);
const HEAD = numbers(V * D);
const EMBED = "model.embed_tokens.token_adapter.trainable_tokens_delta";
const ON_HEAD = "lm_head.token_adapter.trainable_tokens_delta";

function model(tied: boolean): models.Llama {
  manualSeed(0);
  const made = new models.Llama({ ...CONFIG, tieWordEmbeddings: tied });
  for (const [key, p] of made.namedParameters()) {
    if (p.rank !== 2) continue;
    p.set(key === "model.embed_tokens.weight" ? TABLE : key === "lm_head.weight" ? HEAD : new Float32Array(p.size));
  }
  return made;
}
/** The table with other rows. */
function put(table: Float32Array, indices: readonly number[], rows: Float32Array): Float32Array {
  const other = table.slice();
  for (const [i, id] of indices.entries()) other.set(rows.subarray(i * D, (i + 1) * D), id * D);
  return other;
}
function close(
  what: string,
  lm: { forward(ids: ReturnType<typeof tensor>): ReturnType<typeof tensor> },
  table: Float32Array,
  head: Float32Array,
): void {
  const got = noGrad(() =>
    scope(() => [
      ...lm.forward(
        tensor(
          Int32Array.from({ length: V }, (_, i) => i),
          [1, V],
        ),
      ).data,
    ]),
  );
  for (let id = 0; id < V; id++) {
    const x = [...table.subarray(id * D, (id + 1) * D)];
    const root = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / D + EPS);
    for (let k = 0; k < V; k++) {
      const want = x.reduce((sum, v, i) => sum + (head[k * D + i]! * v) / root, 0);
      assert.ok(
        Math.abs(got[id * V + k]! - want) < 2e-6,
        `${what}: token ${id}, logit ${k}: ${got[id * V + k]}; expected ${want}`,
      );
    }
  }
}
type Indices = peft.LoraConfig["trainableTokenIndices"];
const rowsOf = (lora: peft.LoraModel): Map<string, nn.Parameter> =>
  new Map([...lora.model.namedParameters()].filter(([key]) => key.includes("trainable_tokens_delta")));

/** What is named, of a tied model or not: keys in the folder, ids of the table and of the head, whether they merge. */
const CASES: [given: Indices, tied: boolean, keys: string[], table: number[], head: number[], merges: boolean][] = [
  [[5, 2], true, [EMBED], [5, 2], [5, 2], true],
  [{ embed_tokens: [5, 2] }, true, [EMBED], [5, 2], [5, 2], true],
  [{ embed_tokens: [5, 2], lm_head: [5, 2] }, true, [EMBED], [5, 2], [5, 2], true],
  [{ embed_tokens: [5, 2], lm_head: [1, 2] }, true, [ON_HEAD, EMBED], [5, 2], [1, 2], false],
  [{ lm_head: [6, 0] }, true, [ON_HEAD], [], [6, 0], false],
  [[5, 2], false, [EMBED], [5, 2], [], true],
  [{ "model.embed_tokens": [3], lm_head: [4, 1] }, false, [ON_HEAD, EMBED], [3], [4, 1], true],
];
for (const [given, tied, keys, ofTable, ofHead, merges] of CASES) {
  test(`${JSON.stringify(given)} of a ${tied ? "tied" : "parted"} model`, () => {
    const folder = "memory:tokens";
    const lm = model(tied);
    const plain = values(lm);
    const live = memoryStats().liveBytes;
    const base: [Float32Array, Float32Array] = [TABLE, tied ? TABLE : HEAD];
    const lora = peft.getLoraModel(lm, { r: 2, targetModules: ["q_proj"], trainableTokenIndices: given });
    close("at first", lora, ...base);
    assert.ok([...rowsOf(lora).values()].every((p) => p.requiresGrad));
    const other = numbers(2 * D);
    for (const [key, p] of rowsOf(lora))
      p.set(key.includes("embed") ? other.subarray(0, p.size) : other.subarray(-p.size));
    const isOne = keys.length === 1 && ofTable.length > 0;
    const wanted: [Float32Array, Float32Array] = [
      put(base[0], ofTable, other),
      put(base[1], ofHead, isOne ? other : other.subarray(-ofHead.length * D)),
    ];
    close("trained", lora, ...wanted);
    close("the base", { forward: (ids) => lora.disableAdapter(() => lora.forward(ids)) }, ...base);
    lora.savePretrained(folder);
    const tensors = peft.readPeftAdapter(folder).tensors;
    assert.deepEqual(
      [...tensors.keys()].filter((key) => !key.includes("lora_")).sort(),
      keys.map((key) => `base_model.model.${key}`),
    );
    const written = JSON.parse(new TextDecoder().decode(io.memoryFiles.get(`${folder}/adapter_config.json`)));
    assert.deepEqual(written.trainable_token_indices, given);
    const read = peft.LoraModel.fromPretrained(model(tied), folder);
    close("read", read, ...wanted);
    read.dispose();
    if (merges) {
      lora.mergeAdapter();
      close("merged", lora, ...wanted);
      close("the base while merged", { forward: (ids) => lora.disableAdapter(() => lora.forward(ids)) }, ...base);
      // A checkpoint holds the base's own rows.
      for (const [key, { data }] of lora.stateDict())
        if (key.includes("embed_tokens") && key.includes("base_layer")) assertBits(key, data as Float32Array, TABLE);
      lora.unmergeAdapter();
    } else assert.throws(() => lora.mergeAdapter(), StateError);
    close("unmerged", lora, ...wanted);
    const again = peft.LoraModel.fromPretrained(model(tied), folder);
    const merged = again.mergeAndUnload(undefined, { safeMerge: true });
    close("for good", merged, ...wanted);
    assert.equal(merged.config.tieWordEmbeddings, tied && merges);
    merged.dispose();
    lora.unload();
    assertValues("unloaded", lm, plain);
    assert.equal(memoryStats().liveBytes, live);
    lm.dispose();
  });
}

test("rows get the gradients of both uses, and only they change", () => {
  const lm = model(true);
  const lora = peft.getLoraModel(lm, { r: 2, targetModules: ["q_proj"], trainableTokenIndices: [5, 2] });
  const [rows] = rowsOf(lora).values();
  const ids = (): ReturnType<typeof tensor> => tensor(Int32Array.of(2, 5, 5, 1), [1, 4]);
  const next = (): ReturnType<typeof tensor> => tensor(Int32Array.of(5, 2, 0, 2), [1, 4]);
  const loss = (): number => noGrad(() => scope(() => lora.loss(ids(), next()).item()));
  scope(() => lora.loss(ids(), next()).backward());
  for (let i = 0; i < rows!.size; i++) {
    const value = rows!.data[i]!;
    const at = (v: number): number => {
      rows!.data[i] = v;
      return loss();
    };
    const slope = (at(value + 0.01) - at(value - 0.01)) / 0.02;
    rows!.data[i] = value;
    assert.ok(Math.abs(slope - rows!.grad!.data[i]!) < 2e-3, `${i}: ${rows!.grad!.data[i]}, by differences ${slope}`);
  }
  const optimizer = new optim.SGD(
    lora.parameters().filter((p) => p.requiresGrad),
    { lr: 1 },
  );
  optimizer.step();
  assertBits(
    "the table",
    lm.getInputEmbeddings().stateDict().get("token_adapter.base_layer.weight")!.data as Float32Array,
    TABLE,
  );
  assert.ok(rows!.data.some((v, i) => v !== TABLE[(i < D ? 5 : 2) * D + (i % D)]));
  optimizer.dispose();
  lora.dispose();
});

test("adapters have rows of their own; one of them acts", () => {
  const lm = model(true);
  const lora = peft.getLoraModel(lm, { r: 2, targetModules: ["q_proj"], trainableTokenIndices: [5] }, "a");
  lora.addAdapter("b", { r: 2, targetModules: ["q_proj"], trainableTokenIndices: [1, 5] });
  lora.addAdapter("c", { r: 2, targetModules: ["q_proj"] });
  const other = numbers(2 * D);
  for (const [, p] of rowsOf(lora)) p.set(other.subarray(0, p.size));
  const a = put(TABLE, [5], other);
  const b = put(TABLE, [1, 5], other);
  close("a", lora, a, a);
  lora.setAdapter("b");
  close("b", lora, b, b);
  lora.setAdapter("c");
  close("c", lora, TABLE, TABLE);
  assert.throws(
    () => lora.setAdapter(["a", "b"]),
    (e: Error) => e instanceof ArgumentError && e.message.includes("trainableTokenIndices"),
  );
  assert.throws(() => lora.mergeAdapter(["a", "b"]), /rows of the same token/);
  close("not merged", lora, TABLE, TABLE);
  assert.throws(() => lora.withAdapterNames(["a"], () => 1), /has trainableTokenIndices/);
  lora.setAdapter(["c", "a"]);
  close("a beside c", lora, a, a);
  lora.deleteAdapter("a");
  lora.deleteAdapter("b");
  close("c again", lora, TABLE, TABLE);
  assert.equal(rowsOf(lora).size, 0);
  lora.dispose();
});

test("rows of tokens that no text has get a gradient of zeros, as in PEFT", () => {
  const lm = model(false);
  const lora = peft.getLoraModel(lm, { r: 2, targetModules: ["q_proj"], trainableTokenIndices: [6] });
  const [rows] = rowsOf(lora).values();
  scope(() => lora.loss(tensor(Int32Array.of(1, 2), [1, 2]), tensor(Int32Array.of(2, 3), [1, 2])).backward());
  assertBits("zeros", rows!.grad!.data.slice(), new Float32Array(D));
  lora.dispose();
});

test("tokens of a batch are generated with the rows that act", () => {
  const lm = model(false);
  const lora = peft.getLoraModel(lm, {
    r: 2,
    targetModules: ["q_proj"],
    trainableTokenIndices: { embed_tokens: [0, 1], lm_head: [3] },
  });
  for (const [, p] of rowsOf(lora)) p.set(numbers(p.size));
  const ids = [1, 0, 4];
  const tokens = [...models.generate(lora, ids, { maxNewTokens: 5, temperature: 0 })];
  assert.deepEqual(tokens, greedy(lora, ids, 5));
  lora.dispose();
});

test("tokens that were asked for come with the rows that acted then, or not at all", () => {
  const config = { r: 2, targetModules: ["q_proj"], trainableTokenIndices: { embed_tokens: [0, 1] } };
  const changes: [string, (lora: peft.LoraModel) => void][] = [
    ["deleted", (lora) => lora.deleteAdapter("a")],
    ["merged", (lora) => lora.mergeAdapter(["a"])],
  ];
  for (const [what, change] of changes) {
    const lora = peft.getLoraModel(model(false), config, "a");
    lora.addAdapter("b", config);
    for (const [, p] of rowsOf(lora)) p.set(numbers(p.size));
    const write = (): IterableIterator<number> =>
      models.generate(lora, [1, 0, 4], { maxNewTokens: 20, temperature: 1, seed: 1 });
    const own = [...write()];
    const base = lora.disableAdapter(() => [...write()]);
    const [kept, ofBase, lost] = [write(), lora.disableAdapter(write), write()];
    lora.setAdapter("b");
    assert.notDeepEqual([...write()], own);
    assert.deepEqual([...kept], own);
    assert.deepEqual([...ofBase], base);
    change(lora);
    assert.throws(
      () => lost.next(),
      (e: Error) =>
        e instanceof StateError && /^generate: trained tokens were deleted, .* call it anew\.$/.test(e.message),
      what,
    );
    lora.dispose();
  }
});

test("a table that is stored in 16 bits keeps its bits", () => {
  const lm = model(true);
  const { weight } = lm.model.embedTokens;
  weight.materialize("bfloat16");
  weight.bytes.set(new Uint8Array(new Uint16Array(new Uint32Array(TABLE.buffer).map((v) => v >>> 16)).buffer));
  const stored = weight.bytes.slice();
  const rounded = weight.toFloat32();
  const lora = peft.getLoraModel(lm, { r: 2, targetModules: ["q_proj"], trainableTokenIndices: [5] });
  const [rows] = rowsOf(lora).values();
  assertBits("rows", rows!.data.slice(), rounded.slice(5 * D, 6 * D));
  rows!.set(numbers(D));
  const wanted = put(rounded, [5], rows!.data);
  close("trained", lora, wanted, wanted);
  lora.mergeAdapter();
  close("merged", lora, wanted, wanted);
  lora.unload();
  assert.equal(weight.dtype, "bfloat16");
  assert.deepEqual(weight.bytes, stored);
  lm.dispose();
});

test("indexCopy: what is replaced gets no gradient", () => {
  const x = gridTensor([2, 5, 3], 1);
  const source = gridTensor([2, 2, 3], 2);
  const columns = gridTensor([2, 5, 2], 3);
  gradcheck("along 1", { x, source }, () => indexCopy(x, 1, [4, 0], source));
  gradcheck("along the last", { x, columns }, () => indexCopy(x, 2, [0, 2], columns));
  const y = noGrad(() => scope(() => indexCopy(x, 1, [4, 0], source).data.slice()));
  for (const n of [0, 1]) {
    assertBits("first", y.slice(n * 15, n * 15 + 3), source.data.slice(n * 6 + 3, n * 6 + 6));
    assertBits("kept", y.slice(n * 15 + 3, n * 15 + 12), x.data.slice(n * 15 + 3, n * 15 + 12));
    assertBits("last", y.slice(n * 15 + 12, n * 15 + 15), source.data.slice(n * 6, n * 6 + 3));
  }
  for (const p of [x, source, columns]) p.dispose();
});

const lm = model(true);
const net = tiny();
const add =
  (on: nn.Module, trainableTokenIndices: Indices, config: Partial<peft.LoraConfig> = {}) =>
  (): unknown =>
    peft.getLoraModel(on, { r: 2, targetModules: on === lm ? ["q_proj"] : ["fc"], trainableTokenIndices, ...config });
refuses("an id beyond the table", ArgumentError, ["trainableTokenIndices", "7", "0 .. 6"], add(lm, [1, 7]));
refuses("a name of nothing", ArgumentError, ["wte", "ends no module"], add(lm, { wte: [1] }));
refuses("a list where the model tells no table", ArgumentError, ["getInputEmbeddings"], add(net, [1]));
refuses("a norm", ArgumentError, ["LayerNorm"], add(net, { norm: [1] }));
refuses("a head with a bias", ArgumentError, ["head", "Linear", "bias"], add(net, { head: [1] }));
refuses(
  "adapted as well",
  ArgumentError,
  ["embed_tokens", "targetModules"],
  add(lm, [1], { targetModules: ["embed_tokens", "q_proj"] }),
);
refuses(
  "copied as well",
  ArgumentError,
  ["embed_tokens", "modulesToSave"],
  add(lm, [1], { modulesToSave: ["embed_tokens"] }),
);
refuses(
  "other tokens of what is to be tied",
  ArgumentError,
  ["lm_head", "embed_tokens", "ensureWeightTying"],
  add(lm, { embed_tokens: [1], lm_head: [2] }, { ensureWeightTying: true }),
);

test("what was refused left the models as they were", () => {
  assert.equal(lm.lmHead, null);
  close("tied", lm, TABLE, TABLE);
  assert.equal(outputs(net).length, 15);
  lm.dispose();
  net.dispose();
});

test.run();

/** Losses of classifiers, heads that weights lack, and what their config.json says of classes. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import {
  ArgumentError,
  DTypeError,
  FormatError,
  init,
  io,
  full,
  manualSeed,
  memoryStats,
  models,
  type nn,
  ops,
  scope,
  ShapeError,
  tensor,
  type Tensor,
} from "../../../src/index.js";
import { readJson } from "../../../src/io/files.js";
import { readLabels } from "../../../src/models/parts/classification.js";
import { familyPath } from "../../support/families.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

await init();

const ids = (): Tensor => tensor(new Int32Array([2, 45, 46, 3, 2, 50, 51, 3]), [2, 4]);

let folders = 0;
/** A folder of a reference case with another config.json or other tensors. */
function changed(
  name: string,
  config: object,
  rename: (key: string) => string | null = (key) => key,
  more: readonly string[] = [],
): string {
  const { model } = models.loadModel(familyPath(name));
  const folder = `memory:classification-${folders++}`;
  const json = readJson(`${familyPath(name)}/config.json`) as object;
  io.memoryFiles.set(`${folder}/config.json`, new TextEncoder().encode(JSON.stringify({ ...json, ...config })));
  const tensors = [...model.stateDict()].flatMap(([key, { shape, data }]) => {
    const to = rename(key);
    return to === null ? [] : [{ name: to, dtype: "F32" as const, shape: [...shape], data: Float32Array.from(data) }];
  });
  for (const key of more) tensors.push({ name: key, dtype: "F32", shape: [1], data: new Float32Array(1) });
  io.memoryFiles.set(`${folder}/model.safetensors`, io.serializeSafetensors(tensors));
  model.dispose();
  return folder;
}

test("classificationLoss: what the labels are decides, unless problemType does", () => {
  const logits = tensor([
    [0.5, -1, 2],
    [1, 0, -0.5],
  ]);
  const labels = (problemType: models.ProblemType | null, count = 3): models.Labels => ({
    id2label: Array.from({ length: count }, (_, i) => `L${i}`),
    problemType,
  });
  const classes = tensor(new Int32Array([2, 0]));
  const flags = tensor([
    [1, 0, 1],
    [0, 0, 1],
  ]);
  const loss = (t: Tensor, type: models.ProblemType | null = null): number =>
    models.classificationLoss(logits, t, labels(type)).item();
  assert.equal(loss(classes), ops.crossEntropy(logits, classes).item());
  assert.equal(loss(classes, "single_label_classification"), ops.crossEntropy(logits, classes).item());
  assert.equal(loss(flags), ops.binaryCrossEntropyWithLogits(logits, flags).item());
  assert.equal(loss(flags, "multi_label_classification"), ops.binaryCrossEntropyWithLogits(logits, flags).item());
  assert.equal(loss(flags, "regression"), ops.mseLoss(logits, flags).item());
  const one = tensor([[1], [3]]);
  const value = models.classificationLoss(one, tensor([2, 5]), labels(null, 1)).item();
  assert.equal(value, 2.5);
  assert.equal(models.classificationLoss(one, tensor([[2], [5]]), labels(null, 1)).item(), value);
  assert.throws(() => loss(classes, "multi_label_classification"), says(DTypeError, "float32"));
  assert.throws(() => loss(flags, "single_label_classification"), says(DTypeError, "int32"));
  assert.throws(() => loss(tensor([1, 0])), says(ShapeError, "[2,3]"));
});

test("readLabels: id2label, else num_labels, else two", () => {
  const read = (json: object, count?: number): models.Labels => readLabels({ model_type: "bert", ...json }, "c", count);
  assert.deepEqual(read({}).id2label, ["LABEL_0", "LABEL_1"]);
  assert.deepEqual(read({ num_labels: 1 }).id2label, ["LABEL_0"]);
  assert.deepEqual(read({ id2label: { 1: "yes", 0: "no" }, num_labels: 5 }).id2label, ["no", "yes"]);
  assert.deepEqual(read({ id2label: { 0: "no" } }, 3).id2label, ["LABEL_0", "LABEL_1", "LABEL_2"]);
  assert.equal(read({ problem_type: "regression" }).problemType, "regression");
  const deviation = (json: object): number => readLabels({ model_type: "llama", ...json }, "c").initializerRange;
  assert.deepEqual([{}, { initializer_range: 0.5 }].map(deviation), [0.02, 0.5]);
  for (const [json, word] of [
    [{ initializer_range: "small" }, "initializer_range"],
    [{ problem_type: "ranking" }, "problem_type"],
    [{ id2label: { 0: "a", 2: "b" } }, "id2label"],
    [{ id2label: {} }, "id2label"],
    [{ id2label: "a" }, "id2label"],
    [{ num_labels: 0 }, "num_labels"],
    [{ num_labels: 1e9 }, "num_labels"],
  ] as const)
    assert.throws(() => read(json), says(FormatError, word));
  assert.throws(() => read({}, 0), says(ArgumentError, "numLabels"));
});

test("a head that the weights lack is drawn from the seed; other heads' tensors are left out", () => {
  // As bert-base is on the hub: a masked language model in old names, with buffers.
  const folder = changed(
    "bert_cls",
    { architectures: ["BertForMaskedLM"] },
    (key) =>
      key.startsWith("classifier.")
        ? null
        : key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    ["cls.predictions.bias", "cls.seq_relationship.weight", "bert.embeddings.position_ids"],
  );
  assert.throws(() => models.loadModel(folder), says(FormatError, "BertForMaskedLM", "head"));
  const load = (seed: number): models.SequenceClassifier => {
    manualSeed(seed);
    return models.loadModel(folder, { head: "sequence-classification", numLabels: 4 }).model;
  };
  const [a, b, c] = [load(1), load(1), load(2)];
  const whole = models.loadModel(familyPath("bert_cls"), { head: "sequence-classification" }).model;
  const weight = (model: models.SequenceClassifier, key: string): number[] => [...model.stateDict().get(key)!.data];
  assert.deepEqual(weight(a, "classifier.weight"), weight(b, "classifier.weight"));
  assert.notDeepEqual(weight(a, "classifier.weight"), weight(c, "classifier.weight"));
  const drawn = weight(a, "classifier.weight");
  assert.equal(drawn.length, 4 * 40);
  const spread = Math.sqrt(drawn.reduce((total, v) => total + v * v, 0) / drawn.length);
  assert(spread > 0.015 && spread < 0.025, `${spread}`);
  assert.deepEqual(weight(a, "classifier.bias"), [0, 0, 0, 0]);
  for (const [key, { data }] of whole.stateDict())
    if (!key.startsWith("classifier.")) assert.deepEqual(weight(a, key), [...data], key);
  assert.deepEqual(a.forward(ids()).shape, [2, 4]);
  for (const model of [a, b, c, whole]) model.dispose();
});

test("a decoder's new head is drawn as its config.json says", () => {
  const folder = changed("qwen3_cls", { architectures: ["Qwen3Model"], initializer_range: 0.5 }, (key) =>
    key === "score.weight" ? null : key.replace(/^model\./, ""),
  );
  const { model } = models.loadModel(folder, { head: "sequence-classification", numLabels: 4 });
  const drawn = [...model.stateDict().get("score.weight")!.data];
  const spread = Math.sqrt(drawn.reduce((total, v) => total + v * v, 0) / drawn.length);
  assert(spread > 0.35 && spread < 0.65, `${spread}`);
  model.dispose();
});

test("encoders have the positions that there are", () => {
  for (const [name, count] of [
    ["bert_cls", 40],
    ["roberta_cls", 40],
    ["distilbert_cls", 40],
    ["modernbert_cls", 40],
  ] as const) {
    const { model } = models.loadModel(familyPath(name), { head: "none" });
    assert.equal(model.config.maxPositionEmbeddings, count);
    const run = (last: number): unknown =>
      scope(
        () => model.forward(ids(), { positionIds: tensor(Int32Array.of(0, 1, 2, 3, 0, 1, 2, last), [2, 4]) }).shape,
      );
    run(count - 1);
    const held = memoryStats().liveBytes;
    assert.throws(() => run(count), says(ShapeError, "positionIds", `${count}`));
    assert.throws(() => run(300_000), says(ShapeError, "positionIds", "300000"));
    assert.throws(() => run(-1), says(ArgumentError));
    assert.equal(memoryStats().liveBytes, held, name);
    model.dispose();
  }
});

test("head none: the base model alone, with a pooler if the weights have one", () => {
  const load = (folder: string): models.BertModel =>
    models.loadModel(folder, { head: "none" }).model as unknown as models.BertModel;
  const base = load(familyPath("bert_cls"));
  assert(base.pooler !== null);
  const bare = load(changed("minilm_embed", {}, (key) => (key.startsWith("pooler.") ? null : key)));
  assert.equal(bare.pooler, null);
  assert.deepEqual(bare.forward(ids()).shape, [2, 4, 40]);
  assert.deepEqual(
    [...base.stateDict().keys()].filter((key) => key.startsWith("bert.")),
    [],
  );
  for (const model of [base, bare]) model.dispose();
});

test("what is asked for and cannot be is refused by name, and leaves nothing", () => {
  const before = memoryStats().liveBytes;
  const bert = familyPath("bert_cls");
  assert.throws(
    () => models.loadModel(bert, { head: "causal-lm" }),
    says(ArgumentError, "causal-lm", "sequence-classification"),
  );
  assert.throws(() => models.loadModel(bert, { head: "none", numLabels: 3 }), says(ArgumentError, "numLabels"));
  assert.throws(() => models.loadModel(bert, { numLabels: 5 }), says(FormatError, "num_labels", "is 5", "classifier"));
  assert.throws(
    () => models.loadModel(changed("vit_cls", { image_size: 32 })),
    says(FormatError, "image_size", "is 65"),
  );
  assert.throws(() => models.loadModel(changed("vit_cls", { image_size: 1e9 })), says(FormatError, "such sizes"));
  assert.throws(
    () => models.loadModel(changed("bert_cls", { hidden_act: "gelu_fast" })),
    says(FormatError, "hidden_act"),
  );
  assert.throws(() => models.loadModel(changed("bert_cls", { is_decoder: true })), says(FormatError, "is_decoder"));
  assert.throws(
    () => models.loadModel(changed("bert_cls", { position_embedding_type: "relative_key" })),
    says(FormatError, "position_embedding_type"),
  );
  assert.throws(
    () => models.loadModel(changed("bert_cls", { num_attention_heads: 3 })),
    says(FormatError, "num_attention_heads"),
  );
  assert.throws(
    () => models.loadModel(changed("bert_cls", { intermediate_size: 63 })),
    says(FormatError, "intermediate_size"),
  );
  assert.throws(() => models.loadModel(changed("bert_cls", { pad_token_id: 96 })), says(FormatError, "pad_token_id"));
  assert.throws(
    () => models.loadModel(changed("bert_cls", {}, (key) => key, ["bert.more"])),
    says(FormatError, "bert.more"),
  );
  assert.throws(() => models.loadModel(changed("vit_cls", { patch_size: [4, 4, 4] })), says(FormatError, "patch_size"));
  assert.throws(() => models.loadModel(changed("vit_cls", { patch_size: 32 })), says(FormatError, "patch_size"));
  assert.equal(memoryStats().liveBytes, before);
});

for (const name of ["bert_cls", "roberta_cls", "distilbert_cls", "modernbert_cls", "vit_cls", "llama_cls"])
  test(`${name}: gradientCheckpointing changes no bit of loss and gradients`, () => {
    const run = (checkpointing: boolean): number[][] => {
      const { model, head } = models.loadModel(familyPath(name)) as { model: nn.Module; head: string };
      const base = [...model.namedModules()].find(([, part]) => "gradientCheckpointing" in part && part !== model);
      (base![1] as { gradientCheckpointing: boolean } & nn.Module).gradientCheckpointing = checkpointing;
      const labels = tensor(new Int32Array([1, 0]));
      const loss = scope(() => {
        const y =
          head === "image-classification"
            ? (model as models.ViTForImageClassification).loss(full([2, 3, 16, 16], 0.5), labels)
            : (model as unknown as models.SequenceClassifier).loss(ids(), labels);
        y.backward();
        return y.item();
      });
      const gradients = model.parameters().map((p) => [...(p.grad?.data ?? [])]);
      model.dispose();
      return [[loss], ...gradients];
    };
    assert.deepEqual(run(true), run(false));
  });

test("configurations of one's own: what is missing, unknown or out of range is refused by name", () => {
  const BERT = {
    modelType: "bert" as const,
    vocabSize: 8,
    hiddenSize: 4,
    intermediateSize: 6,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    hiddenAct: "gelu",
    maxPositionEmbeddings: 5,
    typeVocabSize: 1,
    layerNormEps: 1e-12,
    padTokenId: 0,
    initializerRange: 0.02,
  };
  const labels = { id2label: ["a", "b"], problemType: null };
  const model = new models.BertForSequenceClassification({ ...BERT, ...labels });
  assert.deepEqual(model.forward(tensor(new Int32Array([1, 2]), [1, 2])).shape, [1, 2]);
  assert.throws(() => model.loss(ids(), undefined as never), says(ArgumentError, "Embedding"));
  const two = (): Tensor => tensor(new Int32Array([1, 2]), [1, 2]);
  assert.throws(() => model.loss(two(), undefined as never), says(DTypeError, "labels"));
  model.dispose();
  for (const [changes, word] of [
    [{ vocabSize: 0 }, "vocabSize"],
    [{ numHiddenLayers: 1e9 }, "numHiddenLayers"],
    [{ layerNormEps: -1 }, "layerNormEps"],
    [{ hiddenAct: "gelu_fast" }, "hiddenAct"],
    [{ numAttentionHeads: 3 }, "numAttentionHeads"],
    [{ padTokenId: 8 }, "padTokenId"],
    [{ hiddenDropout: 0.1 }, "hiddenDropout"],
    [{ dtype: "int8" }, "dtype"],
  ] as const)
    assert.throws(() => new models.BertModel({ ...BERT, ...changes } as never), says(ArgumentError, "BertModel", word));
  assert.throws(() => new models.BertModel(undefined as never), says(ArgumentError, "BertModel", "vocabSize"));
  for (const changes of [{ id2label: [] }, { id2label: undefined }, { problemType: "ranking" }])
    assert.throws(
      () => new models.BertForSequenceClassification({ ...BERT, ...labels, ...changes } as never),
      says(ArgumentError, "BertForSequenceClassification"),
    );
  assert.throws(() => new models.DistilBertModel({} as never), says(ArgumentError, "DistilBertModel"));
  assert.throws(() => new models.ModernBertModel({} as never), says(ArgumentError, "ModernBertModel"));
  assert.throws(() => new models.ViTModel({} as never), says(ArgumentError, "ViTModel"));
});

test("a ModernBERT of one's own: a type for each layer; nothing is left where its angles are none", () => {
  const loaded = models.loadModel(familyPath("modernbert_cls"), { head: "none" });
  const { numHiddenLayers: _, layerTypes: types, ...config } = loaded.model.config as models.ModernBertConfig;
  loaded.model.dispose();
  const before = memoryStats().liveBytes;
  for (const [numHiddenLayers, layerTypes] of [
    [1, types],
    [4, types],
    [3, undefined],
    [3, [...types.slice(1), "chunked_attention"]],
  ] as const)
    assert.throws(
      () => new models.ModernBertModel({ ...config, numHiddenLayers, layerTypes } as never),
      says(ArgumentError, "ModernBertModel", "layerTypes", `${numHiddenLayers} layers`),
    );
  for (const name of ["fullRope", "slidingRope"])
    assert.throws(
      () =>
        new models.ModernBertModel({
          ...config,
          numHiddenLayers: 3,
          layerTypes: types,
          [name]: { ropeType: "spiral", ropeTheta: 10000 },
        } as never),
      says(ArgumentError, "ropeType"),
    );
  assert.equal(memoryStats().liveBytes, before);
});

test("decoders: where a text ends", () => {
  const load = (changes: object): models.SequenceClassifier =>
    models.loadModel(changed("llama_cls", changes), { head: "sequence-classification" }).model;
  const texts = (): Tensor => tensor(new Int32Array([5, 6, 9, 4]), [2, 2]);
  const mask = (...values: number[]) => ({ attentionMask: tensor(Int32Array.from(values), [2, 2]) });
  const model = load({ pad_token_id: null });
  assert.throws(() => model.forward(texts()), says(ArgumentError, "2 rows", "attentionMask", "pad_token_id"));
  assert.throws(() => model.forward(texts(), mask(1, 2, 1, 1)), says(ArgumentError, "row 0", "several texts"));
  assert.throws(() => model.forward(texts(), mask(1, 1, 0, 0)), says(ArgumentError, "row 1", "padding"));
  const first = (of: Tensor): number[] => [...of.data.slice(0, 3)];
  const alone = first(model.forward(tensor(new Int32Array([5]), [1, 1])));
  assert.deepEqual(first(model.forward(texts(), mask(1, 0, 1, 1))), alone);
  const padded = load({ pad_token_id: 6 });
  assert.deepEqual(first(padded.forward(texts())), alone);
  // Drawn on a language model: a head that is not its own.
  manualSeed(5);
  const drawn = models.loadModel(fileURLToPath(new URL("models/base", ROOT)), {
    head: "sequence-classification",
    numLabels: 2,
  });
  assert.deepEqual(drawn.model.forward(texts(), mask(1, 1, 1, 1)).shape, [2, 2]);
  assert.deepEqual(
    [...drawn.model.stateDict().keys()].filter((key) => /head|score/.test(key)),
    ["score.weight"],
  );
  for (const each of [model, padded, drawn.model]) each.dispose();
});

test("ModernBERT: both spellings of config.json; the first token or the mean", () => {
  const old = {
    layer_types: null,
    rope_parameters: null,
    global_attn_every_n_layers: 3,
    global_rope_theta: 160000,
    local_rope_theta: 10000,
  };
  const logits = (folder: string): number[] => {
    const { model } = models.loadModel(folder, { head: "sequence-classification" });
    const values = [...model.forward(ids()).data];
    model.dispose();
    return values;
  };
  const today = logits(familyPath("modernbert_cls"));
  assert.deepEqual(logits(changed("modernbert_cls", old)), today);
  for (const change of [{ global_rope_theta: 5000 }, { local_rope_theta: 5000 }, { global_attn_every_n_layers: 1 }])
    assert.notDeepEqual(logits(changed("modernbert_cls", { ...old, local_attention: 2, ...change })), today);
  assert.notDeepEqual(logits(changed("modernbert_cls", { classifier_pooling: "cls" })), today);
  for (const [change, word] of [
    [{ classifier_pooling: "max" }, "classifier_pooling"],
    [{ layer_types: ["full_attention"] }, "layer_types"],
    [{ layer_types: ["full_attention", "sliding_attention", "chunked_attention"] }, "layer_types"],
    [{ num_attention_heads: 8 }, "num_attention_heads"],
    [{ norm_bias: true }, "norm.bias"],
    [{ classifier_activation: "gelu_fast" }, "classifier_activation"],
  ] as const)
    assert.throws(() => models.loadModel(changed("modernbert_cls", change)), says(FormatError, word));
});

test("ViT: names of files and of transformers 5 are one; pooler and mask token are left out", () => {
  const folder = changed("vit_cls", {}, (key) => key, ["vit.pooler.dense.bias", "vit.embeddings.mask_token"]);
  const [a, b] = [folder, familyPath("vit_cls")].map((from) =>
    models.loadModel(from, { head: "image-classification" }),
  );
  assert.deepEqual([...a!.model.stateDict()], [...b!.model.stateDict()]);
  assert.throws(() => a!.model.forward(ids() as never), says(DTypeError, "pixelValues"));
  assert.throws(
    () => a!.model.forward(tensor(new Float32Array(3 * 256), [1, 3, 8, 32])),
    says(ShapeError, "pixelValues"),
  );
  for (const { model } of [a!, b!]) model.dispose();
});

test.run();

/** Embeddings of texts: folders as sentence-transformers writes them, cutting, pooling, the loss. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  data,
  FormatError,
  init,
  io,
  memoryStats,
  models,
  noGrad,
  ShapeError,
  StateError,
  tensor,
} from "../../../src/index.js";
import { readBytes } from "../../../src/io/files.js";
import { familyPath } from "../../support/families.js";
import { LETTER_TOKENIZER } from "../../support/letter_tokenizer.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { says } from "../../support/refuses.js";

await init();

const CASE = familyPath("minilm_embed");
const ST = "sentence_transformers.models";
const POOLING = {
  word_embedding_dimension: 40,
  pooling_mode_cls_token: false,
  pooling_mode_mean_tokens: true,
  pooling_mode_max_tokens: false,
  pooling_mode_mean_sqrt_len_tokens: false,
};
const MODULES = [
  { idx: 0, name: "0", path: "", type: `${ST}.Transformer` },
  { idx: 1, name: "1", path: "1_Pooling", type: `${ST}.Pooling` },
  { idx: 2, name: "2", path: "2_Normalize", type: `${ST}.Normalize` },
];

let folders = 0;
/** The reference case as a folder with these files beside. */
function folder(files: Record<string, unknown>): string {
  const path = `memory:sentence-${folders++}`;
  for (const name of ["config.json", "model.safetensors"])
    io.memoryFiles.set(`${path}/${name}`, readBytes(`${CASE}/${name}`));
  for (const [name, json] of Object.entries({ "tokenizer.json": LETTER_TOKENIZER, ...files }))
    io.memoryFiles.set(`${path}/${name}`, new TextEncoder().encode(JSON.stringify(json)));
  return path;
}

test("a folder of sentence-transformers: mean over the text, length 1", () => {
  const path = folder({
    "modules.json": MODULES,
    "1_Pooling/config.json": POOLING,
    "sentence_bert_config.json": { max_seq_length: 6, do_lower_case: false },
  });
  const encoder = models.loadSentenceEncoder(path);
  assert.deepEqual([encoder.pooling, encoder.normalize, encoder.maxSeqLength], ["mean", true, 6]);
  const { ids, attentionMask } = encoder.tokenize(["ab", "cdefghij", "k"]);
  // [CLS] a ##b [SEP]; of a text that is too long [SEP] stays.
  assert.deepEqual(
    [...ids.indices],
    [
      [2, 4, 31, 3, 0, 0],
      [2, 6, 33, 34, 35, 3],
      [2, 14, 3, 0, 0, 0],
    ].flat(),
  );
  assert.deepEqual(
    [...attentionMask.indices],
    [
      [1, 1, 1, 1, 0, 0],
      [1, 1, 1, 1, 1, 1],
      [1, 1, 1, 0, 0, 0],
    ].flat(),
  );
  const embeddings = noGrad(() => encoder.encode(["ab", "cdefghij", "k"]));
  assert.deepEqual(embeddings.shape, [3, 40]);
  const states = noGrad(() => encoder.model.forward(ids, { attentionMask }));
  for (const [row, count] of [4, 6, 3].entries()) {
    const mean = Array.from({ length: 40 }, (_, j) => {
      let total = 0;
      for (let i = 0; i < count; i++) total += states.data[(row * 6 + i) * 40 + j]!;
      return total / count;
    });
    const length = Math.sqrt(mean.reduce((total, v) => total + v * v, 0));
    assertClose(
      `row ${row}`,
      embeddings.data.slice(row * 40, row * 40 + 40),
      mean.map((v) => v / length),
      1e-6,
    );
  }
  const alone = noGrad(() => encoder.encode(["ab"]));
  assertBits("alone", alone.data, embeddings.data.slice(0, 40));
  encoder.model.dispose();
});

test("the first token; no division; no modules.json; an encoder in a folder of its own", () => {
  const cls = { ...POOLING, pooling_mode_cls_token: true, pooling_mode_mean_tokens: false };
  const load = (files: Record<string, unknown>): [string, boolean, number] => {
    const { pooling, normalize, maxSeqLength, model } = models.loadSentenceEncoder(folder(files));
    model.dispose();
    return [pooling, normalize, maxSeqLength];
  };
  assert.deepEqual(load({ "modules.json": MODULES, "1_Pooling/config.json": cls }), ["cls", true, 40]);
  assert.deepEqual(load({ "modules.json": MODULES.slice(0, 2), "1_Pooling/config.json": { pooling_mode: "cls" } }), [
    "cls",
    false,
    40,
  ]);
  assert.deepEqual(load({}), ["mean", false, 40]);
  assert.deepEqual(load({ "sentence_bert_config.json": { max_seq_length: 512 } }), ["mean", false, 40]);
});

test("a RoBERTa's positions begin behind its padding: texts are cut to what is left", () => {
  const { model } = models.loadModel(familyPath("roberta_cls"), {
    head: "none",
  });
  const encoder = new models.SentenceEncoder(model, { tokenizer: new data.Tokenizer(LETTER_TOKENIZER) });
  assert.equal(model.config.maxPositionEmbeddings, 40);
  assert.equal(encoder.maxSeqLength, 38);
  assert.deepEqual(noGrad(() => encoder.encode(["ab".repeat(40)])).shape, [1, 40]);
  assert.throws(
    () => new models.SentenceEncoder(model, { maxSeqLength: 39 }),
    says(ArgumentError, "maxSeqLength", "38"),
  );
  model.dispose();
});

test("what a folder asks for and is not supported is refused by name, and leaves nothing", () => {
  const before = memoryStats().liveBytes;
  const load = (files: Record<string, unknown>) => () =>
    models.loadSentenceEncoder(folder({ "modules.json": MODULES, "1_Pooling/config.json": POOLING, ...files }));
  const dense = { idx: 2, name: "2", path: "2_Dense", type: `${ST}.Dense` };
  for (const [files, ...words] of [
    [{ "modules.json": [...MODULES.slice(0, 2), dense] }, "modules.json", "Dense"],
    [{ "modules.json": [MODULES[0], MODULES[2]] }, "modules.json", "Pooling"],
    [{ "modules.json": {} }, "modules.json"],
    ...["../other", "a/../..", "..\\other", "/etc", "a//b", "%2e%2e/other", "a/.", 5].map(
      (place) =>
        [
          { "modules.json": [{ ...MODULES[0], path: place }, MODULES[1]] },
          "modules.json",
          `in ${JSON.stringify(place)}`,
        ] as const,
    ),
    [
      { "1_Pooling/config.json": { ...POOLING, pooling_mode_max_tokens: true } },
      "1_Pooling",
      "pooling_mode_max_tokens",
    ],
    [{ "1_Pooling/config.json": { pooling_mode: "lasttoken" } }, "1_Pooling", "lasttoken"],
    [{ "1_Pooling/config.json": {} }, "1_Pooling", "none"],
    [{ "sentence_bert_config.json": { do_lower_case: true } }, "do_lower_case"],
    [{ "sentence_bert_config.json": { max_seq_length: "all" } }, "max_seq_length"],
    [{ "config_sentence_transformers.json": { default_prompt_name: "query" } }, "default_prompt_name"],
  ] as const)
    assert.throws(load(files), says(FormatError, ...words));
  assert.equal(memoryStats().liveBytes, before);
});

test("an encoder of one's own: options and texts", () => {
  const { model } = models.loadModel(CASE, { head: "none" });
  assert.throws(() => new models.SentenceEncoder(model, { pooling: "max" as never }), says(ArgumentError, "pooling"));
  assert.throws(
    () => new models.SentenceEncoder(model, { maxSeqLength: 41 }),
    says(ArgumentError, "maxSeqLength", "40"),
  );
  assert.throws(
    () => new models.SentenceEncoder(model, { normalise: true } as never),
    says(ArgumentError, "normalize"),
  );
  assert.throws(() => new models.SentenceEncoder(model).encode(["a"]), says(StateError, "tokenizer"));
  const encoder = new models.SentenceEncoder(model, { tokenizer: new data.Tokenizer(LETTER_TOKENIZER) });
  assert.throws(() => encoder.encode([]), says(ArgumentError, "texts"));
  assert.throws(() => encoder.encode("text" as never), says(ArgumentError, "texts"));
  const ids = tensor(new Int32Array([2, 5, 3, 2, 5, 3]), [2, 3]);
  const mask = (...values: number[]) => ({ attentionMask: tensor(Int32Array.from(values), [2, 3]) });
  assert.throws(() => encoder.forward(ids, mask(1, 1, 1, 0, 0, 0)), says(ArgumentError, "row 1", "padding"));
  assert.throws(() => encoder.forward(ids, mask(1, 1, 2, 1, 1, 1)), says(ArgumentError, "row 0", "several texts"));
  model.dispose();
});

test("multipleNegativesRankingLoss: cosines, more candidates than anchors, shapes", () => {
  const anchors = tensor([
    [3, 0],
    [0, 2],
  ]);
  const candidates = tensor([
    [1, 0],
    [1, 1],
    [0, -5],
  ]);
  const half = Math.SQRT1_2;
  const rows = [
    [1, half, 0],
    [0, half, -1],
  ];
  const expected =
    rows
      .map((row, i) => Math.log(row.reduce((total, cos) => total + Math.exp(4 * cos), 0)) - 4 * row[i]!)
      .reduce((a, b) => a + b) / 2;
  assertClose("loss", [models.multipleNegativesRankingLoss(anchors, candidates, 4).item()], [expected], 1e-6);
  assert.throws(() => models.multipleNegativesRankingLoss(candidates, anchors), says(ShapeError, "candidates"));
  assert.throws(() => models.multipleNegativesRankingLoss(anchors, tensor([[1]])), says(ShapeError, "candidates"));
});

test.run();

/**
 * Logits and losses of the classifiers of test/fixtures/families for what their reference cases leave out: pairs of
 * texts, padding tokens within a text, other activations, poolings and losses. Expected: transformers 5.17 on PyTorch
 * 2.13 in float64, printed to nine digits.
 */
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { init, io, models, noGrad, scope, tensor, type Tensor } from "../../src/index.js";
import { familyPath } from "../support/families.js";
import { assertClose } from "../support/golden.js";

await init();

let folders = 0;
/** A case's classifier under another config.json. */
function load(name: string, changes: object = {}): models.SequenceClassifier {
  const from = familyPath(name);
  const folder = `memory:classifiers-${folders++}`;
  const config = JSON.parse(readFileSync(`${from}/config.json`, "utf8")) as object;
  io.memoryFiles.set(`${folder}/config.json`, new TextEncoder().encode(JSON.stringify({ ...config, ...changes })));
  io.memoryFiles.set(`${folder}/model.safetensors`, readFileSync(`${from}/model.safetensors`));
  return models.loadModel(folder, { head: "sequence-classification" }).model;
}

const int32 = (rows: number[][]): Tensor => tensor(Int32Array.from(rows.flat()), [rows.length, rows[0]!.length]);
const TEXTS = [
  [2, 45, 46, 3, 50, 51, 3],
  [2, 60, 3, 70, 3, 0, 0],
];
const MASK = TEXTS.map((row) => row.map((id) => (id === 0 ? 0 : 1)));
const ids = (): Tensor => int32(TEXTS);
const mask = (): models.EncoderOptions => ({ attentionMask: int32(MASK) });
/** 0 is padding: behind a text, within it, before it. */
const ENDS = [
  [5, 6, 7, 0, 0],
  [5, 0, 7, 9, 0],
  [0, 0, 4, 5, 6],
];
const FLAGS = [
  [1, 0, 1],
  [0, 0, 1],
];

/** What a model gives for what it is asked, and what it should. */
const CASES: [what: string, name: string, changes: object, run: (m: models.SequenceClassifier) => Tensor, number[]][] =
  [
    [
      "BERT, a pair of texts in each row",
      "bert_cls",
      {},
      (m) => {
        const types = [
          [0, 0, 0, 0, 1, 1, 1],
          [0, 0, 0, 1, 1, 0, 0],
        ];
        return m.forward(ids(), { ...mask(), tokenTypeIds: int32(types) });
      },
      [-0.14093166, -0.879786203, -0.506295355, 0.130009777, -0.987794411, -0.294469676],
    ],
    [
      "BERT with relu",
      "bert_cls",
      { hidden_act: "relu" },
      (m) => m.forward(ids(), mask()),
      [-0.0237591602, -0.800876861, -0.440648051, -0.0040754417, -0.861063778, -0.339390664],
    ],
    [
      "BERT with gelu_new",
      "bert_cls",
      { hidden_act: "gelu_new" },
      (m) => m.forward(ids(), mask()),
      [-0.00471472848, -0.803357867, -0.464295051, -0.0108243403, -0.872710749, -0.3526122],
    ],
    [
      "BERT with silu",
      "bert_cls",
      { hidden_act: "silu" },
      (m) => m.forward(ids(), mask()),
      [0.080038576, -0.851316104, -0.451740733, 0.0608545005, -0.929908479, -0.336098309],
    ],
    [
      "BERT, a yes or no for each class",
      "bert_cls",
      { problem_type: "multi_label_classification" },
      (m) => m.loss(ids(), tensor(FLAGS), mask()),
      [0.65655312],
    ],
    [
      "BERT, numbers",
      "bert_cls",
      { problem_type: "regression" },
      (m) => m.loss(ids(), tensor(FLAGS), mask()),
      [1.06500201],
    ],
    [
      "RoBERTa, a padding token within a text",
      "roberta_cls",
      {},
      (m) => {
        const texts = [
          [0, 45, 1, 46, 2],
          [0, 60, 2, 1, 1],
        ];
        const seen = [
          [1, 1, 1, 1, 1],
          [1, 1, 1, 0, 0],
        ];
        return m.forward(int32(texts), { attentionMask: int32(seen) });
      },
      [0.1748264, 0.662737886, -1.23818959, 0.341759888, 0.70662646, -1.32148498],
    ],
    [
      "Llama, the last token that is no padding, without a mask",
      "llama_cls",
      {},
      (m) => m.forward(int32(ENDS)),
      [
        1.34808884, 0.898656654, -0.404620775, -0.249892836, -0.286697153, -0.00930813367, -0.339822427, 0.181072918,
        -0.411153695,
      ],
    ],
    [
      "Qwen3, the last token that is no padding, without a mask",
      "qwen3_cls",
      {},
      (m) => m.forward(int32(ENDS)),
      [
        -0.0903191717, -0.349539045, 0.535105344, 0.0399386206, -1.07947841, -0.906989056, -0.989153249, -0.0474736851,
        -0.0358480211,
      ],
    ],
    [
      "ModernBERT on the first token",
      "modernbert_cls",
      { classifier_pooling: "cls" },
      (m) => m.forward(ids()),
      [-1.07552691, 1.70804147, -0.00153419181, -0.511853439, 1.17795999, 0.555070807],
    ],
  ];

for (const [what, name, changes, run, expected] of CASES)
  test(what, () => {
    const model = load(name, changes);
    assertClose(
      what,
      noGrad(() => scope(() => run(model).data.slice())),
      expected,
      1e-6,
      0,
    );
    model.dispose();
  });

test.run();

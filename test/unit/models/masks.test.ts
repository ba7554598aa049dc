/** Padding and several texts in a row, for each kind of decoder: a token has the bits that it has in its text alone. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import {
  ArgumentError,
  FormatError,
  init,
  io,
  models,
  noGrad,
  peft,
  scope,
  ShapeError,
  tensor,
} from "../../../src/index.js";
import { decoderCases, familyPath } from "../../support/families.js";
import { assertBits } from "../../support/golden.js";

await init();
test.after(() => io.memoryFiles.clear());
const FIRST = [5, 90, 17, 3, 41, 8, 66, 2, 29];
const SECOND = [33, 12, 70, 4, 55, 9];

function logitsOf(
  model: models.CausalLM,
  rows: readonly (readonly number[])[],
  mask?: readonly (readonly number[])[],
): Float32Array {
  const shape = [rows.length, rows[0]!.length];
  const attentionMask = mask && tensor(Int32Array.from(mask.flat()), shape);
  return noGrad(() =>
    scope(() => model.forward(tensor(Int32Array.from(rows.flat()), shape), { attentionMask }).data.slice()),
  );
}

for (const name of decoderCases()) {
  test(name, () => {
    const { model } = models.loadModel(familyPath(name));
    const width = model.config.vocabSize;
    const alone = [FIRST, SECOND].map((text) => logitsOf(model, [text])) as [Float32Array, Float32Array];
    const ones = (n: number, text = 1): number[] => Array.from({ length: n }, () => text);
    const pads = ones(3, 0);
    const both = logitsOf(
      model,
      [
        [...FIRST, ...SECOND, ...pads],
        [...pads, ...ones(6, 7), ...FIRST],
      ],
      [
        [...ones(9), ...ones(6, 2), ...pads],
        [...pads, ...ones(6, 0), ...ones(9, 4)],
      ],
    );
    const part = (row: number, from: number, count: number): Float32Array =>
      both.slice((row * 18 + from) * width, (row * 18 + from + count) * width);
    assertBits("first in a row", part(0, 0, 9), alone[0]);
    assertBits("second in a row", part(0, 9, 6), alone[1]);
    assertBits("behind padding", part(1, 9, 9), alone[0]);
    model.dispose();
  });
}

test("a mask goes on over what is cached", () => {
  const { model } = models.loadModel(familyPath("gemma3_text"));
  const alone = logitsOf(model, [FIRST]).slice(-model.config.vocabSize);
  const cache = model.newCache();
  const step = (ids: number[], mask: number[]): Float32Array =>
    noGrad(() =>
      scope(() => {
        const attentionMask = tensor(Int32Array.from(mask), [1, mask.length]);
        const x = tensor(Int32Array.from(ids), [1, ids.length]);
        return model.forward(x, { attentionMask, cache, logitsToKeep: 1 }).data.slice();
      }),
    );
  step([0, 0, ...FIRST.slice(0, -1)], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
  assertBits("last", step(FIRST.slice(-1), [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]), alone);
  cache.dispose();
  model.dispose();
});

test("positions may be given, and are refused where there are none", () => {
  const { model } = models.loadModel(familyPath("gpt2"));
  const ids = tensor(new Int32Array([3, 1, 4]), [1, 3]);
  const run = (positions: number[], shape = [1, 3]): Float32Array =>
    noGrad(() =>
      scope(() => model.forward(ids, { positionIds: tensor(Int32Array.from(positions), shape) }).data.slice()),
    );
  assertBits("as counted", run([0, 1, 2]), logitsOf(model, [[3, 1, 4]]));
  assert.notDeepEqual(run([2, 1, 0]), run([0, 1, 2]));
  assert.throws(() => run([0, 1, 64]), ShapeError);
  assert.throws(() => run([0, 1, -1]), ArgumentError);
  assert.throws(() => run([0, 1, 2, 3], [2, 2]), ShapeError);
  assert.throws(() => model.forward(ids, { position_ids: ids } as never), ArgumentError);
  model.dispose();
});

test("the text model of a model of texts and images, under the names of either release", () => {
  const config = JSON.parse(readFileSync(`${familyPath("gemma3_text")}/config.json`, "utf8")) as object;
  const { tensors } = io.parseSafetensors(readFileSync(`${familyPath("gemma3_text")}/model.safetensors`));
  const whole = models.loadModel(familyPath("gemma3_text"));
  const expected = logitsOf(whole.model, [FIRST]);
  whole.model.dispose();
  const image = { dtype: "F32" as const, shape: [2], data: new Float32Array(2) };
  for (const [text, vision] of [
    ["language_model.model.", "vision_tower.vision_model.post_layernorm.weight"],
    ["model.language_model.", "model.vision_tower.vision_model.post_layernorm.weight"],
  ] as const) {
    const path = `memory:gemma3-${text}`;
    const json = { model_type: "gemma3", architectures: ["Gemma3ForConditionalGeneration"], text_config: config };
    io.memoryFiles.set(`${path}/config.json`, new TextEncoder().encode(JSON.stringify(json)));
    io.memoryFiles.set(
      `${path}/model.safetensors`,
      io.serializeSafetensors([
        ...[...tensors.values()].map(({ name, dtype, shape, bytes }) => ({
          name: name.replace(/^model\./, text),
          dtype,
          shape,
          data: bytes,
        })),
        { name: vision, ...image },
        {
          name: `${vision.startsWith("model.") ? "model." : ""}multi_modal_projector.mm_soft_emb_norm.weight`,
          ...image,
        },
      ]),
    );
    const { model, config: read } = models.loadModel(path);
    assert.equal(read.modelType, "gemma3");
    // As PEFT's adapters call them.
    for (const key of model.stateDict().keys()) assert.ok(key.startsWith("model.language_model."), key);
    assertBits(text, logitsOf(model, [FIRST]), expected);
    model.dispose();
  }
});

test("an adapter of Gemma 3, whatever the release calls the text model's parts", () => {
  const folder = familyPath("gemma3/adapter");
  const { tensors } = io.parseSafetensors(readFileSync(`${folder}/adapter_model.safetensors`));
  const load = (path: string): [Float32Array, string[]] => {
    const { model } = models.loadModel(familyPath("gemma3"));
    const adapted = peft.LoraModel.fromPretrained(model, path);
    const logits = logitsOf(model, [FIRST]);
    adapted.savePretrained("memory:again");
    model.dispose();
    return [logits, [...peft.readPeftAdapter("memory:again").tensors.keys()]];
  };
  const [expected, saved] = load(folder);
  assert.deepEqual(saved.sort(), [...tensors.keys()].sort());
  for (const start of ["model.", "language_model.model."]) {
    const path = `memory:adapter-${start}`;
    io.memoryFiles.set(`${path}/adapter_config.json`, readFileSync(`${folder}/adapter_config.json`));
    const renamed = [...tensors.values()].map(({ name, dtype, shape, bytes }) => ({
      name: name.replace("base_model.model.model.language_model.", `base_model.model.${start}`),
      dtype,
      shape,
      data: bytes,
    }));
    const write = (list: readonly io.TensorToWrite[]): void => {
      io.memoryFiles.set(`${path}/adapter_model.safetensors`, io.serializeSafetensors(list));
    };
    write(renamed);
    const [logits, again] = load(path);
    assertBits(start, logits, expected);
    assert.deepEqual(again.sort(), [...tensors.keys()].sort());
    const { name, dtype, shape, bytes } = [...tensors.values()][0]!;
    write([...renamed, { name, dtype, shape, data: bytes }]);
    assert.throws(() => load(path), FormatError);
  }
});

test.run();

/** A language model's loss: the bits of crossEntropy(forward()), whatever its head is. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  DTypeError,
  init,
  manualSeed,
  memoryStats,
  models,
  ops,
  peft,
  scope,
  ShapeError,
  type Tensor,
  tensor,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { outputEmbeddings } from "../../../src/peft/places.js";
import { assertBits } from "../../support/golden.js";
import { GPT2, LLAMA } from "../../support/language_models.js";
import { says } from "../../support/refuses.js";

await init();
const ids = new Int32Array([5, 0, 60, 17, 5, 9, 1, 2, 3, 4, 44, 31]);
const targets = new Int32Array([0, 60, 17, 5, -100, 1, 2, -100, 4, 44, 31, 8]);

function headName(model: models.CausalLM): string {
  return [...model.namedModules()]
    .find(([, module]) => module === outputEmbeddings(model))![0]
    .split(".")
    .at(-1)!;
}

const heads: Record<string, (model: models.CausalLM) => void> = {
  "full fine-tuning": () => {},
  "LoRA on the layers": (model) => {
    peft.getLoraModel(model, { r: 2, targetModules: "all-linear", initLoraWeights: false });
  },
  "LoRA on the head": (model) => {
    peft.getLoraModel(model, { r: 2, targetModules: [headName(model)], initLoraWeights: false });
  },
  "DoRA on the head": (model) => {
    peft.getLoraModel(model, { r: 2, targetModules: [headName(model)], initLoraWeights: false, useDora: true });
  },
  "a trained copy of the head": (model) => {
    peft.getLoraModel(model, {
      r: 2,
      targetModules: "all-linear",
      modulesToSave: [headName(model)],
      initLoraWeights: false,
    });
  },
};

function gradients(
  model: models.CausalLM,
  lossOf: (ids: Tensor, targets: Tensor) => Tensor,
): Map<string, Float32Array> {
  return scope(() => {
    const loss = lossOf(tensor(ids, [2, 6]), tensor(targets, [2, 6]));
    const out = new Map([["loss", loss.data.slice()]]);
    loss.backward();
    for (const [key, p] of model.namedParameters()) {
      if (p.grad) out.set(key, p.grad.data.slice());
      p.grad?.dispose();
      p.grad = null;
    }
    return out;
  });
}

for (const tieWordEmbeddings of [true, false])
  for (const kind of ["Llama", "Gpt2"] as const)
    for (const [name, adapt] of Object.entries(heads)) {
      test(`${kind}, ${tieWordEmbeddings ? "tied" : "untied"}: ${name}`, () => {
        manualSeed(3);
        const model =
          kind === "Llama"
            ? new models.Llama({ ...LLAMA, tieWordEmbeddings })
            : new models.Gpt2({ ...GPT2, tieWordEmbeddings });
        adapt(model);
        const expected = gradients(model, (x, t) => ops.crossEntropy(model.forward(x), t));
        const got = gradients(model, (x, t) => model.loss(x, t));
        assert(expected.size > 2);
        assert.deepEqual([...got.keys()], [...expected.keys()]);
        for (const [key, values] of expected) assertBits(key, got.get(key)!, values);
        model.dispose();
      });
    }

const INPUTS = { ids, targets };
const inputs = (): [Tensor, Tensor] => [tensor(INPUTS.ids, [2, 6]), tensor(INPUTS.targets, [2, 6])];

test("a batch of mixed adapters: each row of the head has its item's", () => {
  manualSeed(4);
  const model = new models.Llama({ ...LLAMA, tieWordEmbeddings: false });
  const config = { r: 2, targetModules: ["lm_head", "q_proj"], initLoraWeights: false };
  const adapted = peft.getLoraModel(model, config, "anna");
  adapted.addAdapter("ben", config);
  adapted.setAdapter(["anna", "ben"]);
  const within =
    (names: readonly string[], lossOf: (x: Tensor, t: Tensor) => Tensor) =>
    (x: Tensor, t: Tensor): Tensor =>
      adapted.withAdapterNames(names, () => lossOf(x, t));
  const all = (x: Tensor, t: Tensor): Tensor => ops.crossEntropy(model.forward(x), t);
  const scored = (x: Tensor, t: Tensor): Tensor => model.loss(x, t);
  const expected = gradients(model, within(["ben", "anna"], all));
  const got = gradients(model, within(["ben", "anna"], scored));
  assert.equal(expected.size, 1 + 2 * 2 * (1 + LLAMA.numHiddenLayers));
  for (const [key, values] of expected) assertBits(key, got.get(key)!, values);
  const turned = gradients(model, within(["anna", "ben"], scored));
  assert.notDeepEqual(turned.get("loss"), expected.get("loss"));

  // Where nothing but the head tells the items apart, too.
  const other = new models.Llama({ ...LLAMA, tieWordEmbeddings: false });
  const heads = peft.getLoraModel(other, { ...config, targetModules: ["lm_head"] }, "anna");
  assert.throws(
    () => scope(() => heads.withAdapterNames(["anna", "__base__", "anna"], () => other.loss(...inputs()))),
    says(ShapeError, "loss", "2 items", "3 adapter names"),
  );
  model.dispose();
  other.dispose();
});

test("the head computes the rows of scored targets alone", () => {
  const rows: number[] = [];
  const watched = (model: models.Llama): void => {
    const head = outputEmbeddings(model) as unknown as { forward(x: Tensor): Tensor };
    const { forward } = head;
    head.forward = (x) => {
      rows.push(x.size / LLAMA.hiddenSize);
      return forward.call(head, x);
    };
  };
  const model = new models.Llama({ ...LLAMA, tieWordEmbeddings: false });
  peft.getLoraModel(model, { r: 2, targetModules: ["lm_head"] });
  watched(model);
  scope(() => model.loss(...inputs()));
  assert.deepEqual(rows, [10]);
  model.dispose();

  // A plain head's logits, of which there are 128 rows at a time: all of them but the two that are not scored.
  const plain = new models.Llama(LLAMA);
  const { memory } = engine();
  const peak = (scored: number): number => {
    const before = memoryStats().liveBytes;
    memory.resetPeak();
    scope(() =>
      plain.loss(
        inputs()[0],
        tensor(
          INPUTS.targets.map((t, i) => (i < scored ? t : -100)),
          [2, 6],
        ),
      ),
    );
    return memoryStats().peakBytes - before;
  };
  const block = (elements: number): number => Math.ceil(elements / 16) * 64 + 64;
  const { vocabSize, hiddenSize } = LLAMA;
  const held = (scored: number): number => block(scored * vocabSize) + block(scored * hiddenSize) + 2 * block(scored);
  assert.equal(peak(4) - peak(2), held(4) - held(2));
  plain.dispose();
});

test("numItemsInBatch divides the sum, and so the losses of parts add up", () => {
  manualSeed(5);
  const model = new models.Llama(LLAMA);
  peft.getLoraModel(model, { r: 2, targetModules: "all-linear", initLoraWeights: false });
  const mean = gradients(model, (x, t) => model.loss(x, t));
  const same = gradients(model, (x, t) => model.loss(x, t, { numItemsInBatch: 10 }));
  for (const [key, values] of mean) assertBits(key, same.get(key)!, values);
  const half = gradients(model, (x, t) => model.loss(x, t, { numItemsInBatch: 20 }));
  for (const [key, values] of mean)
    assertBits(
      key,
      half.get(key)!,
      values.map((v) => v / 2),
    );
  model.dispose();
});

test("a batch that scores nothing: zeros where the step scores something, otherwise refused", () => {
  for (const tied of [true, false])
    for (const targetModules of [["q_proj"], ["q_proj", "lm_head"]]) {
      manualSeed(6);
      const model = new models.Llama({ ...LLAMA, tieWordEmbeddings: tied });
      peft.getLoraModel(model, { r: 2, targetModules, initLoraWeights: false });
      const none = (): Tensor => tensor(new Int32Array(12).fill(-100), [2, 6]);
      const got = gradients(model, (x) => model.loss(x, none(), { numItemsInBatch: 3 }));
      assert(got.size > 2);
      for (const [key, values] of got) assertBits(key, values, new Float32Array(values.length));
      const before = memoryStats();
      assert.throws(
        () => scope(() => model.loss(inputs()[0], none())),
        says(ArgumentError, "Llama.loss", "no scored target", "numItemsInBatch"),
      );
      assert.equal(memoryStats().liveBytes, before.liveBytes);
      model.dispose();
    }
});

test("what is no batch, target or option is refused by name, before anything is computed", () => {
  const model = new models.Llama(LLAMA);
  const { allocations } = engine().memory;
  const [x, t] = inputs();
  const refused: [() => unknown, new (...args: never[]) => ArgumentError, ...string[]][] = [
    [() => model.loss(x, tensor(INPUTS.targets)), ShapeError, "loss", "targets", "[12]", "[2, 6]"],
    [() => model.loss(x, INPUTS.targets as never), DTypeError, "targets", "Tensor"],
    [() => model.loss(INPUTS.ids as never, t), DTypeError, "ids", "Tensor"],
    ...[0, -1, 1.5, Number.NaN, "3", null].map((n): [() => unknown, typeof ArgumentError, ...string[]] => [
      () => model.loss(x, t, { numItemsInBatch: n as never }),
      ArgumentError,
      "loss",
      "numItemsInBatch",
    ]),
    [() => model.loss(x, t, { num_items_in_batch: 3 } as never), ArgumentError, "numItemsInBatch"],
  ];
  for (const [call, error, ...words] of refused) assert.throws(call, says(error as never, ...words));
  assert(engine().memory.allocations - allocations < 4);
  for (const made of [x, t]) made.dispose();
  model.dispose();
});

test.run();

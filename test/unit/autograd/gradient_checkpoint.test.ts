/** Gradient checkpointing: the gradients of a plain forward to the bit, dropout masks that repeat, and refusals. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  gradientCheckpoint,
  DisposedError,
  DTypeError,
  init,
  lora,
  manualSeed,
  memoryStats,
  models,
  nn,
  noGrad,
  ones,
  ops,
  OutOfMemoryError,
  peft,
  scope,
  StateError,
  type Tensor,
  tensor,
} from "../../../src/index.js";
import { newMask, streamsOf } from "../../../src/random/seed.js";
import { engine } from "../../../src/runtime/engine.js";
import { assertBits } from "../../support/golden.js";
import { gradcheck, gridTensor as grid } from "../../support/gradcheck.js";
import { GPT2, LLAMA } from "../../support/language_models.js";
import { refuses } from "../../support/refuses.js";

await init();
new nn.Linear(1, 1).dispose();

function takeGradients(tensors: Iterable<[string, Tensor]>): Map<string, Float32Array> {
  const out = new Map<string, Float32Array>();
  for (const [key, t] of tensors) {
    if (t.grad) out.set(key, t.grad.data.slice());
    t.grad?.dispose();
    t.grad = null;
  }
  return out;
}

function assertSame(label: string, got: Map<string, Float32Array>, expected: Map<string, Float32Array>): void {
  assert.deepEqual([...got.keys()], [...expected.keys()], label);
  for (const [key, values] of expected) assertBits(`${label}: ${key}`, got.get(key)!, values);
}

/**
 * Runs `build` plainly and with checkpoints; both must give the same result, gradients, number of masks and live
 * memory.
 */
function compare(
  label: string,
  tensors: () => Iterable<[string, Tensor]>,
  build: (run: typeof gradientCheckpoint) => Tensor,
): void {
  const plain: typeof gradientCheckpoint = (fn, ...inputs) => fn(...inputs);
  const [expected, got] = [plain, gradientCheckpoint].map((run) => {
    manualSeed(5);
    const live = memoryStats().liveBytes;
    const out = scope(() => {
      const y = build(run);
      const values = new Map<string, Float32Array>([["y", y.data.slice()]]);
      ops.sum(ops.mul(y, grid(y.shape, 3, false))).backward();
      for (const [key, v] of takeGradients(tensors())) values.set(key, v);
      return values;
    });
    assert.equal(memoryStats().liveBytes, live, `${label} leaves memory behind`);
    return [out, newMask(0.5).stream] as const;
  }) as [readonly [Map<string, Float32Array>, number], readonly [Map<string, Float32Array>, number]];
  assertSame(label, got[0], expected[0]);
  assert.equal(got[1], expected[1], `${label}: masks drawn`);
}

for (const kind of ["Llama", "Gpt2"] as const)
  for (const loraDropout of [0, 0.3])
    for (const [name, config] of Object.entries({
      "all linear layers": { targetModules: "all-linear" as const },
      "two targets, DoRA": {
        targetModules: kind === "Llama" ? ["q_proj", "down_proj"] : ["c_attn", "c_fc"],
        useDora: true,
      },
    })) {
      test(`${kind}, LoRA on ${name}, dropout ${loraDropout}: the bits without checkpoints, in less memory`, () => {
        manualSeed(2);
        const model =
          kind === "Llama"
            ? new models.Llama({ ...LLAMA, numHiddenLayers: 4 })
            : new models.Gpt2({ ...GPT2, numHiddenLayers: 4 });
        const adapted = peft.getLoraModel(model, { r: 3, loraDropout, initLoraWeights: false, ...config });
        const ids = Int32Array.from({ length: 44 }, (_, i) => (i * 17 + 3) % 61);
        const targets = ids.map((id, i) => (i % 7 === 0 ? -100 : (id + 1) % 61));
        const live = memoryStats().liveBytes;
        const [without, withThem] = [false, true].map((on) => {
          manualSeed(9);
          model.gradientCheckpointing = on;
          engine().memory.resetPeak();
          const values = new Map<string, Float32Array>();
          for (const step of [0, 1])
            scope(() => {
              const loss = model.loss(tensor(ids, [4, 11]), tensor(targets, [4, 11]));
              values.set(`${step}: loss`, loss.data.slice());
              loss.backward();
              for (const [key, v] of takeGradients(adapted.namedParameters())) values.set(`${step}: ${key}`, v);
            });
          assert.equal(memoryStats().liveBytes, live);
          return { values, masks: streamsOf(adapted).nextMask, peak: memoryStats().peakBytes - live };
        }) as [
          { values: Map<string, Float32Array>; masks: number; peak: number },
          { values: Map<string, Float32Array>; masks: number; peak: number },
        ];
        assert(without.values.size > 10);
        assertSame(`${kind}`, withThem.values, without.values);
        assert.equal(withThem.masks, without.masks);
        assert(withThem.peak < 0.7 * without.peak, `peak ${withThem.peak}, ${without.peak} without`);
        adapted.dispose();
      });
    }

test("loralib's layers, fully trained biases, gradients that are added to", () =>
  scope(() => {
    const layers = [new lora.Linear(6, 8, { r: 2, loraDropout: 0.5 }), new lora.Linear(8, 6, { r: 2 })] as const;
    for (const l of layers) nn.normal_(l.loraB!);
    const x = grid([5, 6], 1);
    function* all(): Generator<[string, Tensor]> {
      yield ["x", x];
      for (const [i, l] of layers.entries()) for (const [key, p] of l.namedParameters()) yield [`${i}.${key}`, p];
    }
    const block = (t: Tensor): Tensor => ops.dropout(layers[1].forward(ops.gelu(layers[0].forward(t))), 0.25);
    compare("one", all, (run) => run(block, x));
    compare("the same twice", all, (run) => run(block, run(block, x)));
    compare("nested", all, (run) =>
      run((t: Tensor) => ops.add(run(block, t), run(block, ops.scale(t, 2))), run(block, x)),
    );
    compare("an input that is used outside, too", all, (run) => ops.add(ops.mul(x, run(block, x)), x));
    compare("a tensor with history that fn was not given", all, (run) => {
      const h = ops.mul(x, x);
      return ops.add(
        run((t: Tensor) => ops.mul(block(t), h), x),
        h,
      );
    });
    compare("nothing given", all, (run) => run(() => block(x)));
    compare("part of it under noGrad", all, (run) =>
      run(
        (t: Tensor) =>
          ops.add(
            block(t),
            noGrad(() => block(t)),
          ),
        x,
      ),
    );
    for (const l of layers) l.dispose();
  }));

test("central differences", () =>
  scope(() => {
    const x = grid([3, 4], 1);
    const w = grid([4, 4], 2);
    gradcheck("gradientCheckpoint", { x, w }, () => gradientCheckpoint((t) => ops.silu(ops.linear(ops.silu(t), w)), x));
  }));

test("without anything to train, or under noGrad, it leaves no graph and keeps only the result", () => {
  const x = ones([4, 4]);
  const w = grid([4, 4], 1);
  const live = memoryStats().liveBytes;
  const y = noGrad(() => gradientCheckpoint((t) => ops.relu(ops.linear(t, w)), x));
  const z = gradientCheckpoint((t) => ops.relu(ops.scale(t, 2)), x);
  for (const t of [y, z]) assert.deepEqual([t.requiresGrad, t.isLeaf], [false, true]);
  const constant = gradientCheckpoint(
    (t) =>
      ops.add(
        t,
        noGrad(() => ops.linear(t, w)),
      ),
    x,
  );
  assert.equal(constant.requiresGrad, false);
  for (const t of [y, z, constant]) t.dispose();
  assert.equal(memoryStats().liveBytes, live);
  x.dispose();
  w.dispose();
});

test("a NaN is the same NaN again", () =>
  scope(() => {
    const x = tensor([NaN, 1]);
    x.requiresGrad = true;
    ops.sum(gradientCheckpoint((t) => ops.scale(t, 2), x)).backward();
    assert.deepEqual([...x.grad!.data], [2, 2]);
  }));

test("memory that runs out while a block runs again: nothing is left behind, and the mask comes again", () => {
  const layer = new nn.Linear(8, 8);
  const { memory } = engine();
  const alloc = memory.alloc.bind(memory);
  const live = memoryStats().liveBytes;
  const run = (at: number): number => {
    let calls = 0;
    try {
      scope(() => {
        const loss = ops.sum(gradientCheckpoint((t) => ops.dropout(ops.relu(layer.forward(t)), 0.5), ones([4, 8])));
        memory.alloc = (bytes) => {
          if (calls++ === at) throw new OutOfMemoryError(bytes, 0, 0);
          return alloc(bytes);
        };
        loss.backward();
      });
    } finally {
      memory.alloc = alloc;
      takeGradients(layer.namedParameters());
    }
    return calls;
  };
  const total = run(-1);
  for (let i = 0; i < total; i++) {
    const masks = newMask(0.5).stream;
    assert.throws(() => run(i), OutOfMemoryError);
    assert.equal(memoryStats().liveBytes, live, `allocation ${i} of ${total}`);
    assert.equal(newMask(0.5).stream, masks + 1);
  }
  layer.dispose();
});

const x = ones([2, 2]);
const w = grid([2, 2], 1);
const where = "gradientCheckpoint";
refuses("fn that returns its input", ArgumentError, [where, "[2,2]", "did not compute"], () =>
  gradientCheckpoint((t) => t, x),
);
refuses("fn that returns a leaf from outside", ArgumentError, [where, "[2,2]", "did not compute"], () =>
  gradientCheckpoint(() => w),
);
refuses("fn that returns a number", DTypeError, [where, "Tensor", "number"], () =>
  gradientCheckpoint((() => 1) as unknown as () => Tensor),
);
refuses("fn that is asynchronous", StateError, [where, "synchronous", "AsyncFunction"], () =>
  gradientCheckpoint((async () => x) as unknown as () => Tensor),
);
/** backward() of a checkpoint whose surroundings changed after forward. */
const changing = (change: () => void, fn: (t: Tensor) => Tensor): void =>
  scope(() => {
    try {
      const loss = ops.sum(gradientCheckpoint(fn, x));
      change();
      loss.backward();
    } finally {
      takeGradients([["w", w]]);
    }
  });
let rows = 2;
refuses("another value", StateError, [where, "something else"], () =>
  changing(
    () => {
      w.data[0]! += 1;
    },
    (t) => ops.linear(t, w),
  ),
);
refuses("another shape", StateError, [where, "something else"], () =>
  changing(
    () => {
      rows = 4;
    },
    (t) => ops.reshape(ops.linear(t, w), [rows, 4 / rows]),
  ),
);
refuses("a constant input that is gone", DisposedError, ["[2,2]"], () =>
  scope(() => {
    const gone = ones([2, 2]);
    const loss = ops.sum(gradientCheckpoint((t) => ops.mul(t, w), gone));
    gone.dispose();
    loss.backward();
  }),
);

test("other adapters at work in backward than in forward are found out", () => {
  const model = new models.Llama(LLAMA);
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["q_proj"], initLoraWeights: false }, "anna");
  adapted.addAdapter("ben", { r: 2, targetModules: ["q_proj"], initLoraWeights: false });
  adapted.setAdapter(["anna", "ben"]);
  const ids = tensor(new Int32Array([1, 2, 3, 4]), [2, 2]);
  const names = ["anna", "ben"];
  const run = (inside: boolean): Map<string, Float32Array> =>
    scope(() => {
      const loss = adapted.withAdapterNames(names, () => {
        const loss = model.loss(ids, ids);
        if (inside) loss.backward();
        return loss;
      });
      if (!inside) loss.backward();
      return takeGradients(adapted.namedParameters());
    });
  const expected = run(false);
  model.gradientCheckpointing = true;
  assertSame("inside", run(true), expected);
  assert.throws(() => run(false), StateError);
  ids.dispose();
  adapted.dispose();
});

test.run();

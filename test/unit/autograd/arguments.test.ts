/**
 * Every op and layer, called with anything in the place of any argument: a typed error of one line, or a result; never
 * JavaScript's own TypeError, in forward, in backward or in the message. What can only be a mistake must be refused.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, lora, memoryStats, nn, ones, ops, scope, Tensor, WasmLoraError, zeros } from "../../../src/index.js";
import { gridTensor as grid } from "../../support/gradcheck.js";
import { type Call, int, OPS, x23, x4 } from "../../support/op_calls.js";

await init();
new nn.Linear(1, 1).dispose();

/** No value of an argument is a Tensor here, and none an integer. */
const JUNK: Record<string, unknown> = {
  null: null,
  undefined: undefined,
  string: "3",
  "empty string": "",
  array: [],
  "array of numbers": [1, 2],
  "array of nothing": [null],
  object: {},
  "object without a prototype": Object.create(null),
  "negative zero": -0.5,
  NaN: NaN,
  Infinity: Infinity,
  huge: 1e300,
  true: true,
  false: false,
  symbol: Symbol("s"),
  bigint: 3n,
  function: () => 1,
  "typed array": new Float32Array(2),
  date: new Date(0),
  proxy: new Proxy({}, {}),
  module: new nn.ReLU(),
};

const make =
  <T>(Class: new (...args: never[]) => T) =>
  (...args: never[]): T =>
    new Class(...args);
const lines = { r: 2, loraAlpha: 4, mergeWeights: true };
const layer =
  (made: nn.Module & { forward(x: Tensor): Tensor }) =>
  (x: Tensor): Tensor =>
    made.forward(x);
const LAYERS: Record<string, Call> = {
  Linear: [make(nn.Linear), () => [3, 4, { bias: true, fanInFanOut: false }]],
  Embedding: [make(nn.Embedding), () => [5, 3, { paddingIdx: 1, maxNorm: 1, normType: 2, scaleGradByFreq: false }]],
  RMSNorm: [make(nn.RMSNorm), () => [3, 1e-6]],
  LayerNorm: [make(nn.LayerNorm), () => [3, 1e-5]],
  Conv1d: [make(nn.Conv1d), () => [2, 4, 3, { stride: 1, padding: [1], dilation: 1, groups: 2, bias: false }]],
  Conv2d: [make(nn.Conv2d), () => [2, 4, [3, 1], { stride: [1, 1] }]],
  Conv3d: [make(nn.Conv3d), () => [2, 4, 3, { padding: [1, 1, 1] }]],
  Sequential: [make(nn.Sequential), () => [new nn.Linear(3, 4), new nn.ReLU()]],
  Dropout: [make(nn.Dropout), () => [0.5]],
  GELU: [make(nn.GELU), () => [{ approximate: "tanh" }]],
  "lora.Linear": [make(lora.Linear), () => [3, 4, { ...lines, loraDropout: 0.5, bias: true, fanInFanOut: false }]],
  "lora.MergedLinear": [make(lora.MergedLinear), () => [3, 4, { ...lines, enableLora: [true, false], bias: true }]],
  "lora.Embedding": [make(lora.Embedding), () => [5, 3, { ...lines, paddingIdx: 1 }]],
  "lora.Conv2d": [make(lora.Conv2d), () => [2, 4, 3, { ...lines, padding: 1 }]],
  "nn.uniform_": [nn.uniform_, () => [zeros([2, 3]), -1, 1]],
  "nn.normal_": [nn.normal_, () => [zeros([2, 3]), 0, 1]],
  "nn.zeros_": [nn.zeros_, () => [zeros([2, 3])]],
  "nn.kaimingUniform_": [nn.kaimingUniform_, () => [zeros([2, 3]), 1, 3]],
  "Linear.forward": [layer(new nn.Linear(3, 4)), () => [x23()]],
  "Embedding.forward": [layer(new nn.Embedding(5, 3)), () => [int(1)]],
  "Conv1d.forward": [layer(new nn.Conv1d(2, 4, 3)), () => [grid([2, 2, 5], 1)]],
  "RMSNorm.forward": [layer(new nn.RMSNorm(3)), () => [x23()]],
  "LayerNorm.forward": [layer(new nn.LayerNorm(3)), () => [x23()]],
  "Dropout.forward": [layer(new nn.Dropout(0.5)), () => [x23()]],
  "ReLU.forward": [layer(new nn.ReLU()), () => [x23()]],
  "Tanh.forward": [layer(new nn.Tanh()), () => [x23()]],
  "Sigmoid.forward": [layer(new nn.Sigmoid()), () => [x23()]],
  "GELU.forward": [layer(new nn.GELU()), () => [x23()]],
  "Sequential.forward": [layer(new nn.Sequential(new nn.Linear(3, 3))), () => [x23()]],
};

test("every op is here", () => assert.deepEqual(Object.keys(OPS).sort(), Object.keys(ops).sort()));

/** The array with something else at a place. Array.prototype.with is younger than some runtimes. */
const put = (all: readonly unknown[], place: number, value: unknown): unknown[] =>
  all.map((v, i) => (i === place ? value : v));

/** A call in which one argument, or a member of one, is something else. */
function* variants(args: unknown[]): Generator<[label: string, args: unknown[], value: unknown]> {
  for (const [junk, value] of Object.entries(JUNK))
    for (const i of args.keys()) {
      yield [`argument ${i} is ${junk}`, put(args, i, value), value];
      const own = args[i];
      if (own instanceof Tensor || own instanceof nn.Module || typeof own !== "object" || own === null) continue;
      for (const [key, member] of Object.entries(own)) {
        const changed = (inner: unknown): unknown =>
          Array.isArray(own) ? put(own, Number(key), inner) : { ...own, [key]: inner };
        yield [`argument ${i}.${key} is ${junk}`, put(args, i, changed(value)), value];
        if (member instanceof Tensor || typeof member !== "object" || member === null) continue;
        for (const at of Object.keys(member)) {
          const inside = Array.isArray(member) ? put(member, Number(at), value) : { ...member, [at]: value };
          yield [`argument ${i}.${key}.${at} is ${junk}`, put(args, i, changed(inside)), value];
        }
      }
    }
}

/** Runs the call and, of a result with a graph, backward. Says whether it was refused. */
function refused(label: string, op: Call[0], args: unknown[]): boolean {
  try {
    const result = (op as (...args: unknown[]) => unknown)(...args);
    if (result instanceof Tensor && result.node !== null) ops.sum(result).backward();
    if (result instanceof nn.Module) result.dispose();
    return false;
  } catch (error) {
    assert(error instanceof WasmLoraError, `${label}: ${(error as Error).stack}`);
    assert(!error.message.includes("\n") && error.message.length < 400, `${label}: ${error.message}`);
    return true;
  }
}

for (const [name, [op, args]] of Object.entries({ ...OPS, ...LAYERS })) {
  test(`${name}: anything anywhere`, () => {
    const before = memoryStats().liveBytes;
    scope(() => {
      assert.equal(refused(name, op, args()), false, "its own arguments");
      for (const [label, changed, value] of variants(args())) {
        const isRefused = refused(`${name}: ${label}`, op, changed);
        // No argument takes one of these.
        if (
          ["symbol", "bigint", "function", "string"].includes(typeof value) ||
          value instanceof Date ||
          Number.isNaN(value)
        ) {
          assert(isRefused, `${name}: ${label}: was taken`);
        }
      }
    });
    // Tables are kept, and the gradients of a layer's own parameters.
    if (name !== "ropeTable" && !name.endsWith(".forward"))
      assert.equal(memoryStats().liveBytes, before, "memory left behind");
  });
}

test("arguments that other libraries take in these places", () =>
  scope(() => {
    const x = x23();
    const word = (fn: () => unknown, ...words: string[]): void =>
      assert.throws(fn, (e: unknown) => {
        assert(e instanceof WasmLoraError, String(e));
        for (const w of words) assert(e.message.includes(w), `"${e.message}" does not say "${w}"`);
        return true;
      });
    const any = (op: unknown) => op as (...args: unknown[]) => unknown;
    word(() => make(nn.Linear)(...([4, 2, false] as never[])), "Linear", "options", "bias", "false");
    word(() => make(nn.Linear)(...([4, 2, { Bias: false }] as never[])), "Bias", "Did you mean bias");
    word(() => make(nn.Linear)(...([4, 2, { bias: 0 }] as never[])), "bias", "true or false", "0");
    word(() => make(nn.Embedding)(...([4, 2, 0] as never[])), "Embedding", "options", "paddingIdx", "0");
    word(() => make(nn.Embedding)(...([4, 2, { padding_idx: 0 }] as never[])), "padding_idx", "paddingIdx");
    word(() => make(nn.LayerNorm)(...([8, "x"] as never[])), "LayerNorm", "eps", "x");
    word(() => make(nn.LayerNorm)(...([[8]] as never[])), "LayerNorm", "dim", "array");
    word(() => make(nn.LayerNorm)(...([8, 1e-5, 0] as never[])), "LayerNorm", "bias", "0");
    word(() => make(nn.RMSNorm)(...([8, { eps: 1 }] as never[])), "RMSNorm", "eps", "object");
    word(() => make(nn.RMSNorm)(...([8, 1e-6, true] as never[])), "RMSNorm", "offset", "true");
    word(() => make(nn.Conv2d)(...([3, 4, 3, 1, 1] as never[])), "Conv2d", "options", "stride", "1");
    word(() => make(nn.Conv2d)(...([3, 4, 3, { strides: 2 }] as never[])), "strides", "stride");
    word(() => make(nn.Dropout)(...([0.5, true] as never[])), "Dropout", "true");
    word(() => make(nn.Sequential)(...([[new nn.ReLU()]] as never[])), "Sequential", "array", "...layers");
    word(() => make(lora.Linear)(...([4, 2, { lora_alpha: 2 }] as never[])), "lora.Linear", "lora_alpha", "loraAlpha");
    word(
      () => new lora.Linear(4, 2, { r: 2, loraAlpha: 1e300 }),
      "lora.Linear",
      "loraAlpha",
      "finite in float32",
      "1e+300",
    );
    word(() => make(lora.Linear)(...([4, 2, 8] as never[])), "lora.Linear", "options", "r", "8");
    word(() => any(ops.conv)(x4(), zeros([1, 2, 1, 1]), null, { pad: [1, 1] }), "conv", "pad");
    word(() => any(ops.conv)(x4(), zeros([1, 2, 1, 1]), null, 1), "conv", "options", "1");
    word(() => any(ops.embedding)(int(1), ones([3, 2]), 0), "embedding", "options", "0");
    word(() => any(ops.mseLoss)(x, x, "sum"), "mseLoss", "sum", "mean");
    word(() => any(ops.binaryCrossEntropyWithLogits)(x, x, { reduction: "sum" }), "object", "mean");
    word(() => any(ops.dropout)(x, 0.5, false), "dropout", "false", "nn.Dropout");
    word(() => any(ops.gelu)(x, "tanh"), "gelu", "tanh");
    word(() => any(ops.concat)(x, x), "concat", "array");
    word(() => any(ops.reshape)(x, 3, 2), "reshape", "shape", "3");
    word(() => any(ops.crossEntropy)(x, ones([2])), "crossEntropy", "targets", "int32", "float32", '"int32"');
    word(() => any(ops.crossEntropy)(x, ["0", "1"]), "crossEntropy", "targets", "Tensor", "array");
    word(() => any(ops.add)(x, [1, 2, 3]), "add", "b", "Tensor", "array of 3", "tensor(values)");
    word(
      () => any(ops.embedding)(new Int32Array(2), ones([3, 2])),
      "ids",
      "Int32Array",
      'tensor(values, shape, "int32")',
    );
    word(() => any(ops.linearCrossEntropy)(x, ones([4, 3]), null, ones([2])), "targets", "int32");
    word(() => new nn.Embedding(5, 3).forward(ones([2])), "Embedding.forward", "ids", "int32", '"int32"');
    word(() => new nn.Embedding(5, 3).forward("12" as unknown as Tensor), "Embedding.forward", "ids", "Tensor", "12");
  }));

test.run();

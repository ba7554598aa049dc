/** Ops of the transformer against PyTorch: forward and every gradient. */
import { test } from "uvu";
import { init, ops, scope, tensor, type Tensor } from "../../src/index.js";
import { assertClose, f32, type Golden, ints, readGolden } from "../support/golden.js";
import { causalAttention, rope, ropeTable } from "../support/attention.js";

await init();

/** Runs `op` on the named inputs and compares its output and their gradients. */
function check(g: Golden, inputs: string[], op: (...xs: Tensor[]) => Tensor): void {
  scope(() => {
    const xs = inputs.map((key) => {
      const { shape, data } = f32(g, key);
      const x = tensor(data, shape).keep();
      x.requiresGrad = true;
      return x;
    });
    const y = op(...xs);
    assertClose("y", y.data, f32(g, "y").data);
    ops.sum(ops.mul(y, tensor(f32(g, "dy").data, y.shape))).backward();
    for (const [i, x] of xs.entries()) {
      assertClose(`d_${inputs[i]}`, x.grad!.data, f32(g, `d_${inputs[i]}`).data);
      x.dispose();
    }
  });
}

const unary: [string, (x: Tensor) => Tensor][] = [
  ["silu", ops.silu],
  ["gelu_erf", ops.gelu],
  ["gelu_tanh", ops.geluTanh],
  ["relu", ops.relu],
  ["softmax", ops.softmax],
];
for (const [name, op] of unary) test(name, () => check(readGolden(`op_${name}`), ["x"], op));

test("layer_norm", () => {
  const g = readGolden("op_layer_norm");
  check(g, ["x", "weight", "bias"], (x, w, b) => ops.layerNorm(x, w, b, Number(g.metadata["eps"])));
});

test("rms_norm", () => {
  const g = readGolden("op_rms_norm");
  check(g, ["x", "weight"], (x, w) => ops.rmsNorm(x, w, Number(g.metadata["eps"])));
});

test("cross_entropy", () => {
  const g = readGolden("op_cross_entropy");
  const target = ints(g, "target");
  check(g, ["logits"], (x) =>
    ops.reshape(ops.crossEntropy(x, tensor(target.data, target.shape), Number(g.metadata["ignore_index"])), [1]),
  );
});

/** The fixtures are [batch, heads, steps, dim]; ours is [batch, steps, heads, dim]. */
function swapHeads(g: Golden, keys: string[]): Golden {
  const tensors = new Map(g.tensors);
  for (const key of keys) {
    const {
      shape: [b, h, t, d],
      data,
    } = f32(g, key) as { shape: [number, number, number, number]; data: Float32Array };
    const out = new Float32Array(data.length);
    for (let i = 0; i < b; i++)
      for (let j = 0; j < h; j++)
        for (let s = 0; s < t; s++)
          for (let e = 0; e < d; e++) {
            out[((i * t + s) * h + j) * d + e] = data[((i * h + j) * t + s) * d + e]!;
          }
    tensors.set(key, { dtype: "F32", shape: [b, t, h, d], data: out });
  }
  return { ...g, tensors };
}

test("rope", () => {
  const g = swapHeads(readGolden("op_rope"), ["x", "y", "dy", "d_x"]);
  const { shape } = f32(g, "x");
  const table = ropeTable(shape[1]!, shape[3]!, Number(g.metadata["theta"]));
  check(g, ["x"], (x) => rope(x, table));
});

test("causal_attention", () => {
  const g = swapHeads(readGolden("op_causal_attention"), ["q", "k", "v", "y", "dy", "d_q", "d_k", "d_v"]);
  check(g, ["q", "k", "v"], causalAttention);
});

test.run();

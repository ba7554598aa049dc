/**
 * One training step of a Llama with LoRA on all its linear layers: forward, backward and plain SGD, in this library and
 * in jax-js, from the same weights and factors on the same tokens.
 */
import { io, manualSeed, models, optim, peft, scope, tensor } from "../dist/src/index.js";
import { blockUntilReady, jit, nn, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { baseFiles } from "#platform";
import { array } from "./engines/jax.mjs";
import { values } from "./reference.mjs";

const LORA = { r: 8, loraAlpha: 16, targetModules: "all-linear" };
const SCALING = LORA.loraAlpha / LORA.r;
const RATE = 0.05;
const WIDE = {
  modelType: "llama",
  hiddenSize: 512,
  intermediateSize: 1408,
  numHiddenLayers: 4,
  numAttentionHeads: 8,
  numKeyValueHeads: 4,
  headDim: 64,
  vocabSize: 4096,
  maxPositionEmbeddings: 512,
  rmsNormEps: 1e-5,
  ropeParameters: { ropeType: "default", ropeTheta: 10000 },
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
};

export const LLAMAS = {
  base: { title: "the embedded base (4 layers of 128)", batch: 8, steps: 64, make: baseModel },
  wide: { title: "4 layers of 512", batch: 2, steps: 128, make: () => (manualSeed(1), new models.Llama(WIDE)) },
};

function baseModel() {
  for (const [name, bytes] of Object.entries(baseFiles))
    io.memoryFiles.set(`memory:bench/${name}`, new Uint8Array(bytes));
  return models.loadModel("memory:bench").model;
}

const ids = (count, vocabulary) => Int32Array.from(values(count, 5), (u) => Math.floor(((u + 1) / 2) * vocabulary));

/**
 * Both contestants at one model; result() gives the loss before a step and the factors after it, from the initial ones.
 */
export async function openLlama({ make, batch, steps }) {
  const model = make();
  const { config } = model;
  // The weights are read before adapters give them other names, and widened: ours stay as they are stored.
  const weights = new Map(
    [...model.namedParameters()].map(([name, p]) => [name, { shape: p.shape, data: p.toFloat32() }]),
  );
  const adapted = peft.getLoraModel(model, { ...LORA, initLoraWeights: false });
  const factors = new Map([...adapted.namedParameters()].filter(([, p]) => p.requiresGrad));
  [...factors.values()].forEach((p, i) => p.data.set(values(p.size, i + 1, 0.05)));
  const initial = new Map([...factors].map(([name, p]) => [name, p.data.slice()]));
  const inputs = ids(batch * steps, config.vocabSize);
  const targets = inputs.map((id) => (id * 7 + 1) % config.vocabSize);
  return {
    tokens: batch * steps,
    initial: [...initial.values()],
    ours: openOurs(model, factors, initial, inputs, targets, [batch, steps]),
    jax: await openJax(config, weights, factors, initial, inputs, targets, [batch, steps]),
  };
}

function openOurs(model, factors, initial, inputs, targets, shape) {
  const optimizer = new optim.SGD([...factors.values()], { lr: RATE });
  const step = () =>
    scope(() => {
      const loss = model.loss(tensor(inputs, shape), tensor(targets, shape));
      loss.backward();
      optimizer.step();
      optimizer.zeroGrad();
      return loss.item();
    });
  return {
    run: step,
    result() {
      for (const [name, p] of factors) p.data.set(initial.get(name));
      return { loss: step(), factors: [...factors].map(([, p]) => p.data.slice()) };
    },
    free: () => model.dispose(),
  };
}

async function openJax(config, weights, factors, initial, inputs, targets, [batch, steps]) {
  const names = [...factors.keys()];
  const short = names.map(shorten);
  const fresh = () => names.map((name) => array(initial.get(name), factors.get(name).shape));
  const base = Object.fromEntries(
    [...weights].map(([name, { shape, data }]) => [name, shape.length === 1 ? np.array(data) : array(data, shape)]),
  );
  const tokens = np.array(inputs, { dtype: np.int32 }).reshape([batch, steps]);
  const wanted = np.array(targets, { dtype: np.int32 });
  const table = rotations(steps, config);
  const step = jit((factors, base, tokens, wanted, table) => {
    const loss = (factors) => {
      const low = Object.fromEntries(factors.map((t, i) => [short[i], t]));
      return crossEntropy(forward(config, base, low, tokens, table), wanted, config.vocabSize);
    };
    const [value, gradients] = valueAndGrad(loss)(tree.ref(factors));
    return [value, factors.map((t, i) => t.sub(gradients[i].mul(RATE)))];
  });
  let current = fresh();
  const call = () => {
    const [value, next] = step(current, tree.ref(base), tokens.ref, wanted.ref, tree.ref(table));
    current = next;
    return value;
  };
  return {
    async run() {
      const value = call();
      await blockUntilReady([value.ref, ...current.map((t) => t.ref)]);
      value.dispose();
    },
    async result() {
      current.forEach((t) => t.dispose());
      current = fresh();
      const [loss] = await call().data();
      return { loss, factors: await Promise.all(current.map((t) => t.ref.data())) };
    },
    free() {
      tree.dispose([current, base, tokens, wanted, table]);
      step.dispose();
    },
  };
}

/** "layers.0.self_attn.q_proj.A" from an adapter's parameter name. */
function shorten(name) {
  const [, path, factor] = /(layers\.\d+\..*)\.lora_?([AB])/i.exec(name);
  return `${path}.${factor.toUpperCase()}`;
}

/** Cosines and sines of positions, [1, steps, 1, headDim / 2]. */
function rotations(steps, { headDim, ropeParameters: { ropeTheta } }) {
  const half = headDim / 2;
  const angles = Float32Array.from(
    { length: steps * half },
    (_, i) => Math.floor(i / half) * ropeTheta ** (-(i % half) / half),
  );
  return [Math.cos, Math.sin].map((f) =>
    array(
      angles.map((angle) => f(angle)),
      [1, steps, 1, half],
    ),
  );
}

/**
 * Logits [batch * steps, vocabSize]. Every use of an array but its last takes a reference; what comes in is borrowed.
 */
function forward(config, base, low, tokens, table) {
  const [batch, steps] = tokens.shape;
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim: dim, rmsNormEps: eps } = config;
  const weight = (name) => base[Object.keys(base).find((key) => key.endsWith(name))].ref;
  const linear = (x, name) => {
    const rank = np.matmul(x.ref, low[`${name}.A`].ref.transpose());
    return np
      .matmul(x, weight(`${name}.weight`).transpose())
      .add(np.matmul(rank, low[`${name}.B`].ref.transpose()).mul(SCALING));
  };
  const norm = (x, name) => {
    const rstd = np.reciprocal(np.sqrt(np.mean(np.square(x.ref), -1, { keepdims: true }).add(eps)));
    return x.mul(rstd).mul(weight(`${name}.weight`));
  };
  const rotate = (x) => {
    const [low, high] = np.split(x, 2, -1);
    const [cos, sin] = table;
    return np.concatenate(
      [low.ref.mul(cos.ref).sub(high.ref.mul(sin.ref)), high.mul(cos.ref).add(low.mul(sin.ref))],
      -1,
    );
  };
  let x = np.take(weight("embed_tokens.weight"), tokens.ref, 0).reshape([batch * steps, config.hiddenSize]);
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = `layers.${i}`;
    const h = norm(x.ref, `${layer}.input_layernorm`);
    const q = rotate(linear(h.ref, `${layer}.self_attn.q_proj`).reshape([batch, steps, heads, dim]));
    const k = rotate(linear(h.ref, `${layer}.self_attn.k_proj`).reshape([batch, steps, kvHeads, dim]));
    const v = linear(h, `${layer}.self_attn.v_proj`).reshape([batch, steps, kvHeads, dim]);
    x = x.add(linear(attention(q, k, v), `${layer}.self_attn.o_proj`));
    const g = norm(x.ref, `${layer}.post_attention_layernorm`);
    const gate = nn.silu(linear(g.ref, `${layer}.mlp.gate_proj`));
    x = x.add(linear(gate.mul(linear(g, `${layer}.mlp.up_proj`)), `${layer}.mlp.down_proj`));
  }
  return np.matmul(norm(x, "model.norm"), weight("embed_tokens.weight").transpose());
}

/**
 * Causal, the heads of a group stacked as rows of one product. Not nn.dotProductAttention: its einsum asks for iterator
 * helpers, which Node 20 has not.
 */
function attention(q, k, v) {
  const [batch, steps, heads, dim] = q.shape;
  const kvHeads = k.shape[2];
  const group = heads / kvHeads;
  const rows = q
    .reshape([batch, steps, kvHeads, group, dim])
    .transpose([0, 2, 3, 1, 4])
    .reshape([batch, kvHeads, group * steps, dim]);
  const masked = Float32Array.from({ length: group * steps * steps }, (_, i) =>
    i % steps > Math.floor(i / steps) % steps ? -1e30 : 0,
  );
  const scores = np
    .matmul(rows, k.transpose([0, 2, 3, 1]))
    .mul(dim ** -0.5)
    .add(array(masked, [group * steps, steps]));
  const mixed = np.matmul(nn.softmax(scores, -1), v.transpose([0, 2, 1, 3]));
  return mixed
    .reshape([batch, kvHeads, group, steps, dim])
    .transpose([0, 3, 1, 2, 4])
    .reshape([batch * steps, heads * dim]);
}

function crossEntropy(logits, wanted, vocabulary) {
  const chosen = nn.logSoftmax(logits, -1).mul(nn.oneHot(wanted.ref, vocabulary));
  return np.sum(chosen).mul(-1 / wanted.shape[0]);
}

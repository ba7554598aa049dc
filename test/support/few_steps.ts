/** Small models as a whole: what tests compare between engines. */
import { lora, manualSeed, models, nn, ops, optim, peft, scope, tensor, zeros } from "../../src/index.js";
import { LLAMA } from "./language_models.js";

const BATCH = 4;
const SEQ = 70;

/** A convolution of groups with a term and dropout: its output, and all gradients. */
export function convolution(): Float32Array[] {
  manualSeed(7);
  return scope(() => {
    const layer = new lora.Conv2d(8, 12, 3, { r: 4, padding: 1, loraDropout: 0.1 });
    for (const p of layer.parameters()) {
      nn.normal_(p, 0, 0.3);
      p.requiresGrad = true;
    }
    const x = nn.normal_(zeros([3, 8, 37, 29]));
    x.requiresGrad = true;
    const y = layer.forward(x).keep();
    ops.sum(ops.mul(y, nn.normal_(zeros(y.shape)))).backward();
    const results = [y, x.grad!, ...layer.parameters().map((p) => p.grad!)].map((t) => t.data.slice());
    layer.dispose();
    return results;
  });
}

/** Three steps of a Llama with adapters, dropout among them, and AdamW: losses, and the factors at the end. */
export function fewSteps(): Float32Array[] {
  manualSeed(5);
  const model = new models.Llama({
    ...LLAMA,
    vocabSize: 211,
    hiddenSize: 96,
    intermediateSize: 160,
    headDim: 24,
    maxPositionEmbeddings: SEQ,
  });
  peft.getLoraModel(model, { r: 4, loraAlpha: 8, loraDropout: 0.1, targetModules: "all-linear" });
  const trained = [...model.namedParameters()].filter(([, p]) => p.requiresGrad);
  for (const [name, p] of trained) if (name.includes("lora_B")) nn.normal_(p, 0, 0.1);
  const optimizer = new optim.AdamW(
    trained.map(([, p]) => p),
    { lr: 0.01, weightDecay: 0.1 },
  );
  const ids = (seed: number): Int32Array => Int32Array.from({ length: BATCH * SEQ }, (_, i) => (i * i + seed) % 211);
  const losses: number[] = [];
  for (let step = 0; step < 3; step++)
    scope(() => {
      const loss = model.loss(tensor(ids(step), [BATCH, SEQ]), tensor(ids(step + 1), [BATCH, SEQ]));
      loss.backward();
      losses.push(loss.item());
      optim.clipGradNorm_(
        trained.map(([, p]) => p),
        1,
      );
      optimizer.step();
      optimizer.zeroGrad();
    });
  const results = [Float32Array.from(losses), ...trained.map(([, p]) => p.data.slice())];
  optimizer.dispose();
  model.dispose();
  return results;
}

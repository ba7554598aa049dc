/** Configurations of small language models, and what follows a text by whole passes. */
import { manualSeed, type models, type nn, noGrad, optim, peft, scope, tensor, type Tensor } from "../../src/index.js";

export const LLAMA: models.LlamaConfig = {
  modelType: "llama",
  vocabSize: 61,
  hiddenSize: 24,
  intermediateSize: 40,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 6,
  maxPositionEmbeddings: 40,
  rmsNormEps: 1e-5,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
};

export const GPT2: models.Gpt2Config = {
  modelType: "gpt2",
  vocabSize: 61,
  hiddenSize: 24,
  intermediateSize: 40,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  maxPositionEmbeddings: 40,
  layerNormEpsilon: 1e-5,
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
};

/** Two texts of eight tokens. */
export const twoTexts = (): Tensor =>
  tensor(
    Int32Array.from({ length: 16 }, (_, i) => (i * 7) % 61),
    [2, 8],
  );

/** What three steps on them make of new factors on all linear layers, dropout and checkpoints on: losses, factors. */
export function threeSteps(
  model: models.Llama | models.Gpt2,
  config: Partial<peft.LoraConfig> = {},
): { losses: number[]; state: nn.StateDict } {
  manualSeed(5);
  model.gradientCheckpointing = true;
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: "all-linear", loraDropout: 0.1, ...config });
  const optimizer = new optim.AdamW(adapted.parameters(), { lr: 0.01 });
  const losses = [1, 2, 3].map(() =>
    scope(() => {
      const targets = tensor(
        Int32Array.from({ length: 16 }, (_, i) => (i * 11 + 3) % 61),
        [2, 8],
      );
      const loss = model.loss(twoTexts(), targets);
      loss.backward();
      optimizer.step();
      optimizer.zeroGrad();
      return loss.item();
    }),
  );
  optimizer.dispose();
  return { losses, state: adapted.stateDict() };
}

/** The `count` tokens that follow the text, each the likeliest by a pass over all that is before it. */
export function greedy(model: { forward(ids: Tensor): Tensor }, text: readonly number[], count: number): number[] {
  const all = [...text];
  for (let i = 0; i < count; i++) {
    const last = noGrad(() =>
      scope(() => {
        const logits = model.forward(tensor(Int32Array.from(all), [1, all.length]));
        return logits.data.slice(-logits.shape[2]!);
      }),
    );
    all.push(last.indexOf(Math.max(...last)));
  }
  return all.slice(text.length);
}

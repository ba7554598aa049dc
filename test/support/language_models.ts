/** Configurations of small language models, and what follows a text by whole passes. */
import { type models, noGrad, scope, tensor, type Tensor } from "../../src/index.js";

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

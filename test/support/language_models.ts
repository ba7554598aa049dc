/** Configurations of small language models. */
import type { models } from "../../src/index.js";

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

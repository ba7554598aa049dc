/**
 * Models in Hugging Face's names, from Hugging Face's folders: language models and sampling from them, classifiers,
 * embeddings.
 * @module
 */
export { KeyValueCache, type CacheShape } from "./cache.js";
export type { CausalLM, ForwardOptions, WrappedLM } from "./causal_lm.js";
export type { Block, DecoderConfig, DecoderForCausalLM, DecoderModel, Pass, Table } from "./decoder.js";
export type { FamilyConfig, Head } from "./family.js";
export { Llama, type LlamaConfig, type LlamaLayer, type LlamaModel } from "./llama.js";
export type { LlamaLikeConfig, LlamaLikeModel, PreNormLayer } from "./llama_like.js";
export type { SelfAttention } from "./heads.js";
export type { GatedMLP } from "./gated_mlp.js";
export type { GemmaConfig } from "./gemma.js";
export type { Gemma2Config } from "./gemma2.js";
export type { Gemma3Config } from "./gemma3.js";
export type { GptNeoXConfig } from "./gpt_neox.js";
export type { GraniteConfig } from "./granite.js";
export type { MistralConfig } from "./mistral.js";
export type { Olmo2Config } from "./olmo2.js";
export type { Phi3Config } from "./phi3.js";
export type { Qwen2Config } from "./qwen2.js";
export type { Qwen3Config } from "./qwen3.js";
export type { SmolLM3Config } from "./smollm3.js";
export {
  Gpt2,
  type Gpt2Attention,
  type Gpt2Block,
  type Gpt2Config,
  type Gpt2MLP,
  type Gpt2Model,
} from "./gpt2.js";
export { fetchModel, loadBase, type FetchModelOptions } from "./fetch.js";
export { openModel } from "./open.js";
export type { LoadProgress } from "./load_progress.js";
export {
  loadModel,
  type AnyLoadedModel,
  type HeadModels,
  type LoadModelOptions,
  type ModelConfig,
} from "./families.js";
export {
  classificationLoss,
  type ClassifierSettings,
  type Labels,
  type ProblemType,
  type SequenceClassifier,
} from "./classification.js";
export type { Encoder, EncoderOptions } from "./encoder.js";
export {
  BertForSequenceClassification,
  BertModel,
  type BertAttention,
  type BertConfig,
  type BertEmbeddings,
  type BertEncoder,
  type BertIntermediate,
  type BertLayer,
  type BertOutput,
  type BertPooler,
  type BertSelfAttention,
} from "./bert.js";
export { RobertaForSequenceClassification, type RobertaClassificationHead } from "./roberta.js";
export {
  DistilBertForSequenceClassification,
  DistilBertModel,
  type DistilBertAttention,
  type DistilBertConfig,
  type DistilBertEmbeddings,
  type DistilBertLayer,
  type DistilBertMLP,
  type DistilBertTransformer,
} from "./distilbert.js";
export {
  ModernBertForSequenceClassification,
  ModernBertModel,
  type ModernBertAttention,
  type ModernBertConfig,
  type ModernBertEmbeddings,
  type ModernBertLayer,
  type ModernBertLayerType,
  type ModernBertMLP,
  type ModernBertPredictionHead,
} from "./modernbert.js";
export {
  ViTForImageClassification,
  ViTModel,
  type ViTAttention,
  type ViTConfig,
  type ViTEmbeddings,
  type ViTLayer,
  type ViTMLP,
  type ViTPatchEmbeddings,
  type ViTPooler,
} from "./vit.js";
export {
  DecoderForSequenceClassification,
  type ClassifierOptions,
  type DecoderClassifierConfig,
} from "./decoder_classifier.js";
export {
  loadSentenceEncoder,
  multipleNegativesRankingLoss,
  SentenceEncoder,
  type Pooling,
  type SentenceEncoderOptions,
} from "./sentence_encoder.js";
export type { ConfigOf } from "./config.js";
export type { LoadedModel } from "./load.js";
export type { RopeParameters } from "./rope.js";
export {
  generate,
  generateBatch,
  type BatchToken,
  type GenerateBatchOptions,
  type GenerateOptions,
} from "./generate.js";
export type { SamplingOptions } from "./sampling.js";

/**
 * Models in Hugging Face's names, from Hugging Face's folders: language models and sampling from them, classifiers,
 * embeddings.
 * @module
 */
export { KeyValueCache, type CacheShape } from "./parts/cache.js";
export type { CausalLM, ForwardOptions, LossOptions, WrappedLM } from "./parts/causal_lm.js";
export type { Block, DecoderConfig, DecoderForCausalLM, DecoderModel, Pass, Table } from "./parts/decoder.js";
export type { FamilyConfig, Head } from "./parts/family.js";
export type { StoredAs } from "./parts/stored.js";
export { Llama, type LlamaConfig, type LlamaLayer, type LlamaModel, type RopeTheta } from "./families/llama.js";
export type { LlamaLikeConfig, LlamaLikeModel, PreNormLayer } from "./families/llama_like.js";
export type { SelfAttention } from "./parts/heads.js";
export type { GatedMLP } from "./parts/gated_mlp.js";
export type { GemmaConfig } from "./families/gemma.js";
export type { Gemma2Config } from "./families/gemma2.js";
export type { Gemma3Config } from "./families/gemma3.js";
export type { GptNeoXConfig } from "./families/gpt_neox.js";
export type { GraniteConfig } from "./families/granite.js";
export type { MistralConfig } from "./families/mistral.js";
export type { Olmo2Config } from "./families/olmo2.js";
export type { Phi3Config } from "./families/phi3.js";
export type { Qwen2Config } from "./families/qwen2.js";
export type { Qwen3Config } from "./families/qwen3.js";
export type { SmolLM3Config } from "./families/smollm3.js";
export {
  Gpt2,
  type Gpt2Attention,
  type Gpt2Block,
  type Gpt2Config,
  type Gpt2MLP,
  type Gpt2Model,
} from "./families/gpt2.js";
export { fetchModel, loadBase, type FetchModelOptions } from "./fetch.js";
export { loadGpt2, loadLlama } from "./one_family.js";
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
} from "./parts/classification.js";
export type { Encoder, EncoderOptions } from "./parts/encoder.js";
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
} from "./families/bert.js";
export { RobertaForSequenceClassification, type RobertaClassificationHead } from "./families/roberta.js";
export {
  DistilBertForSequenceClassification,
  DistilBertModel,
  type DistilBertAttention,
  type DistilBertConfig,
  type DistilBertEmbeddings,
  type DistilBertLayer,
  type DistilBertMLP,
  type DistilBertTransformer,
} from "./families/distilbert.js";
export {
  ModernBertForSequenceClassification,
  ModernBertModel,
  type ModernBertAttention,
  type ModernBertConfig,
  type ModernBertEmbeddings,
  type ModernBertLayer,
  type ModernBertMLP,
  type ModernBertPredictionHead,
} from "./families/modernbert.js";
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
} from "./families/vit.js";
export {
  DecoderForSequenceClassification,
  type ClassifierOptions,
  type DecoderClassifierConfig,
} from "./parts/decoder_classifier.js";
export {
  loadSentenceEncoder,
  multipleNegativesRankingLoss,
  SentenceEncoder,
  type Pooling,
  type SentenceEncoderOptions,
} from "./sentence_encoder.js";
export type { ConfigOf } from "./parts/config.js";
export type { LoadedModel } from "./load.js";
export type { LayerType } from "./parts/layer_types.js";
export type { LayeredModel } from "./parts/layered_model.js";
export type { RopeParameters } from "./parts/rope.js";
export {
  generate,
  generateBatch,
  type BatchToken,
  type GenerateBatchOptions,
  type GenerateOptions,
} from "./generate.js";
export type { SamplingOptions } from "./sampling.js";

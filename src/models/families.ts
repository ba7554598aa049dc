/** The table of families: loading, fetching and planning ask it, by transformers' model_type. */
import { readModelType } from "../io/config_reader.js";
import { show } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import type { QuantizedType } from "../tensor/blocks.js";
import type { CausalLM } from "./parts/causal_lm.js";
import { bert } from "./families/bert.js";
import type { SequenceClassifier } from "./parts/classification.js";
import type { DecoderForCausalLM } from "./parts/decoder.js";
import { withClassifier } from "./parts/decoder_classifier.js";
import { distilbert } from "./families/distilbert.js";
import type { Encoder } from "./parts/encoder.js";
import type { Family, FamilyConfig, Head } from "./parts/family.js";
import { gemma, type GemmaConfig } from "./families/gemma.js";
import { gemma2, type Gemma2Config } from "./families/gemma2.js";
import { gemma3, gemma3Text, type Gemma3Config } from "./families/gemma3.js";
import { gpt2, type Gpt2Config } from "./families/gpt2.js";
import { gptNeoX, type GptNeoXConfig } from "./families/gpt_neox.js";
import { granite, type GraniteConfig } from "./families/granite.js";
import { llama, type LlamaConfig } from "./families/llama.js";
import { materialize } from "./materialize.js";
import { skipInit } from "../nn/skip_init.js";
import type { Module } from "../nn/module.js";
import type { OnProgress } from "./load_progress.js";
import { loadFamily, type LoadedModel } from "./load.js";
import { mistral, type MistralConfig } from "./families/mistral.js";
import { olmo2, type Olmo2Config } from "./families/olmo2.js";
import { phi3, type Phi3Config } from "./families/phi3.js";
import { qwen2, type Qwen2Config } from "./families/qwen2.js";
import { qwen3, type Qwen3Config } from "./families/qwen3.js";
import { smollm3, type SmolLM3Config } from "./families/smollm3.js";
import { modernbert } from "./families/modernbert.js";
import { roberta } from "./families/roberta.js";
import { vit, type ViTForImageClassification } from "./families/vit.js";

/** The configuration of a language model of any family; its modelType says of which. */
export type ModelConfig =
  | LlamaConfig
  | MistralConfig
  | Qwen2Config
  | Qwen3Config
  | SmolLM3Config
  | Phi3Config
  | Olmo2Config
  | GraniteConfig
  | GemmaConfig
  | Gemma2Config
  | Gemma3Config
  | GptNeoXConfig
  | Gpt2Config;

/** What `loadModel` gives under each head. */
export interface HeadModels {
  /** The logits of the next token. */
  "causal-lm": DecoderForCausalLM<ModelConfig>;
  /** The logits of a text's classes. */
  "sequence-classification": SequenceClassifier;
  /** The logits of an image's classes. */
  "image-classification": ViTForImageClassification;
  /** The states of the last layer. */
  none: Encoder;
}

/** A model of any family and what its folder says; `config.modelType` says of which, `head` what it gives. */
export type AnyLoadedModel<H extends Head = "causal-lm"> = LoadedModel<HeadModels[H], HeadModels[H]["config"], H>;

/** Options of `loadModel`. */
export interface LoadModelOptions<H extends Head = "causal-lm"> {
  /**
   * What the model is to give. Default: what the folder's was trained for, by the architectures of config.json. What
   * the folder has for another head is left out.
   */
  head?: H | undefined;
  /**
   * Classes of a classifier. Default: what config.json says. A head that the weights lack is drawn, from the stream of
   * `manualSeed`: matrices N(0, initializer_range²), biases zeros.
   */
  numLabels?: number | undefined;
  /**
   * What its matrices become, embedding tables and heads too, where their rows are whole blocks of it (32 values of
   * "q8_0", 64 of "nf4") and the files do not have blocks already. It is done part by part: the model is never there as
   * float32. Default: they stay as they are stored.
   */
  quantize?: QuantizedType | undefined;
  /** Called for each part of the weights that is read. */
  onProgress?: OnProgress | undefined;
}

const DECODERS = (
  [
    llama,
    mistral,
    qwen2,
    qwen3,
    smollm3,
    phi3,
    olmo2,
    granite,
    gemma,
    gemma2,
    gemma3Text,
    gemma3,
    gptNeoX,
    gpt2,
  ] as readonly Family<FamilyConfig>[]
).map(withClassifier);
const ENCODERS: readonly Family<FamilyConfig>[] = [bert, roberta, distilbert, modernbert, vit];

const FAMILIES = new Map<unknown, Family<FamilyConfig>>(
  [...DECODERS, ...ENCODERS].map((family) => [family.modelType, family]),
);

/** The family of a model_type, if the library has it. @internal */
export function familyOf(modelType: unknown): Family<FamilyConfig> | undefined {
  return FAMILIES.get(modelType);
}

/** The name that files have for a key of a model. @internal */
export function fileNameOf({ modelType }: { readonly modelType: string }, key: string): string {
  return familyOf(modelType)?.fileName?.(key) ?? key;
}

/** The model_types there are. @internal */
export function modelTypes(): string[] {
  return [...FAMILIES.values()].map(({ modelType }) => modelType);
}

function supported(families: readonly Family<FamilyConfig>[] = [...FAMILIES.values()]): string {
  const names = families.map(({ modelType }) => show(modelType));
  return `supported are ${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/**
 * The model of a folder, of the family that its config.json names in model_type, under the head that its architectures
 * name; or of a GGUF file, by its metadata (of one that was split, any part). TypeScript takes it for a language model
 * unless `head` says otherwise.
 * @throws FileError, FormatError; also for a model_type of no family here; ArgumentError for a head that the family
 * lacks
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * console.log(model instanceof models.Llama); // true
 */
export function loadModel<H extends Head = "causal-lm">(
  directory: string,
  options?: LoadModelOptions<H>,
): AnyLoadedModel<H> {
  checkOptions("loadModel", options, ["head", "numLabels", "quantize", "onProgress"]);
  return loadFamily<FamilyConfig, HeadModels[H], H>("loadModel", directory, familyOfConfig, options ?? {});
}

/** The family that a config.json names. @throws FormatError for one that is not in the table @internal */
export function familyOfConfig(json: unknown, path: string): Family<FamilyConfig> {
  const modelType = readModelType(json, path);
  const family = familyOf(modelType);
  if (!family) throw new FormatError(`${path}: model_type is ${show(modelType)}; ${supported()}.`);
  return family;
}

/**
 * A language model by its configuration, with initial weights, or with undefined ones that are not float32. @internal
 * @throws ArgumentError for a modelType that is not in the table or of no language model, and as the model's
 * constructor
 */
export function createModel(where: string, config: ModelConfig): CausalLM {
  const { modelType } = config;
  const head = familyOf(modelType)?.heads["causal-lm"];
  if (!head) throw new ArgumentError(`${where}: model.modelType is ${shown(modelType)}; ${supported(DECODERS)}.`);
  const { dtype = "float32" } = config;
  if (dtype === "float32") return head.create(config) as CausalLM;
  const model = skipInit(() => head.create(config));
  materialize(model, dtype);
  return model as Module & CausalLM;
}

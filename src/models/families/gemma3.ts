/** Gemma 3 (Gemma Team 2025), its text model: a Gemma 2 with norms on heads, and positions of their own in windows. */
import { configReader } from "../../io/config_reader.js";
import { asObject } from "../../io/json.js";
import { RMSNorm } from "../../nn/layers.js";
import { DecoderForCausalLM } from "../parts/decoder.js";
import { withClassifier } from "../parts/decoder_classifier.js";
import { FourNormLayer, readSoftcapped, SoftcappedModel, type SoftcappedConfig } from "./gemma2.js";
import type { Family } from "../parts/family.js";
import { SelfAttention } from "../parts/heads.js";
import { headsOf, isSliding, llamaLike, readLlamaLike, rotaryOf, type Reader } from "./llama_like.js";
import { parseRope, type RopeParameters } from "../parts/rope.js";

/** What config.json says of a Gemma 3's text model. */
export interface Gemma3Config extends SoftcappedConfig {
  /** transformers' model_type: "gemma3" of the text model out of a model of texts and images. */
  modelType: "gemma3_text" | "gemma3";
  /** As ropeParameters, of layers with a window (rope_parameters; in older files rope_local_base_freq). */
  slidingRopeParameters: RopeParameters;
  /** Each so-manyth layer has no window (sliding_window_pattern). */
  slidingWindowPattern: number;
}

function readGemma3(reader: Reader): Gemma3Config {
  const { config, count, only } = reader;
  only("attn_logit_softcapping", null);
  const shared = readLlamaLike(reader, {
    hiddenSize: 2304,
    intermediateSize: 9216,
    numHiddenLayers: 26,
    numAttentionHeads: 8,
    numKeyValueHeads: 4,
    headDim: 256,
    vocabSize: 262208,
    maxPositionEmbeddings: 131072,
    rmsNormEps: 1e-6,
    ropeTheta: 1000000,
    tieWordEmbeddings: true,
    bosTokenId: 2,
    eosTokenId: 1,
    perLayerType: true,
  });
  // Where a file has one set of parameters, it is for the layers without a window.
  const isFlat = asObject(asObject(config["rope_parameters"])?.["sliding_attention"]) === undefined;
  return {
    ...readSoftcapped(reader, shared, null),
    modelType: "gemma3_text",
    slidingRopeParameters: parseRope(
      isFlat ? { ...reader, config: { rope_local_base_freq: 10000, ...config } } : reader,
      {
        headDim: shared.headDim,
        maxPositionEmbeddings: shared.maxPositionEmbeddings,
        layerType: "sliding_attention",
      },
    ),
    slidingWindowPattern: count(
      config["sliding_window_pattern"] == null ? "_sliding_window_pattern" : "sliding_window_pattern",
      6,
    ),
  };
}

/** A Gemma 3 without its head. */
function gemma3Model(c: Readonly<Gemma3Config>): SoftcappedModel<Gemma3Config> {
  const full = rotaryOf(c);
  const sliding = rotaryOf(c, c.slidingRopeParameters);
  const norm = { of: "heads" as const, make: (size: number) => new RMSNorm(size, c.rmsNormEps, 1) };
  const slides = (i: number): boolean => isSliding(c, i, (i + 1) % c.slidingWindowPattern !== 0);
  return new SoftcappedModel(c, {
    rotaries: [full, sliding],
    window: (i) => (slides(i) ? c.slidingWindow : null),
    layer: (i, window, kind) =>
      new FourNormLayer(
        c,
        new SelfAttention({
          ...headsOf(c, i, slides(kind) ? sliding : full),
          window,
          bias: c.attentionBias,
          scale: 1 / Math.sqrt(c.queryPreAttnScalar),
          norm,
        }),
      ),
  });
}

const family = llamaLike<Gemma3Config>({
  modelType: "gemma3_text",
  name: "Gemma3Text",
  read: readGemma3,
  base: gemma3Model,
});

/** What the table of families holds. Source: transformers, models/gemma3. @internal */
export const gemma3Text: Family<Gemma3Config> = {
  ...family,
  // Of the three classes this one is not called after the text model.
  heads: { ...family.heads, "causal-lm": { ...family.heads["causal-lm"]!, architectures: ["Gemma3ForCausalLM"] } },
};

/** The key of a text model's part, also where older files or files of the text model alone name it. */
function renamed(key: string): string {
  return IMAGE_PARTS.test(key)
    ? key
    : key
        .replace(/^language_model\.lm_head\./, "lm_head.")
        .replace(/^(language_model\.)?model\.(?!language_model\.)/, "model.language_model.");
}

/** What a folder's config.json says of the whole model that counts for its text model, too. */
const WHOLE = [
  ...["tie_word_embeddings", "bos_token_id", "eos_token_id"],
  ...["id2label", "label2id", "num_labels", "problem_type", "dtype", "torch_dtype", "transformers_version"],
];
const IMAGE_PARTS = /^(model\.)?(vision_tower|multi_modal_projector)\./;

/**
 * The same out of a model of texts and images: config.json has it in text_config, and the weights have it beside what
 * looks at images, which is left out. Keys are as transformers 5 calls its modules, which is how adapters call them.
 * @internal
 */
export const gemma3: Family<Gemma3Config> = {
  ...gemma3Text,
  modelType: "gemma3",
  parseConfig: (json, name) => {
    const { config, fail } = configReader(json, name, "gemma3");
    const text = asObject(config["text_config"]) ?? fail("text_config is missing; expected an object");
    const { tie_word_embeddings, bos_token_id, eos_token_id } = config;
    const whole = Object.fromEntries(
      Object.entries({ tie_word_embeddings, bos_token_id, eos_token_id }).filter(([, value]) => value !== undefined),
    );
    const read = readGemma3(configReader({ ...whole, ...text, model_type: "gemma3_text" }, name, "gemma3_text"));
    return { ...read, modelType: "gemma3" };
  },
  heads: {
    "causal-lm": {
      architectures: ["Gemma3ForConditionalGeneration", "Gemma3ForCausalLM"],
      keys: ["lm_head."],
      // The dot is that of the key, as in the name of a list's item.
      create: (config) =>
        new DecoderForCausalLM(config, gemma3Model, { base: "model.languageModel", head: "lmHead", rename: renamed }),
    },
    none: { ...gemma3Text.heads.none!, architectures: ["Gemma3Model", "Gemma3TextModel"] },
  },
  prefix: "model.language_model.",
  tied: { table: "model.language_model.embed_tokens.weight", head: "lm_head.weight" },
  rename: (key) => (IMAGE_PARTS.test(key) ? null : renamed(key)),
  // By itself it is a text model, as transformers has such.
  fileName: (key) => key.replace(/^model\.language_model\./, "model."),
  taken: {
    without: "what looks at images (vision_tower, multi_modal_projector)",
    configOf({ text_config: text, ...json }, head) {
      const whole = Object.fromEntries(WHOLE.flatMap((key) => (json[key] === undefined ? [] : [[key, json[key]]])));
      const { architectures } = withClassifier(gemma3Text).heads[head]!;
      return { ...whole, ...(text as object), model_type: "gemma3_text", architectures };
    },
  },
};

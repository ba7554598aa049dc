/**
 * What a GGUF file says of its model: config.json's numbers under llama.cpp's keys, and the tensors of factors that
 * positions' angles may have.
 * Source: ggml-org/llama.cpp, conversion/base.py (set_gguf_parameters) and the converters of each family.
 */
import type { GgufValue } from "../io/gguf/types.js";
import type { ModelConfig } from "../models/families.js";
import { WIDE_QUERIES } from "../models/gguf.js";
import { frequenciesOf, pairsOf, type RopeParameters } from "../models/parts/rope.js";
import { ArgumentError } from "../runtime/errors.js";

export const text = (value: string): GgufValue => ({ type: "string", value });
export const uint32 = (value: number): GgufValue => ({ type: "uint32", value });
export const float32 = (value: number): GgufValue => ({ type: "float32", value });
export const bool = (value: boolean): GgufValue => ({ type: "bool", value });

/** What most configurations have, whoever's they are. */
type Fields = Record<string, unknown> & {
  hiddenSize: number;
  intermediateSize: number;
  numHiddenLayers: number;
  numAttentionHeads: number;
  maxPositionEmbeddings: number;
};

/** What config.json becomes. */
export interface ModelMetadata {
  values: [key: string, value: GgufValue][];
  /** Tensors that no key of the model has, float32. */
  factors: { name: string; values: Float32Array }[];
}

/** @throws ArgumentError for what llama.cpp's architecture has no word for */
export function metadataOf(where: string, architecture: string, config: ModelConfig): ModelMetadata {
  const c = config as unknown as Fields;
  const has = (key: string): boolean => c[key] !== undefined && c[key] !== null;
  const number = (key: string): number => c[key] as number;
  const values: ModelMetadata["values"] = [];
  const add = (key: string, value: GgufValue): void => void values.push([`${architecture}.${key}`, value]);
  add("block_count", uint32(c.numHiddenLayers));
  add("context_length", uint32(c.maxPositionEmbeddings));
  add("embedding_length", uint32(c.hiddenSize));
  add("feed_forward_length", uint32(c.intermediateSize));
  add("attention.head_count", uint32(c.numAttentionHeads));
  if (has("numKeyValueHeads")) add("attention.head_count_kv", uint32(number("numKeyValueHeads")));
  if (has("rmsNormEps")) add("attention.layer_norm_rms_epsilon", float32(number("rmsNormEps")));
  for (const key of ["layerNormEps", "layerNormEpsilon"])
    if (has(key)) add("attention.layer_norm_epsilon", float32(number(key)));
  if (has("headDim")) {
    add("attention.key_length", uint32(number("headDim")));
    add("attention.value_length", uint32(number("headDim")));
  }
  add("vocab_size", uint32(number("vocabSize")));
  windows(where, architecture, c, add);
  if (architecture === "granite") {
    add("attention.scale", float32(number("attentionMultiplier")));
    add("embedding_scale", float32(number("embeddingMultiplier")));
    add("residual_scale", float32(number("residualMultiplier")));
    add("logit_scale", float32(number("logitsScaling")));
  }
  if (architecture === "gemma2") {
    add("attn_logit_softcapping", float32(number("attnLogitSoftcapping")));
    add("final_logit_softcapping", float32(number("finalLogitSoftcapping")));
  }
  if (architecture === "gptneox") {
    if (c["hiddenAct"] !== "gelu") refuse(where, architecture, "hiddenAct", c["hiddenAct"]);
    add("use_parallel_residual", bool(c["useParallelResidual"] as boolean));
  }
  refuseScales(where, architecture, c);
  const factors = has("ropeParameters") ? rope(c, architecture, add) : [];
  return { values, factors };
}

type Add = (key: string, value: GgufValue) => void;

function refuse(where: string, architecture: string, key: string, value: unknown): never {
  throw new ArgumentError(
    `${where}: the model's ${key} is ${JSON.stringify(value)}, which GGUF's ${architecture} cannot say; merge to ` +
      "safetensors instead.",
  );
}

/**
 * Windows: llama.cpp knows of each architecture which layers have them. A Mistral is a Llama to it, whose window it
 * reads past.
 */
function windows(where: string, architecture: string, c: Fields, add: Add): void {
  const window = c["slidingWindow"] as number | null | undefined;
  if (architecture === "phi3") add("attention.sliding_window", uint32(window ?? 0));
  else if (window != null) {
    if (!["gemma2", "gemma3", "llama"].includes(architecture)) refuse(where, architecture, "slidingWindow", window);
    add("attention.sliding_window", uint32(window));
  }
  if (window == null || architecture === "llama" || architecture === "phi3") return;
  const types = c["layerTypes"] as readonly string[] | undefined;
  const every = architecture === "gemma2" ? 2 : ((c["slidingWindowPattern"] as number | undefined) ?? 6);
  const slides = Array.from({ length: c.numHiddenLayers }, (_, i) =>
    types ? types[i] === "sliding_attention" : (i + 1) % every !== 0,
  );
  // One of so many layers, the last, has none.
  const first = slides.indexOf(false);
  const pattern = first < 0 ? c.numHiddenLayers + 1 : first + 1;
  if (slides.some((slide, i) => slide !== ((i + 1) % pattern !== 0))) refuse(where, architecture, "layerTypes", types);
  if (architecture === "gemma3") add("attention.sliding_window_pattern", uint32(pattern));
  else if (pattern !== 2) refuse(where, architecture, "layerTypes", types);
}

function refuseScales(where: string, architecture: string, c: Fields): void {
  const scale = c["queryPreAttnScalar"] as number | undefined;
  if (scale !== undefined) {
    const isWide = WIDE_QUERIES[architecture] === c.numHiddenLayers;
    const known = isWide ? c.hiddenSize / c.numAttentionHeads : (c["headDim"] as number);
    if (scale !== known) refuse(where, architecture, "queryPreAttnScalar", scale);
  }
  const interval = c["noRopeLayerInterval"] as number | undefined;
  const without = c["noRopeLayers"] as readonly number[] | undefined;
  const isUsual = (i: number): boolean => (i + 1) % 4 !== 0;
  if (architecture !== "smollm3") return;
  if (without ? without.some((one, i) => (one === 1) !== isUsual(i)) : interval !== 4)
    refuse(where, architecture, "noRopeLayers", without ?? interval);
}

/** How positions turn queries and keys. */
function rope(c: Fields, architecture: string, add: Add): ModelMetadata["factors"] {
  const p = c["ropeParameters"] as RopeParameters;
  const headDim = (c["headDim"] as number | undefined) ?? c.hiddenSize / c.numAttentionHeads;
  const pairs = pairsOf(headDim, p.partialRotaryFactor);
  add("rope.dimension_count", uint32(2 * pairs));
  add("rope.freq_base", float32(p.ropeTheta));
  const sliding = c["slidingRopeParameters"] as RopeParameters | undefined;
  if (sliding) add("rope.freq_base_swa", float32(sliding.ropeTheta));
  switch (p.ropeType) {
    // Up to max_position_embeddings, which llama.cpp does not go beyond, dynamic is as default.
    case "default":
    case "dynamic":
      if (architecture === "phi3") add("rope.scaling.original_context_length", uint32(c.maxPositionEmbeddings));
      return [];
    case "linear":
      add("rope.scaling.type", text("linear"));
      add("rope.scaling.factor", float32(p.factor));
      return [];
    case "yarn":
      add("rope.scaling.type", text("yarn"));
      add("rope.scaling.factor", float32(p.factor));
      add("rope.scaling.original_context_length", uint32(p.originalMaxPositionEmbeddings));
      if (p.attentionFactor !== undefined) add("rope.scaling.yarn_attn_factor", float32(p.attentionFactor));
      if (p.betaFast !== undefined) add("rope.scaling.yarn_beta_fast", float32(p.betaFast));
      if (p.betaSlow !== undefined) add("rope.scaling.yarn_beta_slow", float32(p.betaSlow));
      return [];
    case "llama3": {
      const [plain] = frequenciesOf({ ropeType: "default", ropeTheta: p.ropeTheta }, pairs, 1, 1);
      const [scaled] = frequenciesOf(p, pairs, c.maxPositionEmbeddings, 1);
      return [{ name: "rope_freqs.weight", values: plain.map((f, i) => f / scaled[i]!) }];
    }
    case "longrope": {
      const [, attention] = frequenciesOf(p, pairs, c.maxPositionEmbeddings, 1);
      add("rope.scaling.type", text("longrope"));
      add("rope.scaling.original_context_length", uint32(p.originalMaxPositionEmbeddings));
      add("rope.scaling.attn_factor", float32(attention));
      return [
        { name: "rope_factors_long.weight", values: Float32Array.from(p.longFactor) },
        { name: "rope_factors_short.weight", values: Float32Array.from(p.shortFactor) },
      ];
    }
  }
}

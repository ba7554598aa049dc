/**
 * A GGUF file as the folder that its model came from: its metadata as config.json, its tensors under Hugging Face's
 * keys. What the metadata say that would change what the model computes, and is not known here, is refused.
 *
 * Source: ggml-org/llama.cpp, gguf-py/gguf/constants.py, src/llama-model.cpp (load_hparams) and conversion/.
 */
import { shownValue } from "../io/gguf/header.js";
import type { GgufIndex } from "../io/gguf/files.js";
import type { GgufMetadata, GgmlType } from "../io/gguf/types.js";
import type { PlacedTensor, StoredDtype, WeightIndex } from "../io/huggingface.js";
import { parseHubName } from "../io/hub_name.js";
import { show } from "../io/json.js";
import { FormatError } from "../runtime/errors.js";
import { ggufOffset, ggufRowOrder, isTransposedInGguf, keyOfGguf, MODEL_TYPES } from "./gguf_names.js";
import { FACTORS, ropeOfFactors, type Factors } from "./gguf_rope.js";

type Json = Record<string, unknown>;

/** Reads the metadata of an architecture, and knows what it has been asked for. */
class Metadata {
  readonly #asked = new Set<string>();

  constructor(
    readonly path: string,
    readonly values: GgufMetadata,
    readonly architecture: string,
  ) {}

  fail(message: string): never {
    throw new FormatError(`${this.path}: ${message}.`);
  }

  /** The architecture's number of that name. A list for each layer is one number if all are equal. */
  number(name: string): number | undefined {
    const key = `${this.architecture}.${name}`;
    this.#asked.add(key);
    return this.of(key, (value) => typeof value === "number" && Number.isFinite(value), "a number");
  }

  needed(name: string): number {
    return this.number(name) ?? this.fail(`${this.architecture}.${name} is missing`);
  }

  text(name: string): string | undefined {
    const key = `${this.architecture}.${name}`;
    this.#asked.add(key);
    return this.of(key, (value) => typeof value === "string", "a string");
  }

  flag(name: string): boolean | undefined {
    const key = `${this.architecture}.${name}`;
    this.#asked.add(key);
    return this.of(key, (value) => typeof value === "boolean", "a bool");
  }

  /** The value of any key. */
  of<T>(key: string, valid: (value: unknown) => boolean, expected: string): T | undefined {
    const found = this.values.get(key);
    if (!found) return undefined;
    const isList = found.type === "array";
    const value = isList ? found.value[0] : found.value;
    if (!valid(value) || (isList && !found.value.every((other) => other === value)))
      this.fail(`${key} is ${shownValue(found)}; expected ${expected}`);
    const type = isList ? found.of : found.type;
    return (type === "float32" ? shortest(value as number) : value) as T;
  }

  /** Of each layer, true or false; or how many layers make a round. */
  pattern(name: string): number | readonly boolean[] | undefined {
    const key = `${this.architecture}.${name}`;
    const found = this.values.get(key);
    if (found?.type !== "array") return this.number(name);
    this.#asked.add(key);
    if (found.of !== "bool") this.fail(`${key} is ${shownValue(found)}; expected bools`);
    return found.value as readonly boolean[];
  }

  /** @throws FormatError for a key that nobody has asked for and that may say something */
  refuseOthers(): void {
    const start = `${this.architecture}.`;
    for (const [key, value] of this.values) {
      if (!key.startsWith(start) || this.#asked.has(key) || SILENT.has(key.slice(start.length))) continue;
      if (value.type !== "array" && (!value.value || value.value === "none")) continue;
      this.fail(`${key} is ${shownValue(value)}, and this library does not know what it changes in the model`);
    }
  }
}

/** Keys that say nothing that the tensors, or others, do not, or that llama.cpp too reads past. */
const SILENT: ReadonlySet<string> = new Set(["vocab_size", "tensor_data_layout", "rope.scaling.finetuned"]);

/** The shortest decimal that is the same float32: what stood in config.json. */
function shortest(value: number): number {
  for (let digits = 1; digits < 10; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}

/** The architecture of a file. @throws FormatError for one that this library lacks, and for what is no model */
function architectureOf({ path, metadata }: GgufIndex): string {
  const fail = (message: string): never => {
    throw new FormatError(`${path}: ${message}.`);
  };
  const type = metadata.get("general.type")?.value ?? "model";
  if (type !== "model")
    fail(`general.type is ${show(String(type))}: it is no model${type === "adapter" ? " but an adapter" : ""}`);
  const found = metadata.get("general.architecture");
  const architecture = found?.value;
  if (typeof architecture !== "string" || !Object.hasOwn(MODEL_TYPES, architecture))
    return fail(
      `general.architecture is ${shownValue(found)}; supported are ${Object.keys(MODEL_TYPES).map(show).join(", ")}`,
    );
  return architecture;
}

/** Tokens that end a text or a turn, by what the metadata call them. */
const ENDS = ["eos_token_id", "eot_token_id", "eom_token_id"];

/**
 * The config.json of a file's model.
 * @param factors of its angles, as the file's tensors have them
 * @throws FormatError naming the key of the metadata that is missing, or that the library cannot act by
 */
export function configOfGguf(index: GgufIndex, factors: Factors): Json {
  const architecture = architectureOf(index);
  const { tensors } = index;
  const meta = new Metadata(index.path, index.metadata, architecture);
  const has = (name: string): boolean => tensors.has(name);
  const table = tensors.get("token_embd.weight") ?? meta.fail("tensor token_embd.weight is missing");
  const ids = ENDS.map((key) => tokenId(meta, key)).filter((id) => id !== null);
  const common = {
    architectures: null,
    vocab_size: table.shape[0],
    tie_word_embeddings: !has("output.weight"),
    bos_token_id: tokenId(meta, "bos_token_id"),
    eos_token_id: ids.length > 1 ? [...new Set(ids)] : (ids[0] ?? null),
    pad_token_id: tokenId(meta, "padding_token_id"),
  };
  const json =
    architecture === "gpt2"
      ? { ...common, ...gpt2(meta) }
      : architecture === "gptneox"
        ? { ...common, ...gptNeoX(meta, has) }
        : { ...common, ...llamaLike(meta, has, factors) };
  if (meta.flag("attention.causal") === false) meta.fail(`${architecture}.attention.causal is false; expected true`);
  meta.refuseOthers();
  return json;
}

function tokenId(meta: Metadata, name: string): number | null {
  const id = meta.of<number>(`tokenizer.ggml.${name}`, (value) => Number.isSafeInteger(value), "a token's id");
  // What is no token at all: the largest of 32 bits.
  return id === undefined || id === 0xffff_ffff || id < 0 ? null : id;
}

function gpt2(meta: Metadata): Json {
  return {
    model_type: "gpt2",
    n_embd: meta.needed("embedding_length"),
    n_layer: meta.needed("block_count"),
    n_head: meta.needed("attention.head_count"),
    n_positions: meta.needed("context_length"),
    n_inner: meta.needed("feed_forward_length"),
    layer_norm_epsilon: meta.needed("attention.layer_norm_epsilon"),
  };
}

function gptNeoX(meta: Metadata, has: (name: string) => boolean): Json {
  const hiddenSize = meta.needed("embedding_length");
  const heads = meta.needed("attention.head_count");
  return {
    model_type: "gpt_neox",
    hidden_size: hiddenSize,
    num_hidden_layers: meta.needed("block_count"),
    num_attention_heads: heads,
    intermediate_size: meta.needed("feed_forward_length"),
    max_position_embeddings: meta.needed("context_length"),
    layer_norm_eps: meta.needed("attention.layer_norm_epsilon"),
    use_parallel_residual: meta.flag("use_parallel_residual") ?? true,
    attention_bias: has("blk.0.attn_qkv.bias"),
    rotary_pct: (meta.needed("rope.dimension_count") * heads) / hiddenSize,
    rotary_emb_base: meta.number("rope.freq_base") ?? 10000,
  };
}

function llamaLike(meta: Metadata, has: (name: string) => boolean, factors: Factors): Json {
  const { architecture } = meta;
  const isGemma = architecture.startsWith("gemma");
  const hiddenSize = meta.needed("embedding_length");
  const layers = meta.needed("block_count");
  const heads = meta.needed("attention.head_count");
  const rotated = meta.number("rope.dimension_count");
  const ofHead = meta.number("attention.key_length") ?? hiddenSize / heads;
  const ofValues = meta.number("attention.value_length") ?? ofHead;
  if (ofValues !== ofHead)
    meta.fail(`${architecture}.attention.value_length is ${ofValues}; expected key_length, ${ofHead}`);
  const positions = meta.needed("context_length");
  const window = meta.number("attention.sliding_window") || null;
  const act = isGemma ? { hidden_act: "gelu_pytorch_tanh", hidden_activation: "gelu_pytorch_tanh" } : {};
  const headDim = Number.isInteger(ofHead) ? { head_dim: ofHead } : {};
  return {
    hidden_size: hiddenSize,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: meta.number("attention.head_count_kv") ?? heads,
    ...headDim,
    intermediate_size: meta.needed("feed_forward_length"),
    max_position_embeddings: positions,
    rms_norm_eps: meta.needed("attention.layer_norm_rms_epsilon"),
    rope_theta: meta.number("rope.freq_base") ?? 10000,
    ...(rotated !== undefined && rotated !== ofHead ? { partial_rotary_factor: rotated / ofHead } : {}),
    ...rope(meta, factors, { pairs: (rotated ?? ofHead) / 2, positions }),
    ...act,
    ...biases(architecture, has),
    ...ofArchitecture(meta, { hiddenSize, heads, ofHead, layers, window }),
  };
}

/** Whether projections have biases, where config.json says so. */
function biases(architecture: string, has: (name: string) => boolean): Json {
  if (["qwen2", "phi3"].includes(architecture)) return {};
  const attention = has("blk.0.attn_q.bias");
  return { attention_bias: attention, ...(has("blk.0.ffn_up.bias") ? { mlp_bias: true } : {}) };
}

/** rope_scaling, if there is any. */
function rope(meta: Metadata, factors: Factors, of: { pairs: number; positions: number }): Json {
  const type = meta.text("rope.scaling.type") ?? "none";
  const theta = meta.number("rope.freq_base") ?? 10000;
  const factor = meta.number("rope.scaling.factor") ?? meta.number("rope.scale_linear") ?? 1;
  const original = meta.number("rope.scaling.original_context_length") ?? of.positions;
  const attention = meta.number("rope.scaling.attn_factor");
  const yarn = {
    beta_fast: meta.number("rope.scaling.yarn_beta_fast"),
    beta_slow: meta.number("rope.scaling.yarn_beta_slow"),
    attention_factor: meta.number("rope.scaling.yarn_attn_factor") ?? attention,
  };
  const hasFactors = FACTORS.some((name) => factors[name] !== undefined);
  if (hasFactors) {
    if (!["none", "longrope"].includes(type))
      meta.fail(`rope.scaling.type is ${show(type)}, beside a tensor of factors; expected one of them`);
    return ropeOfFactors(factors, { ...of, theta, original, attention, fail: (message) => meta.fail(message) });
  }
  if (type === "none" || (type === "linear" && factor === 1)) return {};
  if (type === "linear") return { rope_scaling: { rope_type: "linear", factor } };
  if (type === "yarn") {
    const given = Object.entries(yarn).filter(([, value]) => value !== undefined);
    return {
      rope_scaling: {
        rope_type: "yarn",
        factor,
        original_max_position_embeddings: original,
        ...Object.fromEntries(given),
      },
    };
  }
  return meta.fail(`rope.scaling.type is ${show(type)}; supported are "none", "linear", "yarn" and "longrope"`);
}

interface Sizes {
  hiddenSize: number;
  heads: number;
  ofHead: number;
  layers: number;
  window: number | null;
}

/** Layers of the models of Gemma 2 and 3 of 27 B, whose queries are scaled by another size than a head's. */
export const WIDE_QUERIES: Readonly<Record<string, number>> = { gemma2: 46, gemma3: 62 };

/** What one architecture says that others do not. */
function ofArchitecture(meta: Metadata, { hiddenSize, heads, ofHead, layers, window }: Sizes): Json {
  const { architecture } = meta;
  const modelType = MODEL_TYPES[architecture]!;
  switch (architecture) {
    case "llama":
      // Mistral's models are Llamas but for their window.
      return window === null ? { model_type: modelType } : { model_type: "mistral", sliding_window: window };
    case "gemma2":
    case "gemma3": {
      const pattern = meta.pattern("attention.sliding_window_pattern");
      return {
        model_type: modelType,
        sliding_window: window,
        query_pre_attn_scalar: WIDE_QUERIES[architecture] === layers ? hiddenSize / heads : ofHead,
        attn_logit_softcapping: meta.number("attn_logit_softcapping") ?? null,
        final_logit_softcapping: meta.number("final_logit_softcapping") ?? null,
        ...(architecture === "gemma3" ? { rope_local_base_freq: meta.number("rope.freq_base_swa") ?? 10000 } : {}),
        ...(typeof pattern === "number" ? { sliding_window_pattern: pattern } : {}),
        ...(typeof pattern === "object"
          ? { layer_types: pattern.map((slides) => (slides ? "sliding_attention" : "full_attention")) }
          : {}),
      };
    }
    case "phi3":
      return { model_type: modelType, sliding_window: window };
    case "granite":
      return {
        model_type: modelType,
        embedding_multiplier: meta.number("embedding_scale") ?? 1,
        residual_multiplier: meta.number("residual_scale") ?? 1,
        attention_multiplier: meta.number("attention.scale") ?? 1,
        logits_scaling: meta.number("logit_scale") ?? 1,
      };
    default:
      return { model_type: modelType };
  }
}

/** What safetensors call what both have. */
const DTYPES: Readonly<Partial<Record<GgmlType, StoredDtype>>> = { float32: "F32", float16: "F16", bfloat16: "BF16" };

/**
 * A file's tensors under the keys of Hugging Face's files; one that has none there keeps its own, and is refused by
 * whoever compares them with the model.
 * @param config as `configOfGguf` gives it
 * @internal
 */
export function weightsOfGguf(index: GgufIndex, config: Json): WeightIndex {
  const architecture = architectureOf(index);
  const heads = (config["num_attention_heads"] ?? config["n_head"]) as number;
  const kvHeads = (config["num_key_value_heads"] ?? heads) as number;
  const tensors = new Map<string, PlacedTensor>();
  for (const tensor of index.tensors.values()) {
    const { name, shape } = tensor;
    if ((FACTORS as readonly string[]).includes(name)) continue;
    const key = keyOfGguf(architecture, name) ?? name;
    const transposed = isTransposedInGguf(architecture, name);
    tensors.set(key, {
      ...tensor,
      dtype: DTYPES[tensor.dtype] ?? tensor.dtype,
      shape: transposed ? [...shape].reverse() : shape,
      arrangement: {
        rows: () => ggufRowOrder(architecture, name, shape[0] ?? 1, { heads, kvHeads }),
        transposed,
        offset: ggufOffset(architecture, name),
      },
    });
  }
  return {
    tensors,
    astray: new Map(),
    sizes: index.sizes,
    padding: index.padding,
    metadata: new Map(),
    config: index.path,
  };
}

/**
 * The name on the hub of the folder that a file was made of, for adapters to name as their base; undefined where the
 * metadata do not say it.
 */
export function baseOfGguf(metadata: GgufMetadata): string | undefined {
  for (const key of ["general.source.huggingface.repository", "general.source.repo_url", "general.repo_url"]) {
    const value = metadata.get(key)?.value;
    if (typeof value !== "string") continue;
    const name = value.replace(/^https:\/\/huggingface\.co\//, "");
    if (parseHubName(name)) return name;
  }
  return undefined;
}

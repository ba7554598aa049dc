/**
 * What GGUF calls the tensors of a model, by its architecture, and how their rows lie there. One table for both
 * directions: models out of files and into them, and adapters.
 *
 * Source: ggml-org/llama.cpp, gguf-py/gguf/tensor_mapping.py and constants.py; conversion/ (what each converter does to
 * a model's tensors).
 */

/** Names in Hugging Face's files, after what layers begin with, and in GGUF. */
type Names = readonly (readonly [key: string, name: string])[];

interface Architecture {
  /** Names outside of layers. */
  readonly whole: Names;
  /** What the keys of layers begin with. */
  readonly layers: string;
  /** Names in a layer. */
  readonly layer: Names;
  /** Whether rows of queries and keys go in pairs of neighbours, as these architectures rotate them. */
  readonly interleaved?: boolean;
  /** Whether the weights of norms have 1 added, which the model itself adds. */
  readonly unitNorms?: boolean;
  /** Matrices that Hugging Face stores [in, out]. */
  readonly transposed?: readonly string[];
}

const DECODER: Names = [
  ["model.embed_tokens", "token_embd"],
  ["model.norm", "output_norm"],
  ["lm_head", "output"],
];
const ATTENTION: Names = [
  ["self_attn.q_proj", "attn_q"],
  ["self_attn.k_proj", "attn_k"],
  ["self_attn.v_proj", "attn_v"],
  ["self_attn.o_proj", "attn_output"],
];
const HEAD_NORMS: Names = [
  ["self_attn.q_norm", "attn_q_norm"],
  ["self_attn.k_norm", "attn_k_norm"],
];
const MLP: Names = [
  ["mlp.gate_proj", "ffn_gate"],
  ["mlp.up_proj", "ffn_up"],
  ["mlp.down_proj", "ffn_down"],
];
const TWO_NORMS: Names = [
  ["input_layernorm", "attn_norm"],
  ["post_attention_layernorm", "ffn_norm"],
];
const FOUR_NORMS: Names = [
  ["input_layernorm", "attn_norm"],
  ["post_attention_layernorm", "post_attention_norm"],
  ["pre_feedforward_layernorm", "ffn_norm"],
  ["post_feedforward_layernorm", "post_ffw_norm"],
];
const LLAMA: Architecture = {
  whole: DECODER,
  layers: "model.layers.",
  layer: [...TWO_NORMS, ...ATTENTION, ...MLP],
};
const GPT2_MATRICES = ["attn_qkv", "attn_output", "ffn_up", "ffn_down"];

/** By general.architecture. */
const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama: { ...LLAMA, interleaved: true },
  smollm3: { ...LLAMA, interleaved: true },
  granite: { ...LLAMA, interleaved: true },
  qwen2: LLAMA,
  qwen3: { ...LLAMA, layer: [...LLAMA.layer, ...HEAD_NORMS] },
  gemma: { ...LLAMA, unitNorms: true },
  gemma2: { ...LLAMA, layer: [...FOUR_NORMS, ...ATTENTION, ...MLP], unitNorms: true },
  gemma3: { ...LLAMA, layer: [...FOUR_NORMS, ...ATTENTION, ...MLP, ...HEAD_NORMS], unitNorms: true },
  olmo2: {
    ...LLAMA,
    layer: [
      ["post_attention_layernorm", "post_attention_norm"],
      ["post_feedforward_layernorm", "post_ffw_norm"],
      ...ATTENTION,
      ...HEAD_NORMS,
      ...MLP,
    ],
  },
  phi3: {
    ...LLAMA,
    layer: [
      ...TWO_NORMS,
      ["self_attn.qkv_proj", "attn_qkv"],
      ["self_attn.o_proj", "attn_output"],
      ["mlp.gate_up_proj", "ffn_up"],
      ["mlp.down_proj", "ffn_down"],
    ],
  },
  gpt2: {
    whole: [
      ["transformer.wte", "token_embd"],
      ["transformer.wpe", "position_embd"],
      ["transformer.ln_f", "output_norm"],
      ["lm_head", "output"],
    ],
    layers: "transformer.h.",
    layer: [
      ["ln_1", "attn_norm"],
      ["attn.c_attn", "attn_qkv"],
      ["attn.c_proj", "attn_output"],
      ["ln_2", "ffn_norm"],
      ["mlp.c_fc", "ffn_up"],
      ["mlp.c_proj", "ffn_down"],
    ],
    transposed: GPT2_MATRICES,
  },
  gptneox: {
    whole: [
      ["gpt_neox.embed_in", "token_embd"],
      ["gpt_neox.final_layer_norm", "output_norm"],
      ["embed_out", "output"],
    ],
    layers: "gpt_neox.layers.",
    layer: [
      ["input_layernorm", "attn_norm"],
      ["attention.query_key_value", "attn_qkv"],
      ["attention.dense", "attn_output"],
      ["post_attention_layernorm", "ffn_norm"],
      ["mlp.dense_h_to_4h", "ffn_up"],
      ["mlp.dense_4h_to_h", "ffn_down"],
    ],
  },
};

/** Architectures of model_types that have not their own name. */
const RENAMED: Readonly<Record<string, string>> = {
  mistral: "llama",
  gemma3_text: "gemma3",
  gpt_neox: "gptneox",
};

/** model_types of architectures that have not their own name. */
const OTHERS: Readonly<Record<string, string>> = { gemma3: "gemma3_text", gptneox: "gpt_neox" };

/** The model_type of a general.architecture. @internal */
export const MODEL_TYPES: Readonly<Record<string, string>> = Object.fromEntries(
  Object.keys(ARCHITECTURES).map((name) => [name, OTHERS[name] ?? name]),
);

/** general.architecture of a model_type; undefined: llama.cpp has none that this library knows. @internal */
export function ggufArchitecture(modelType: string): string | undefined {
  const name = RENAMED[modelType] ?? modelType;
  return Object.hasOwn(ARCHITECTURES, name) ? name : undefined;
}

/** What the keys of a text model begin with that is a part of a model of texts and images. */
const PART = /^(?:model\.language_model|language_model\.model)\./;
/** What follows the path of a module. */
const SUFFIX = /\.(?:weight|bias)$/;

/**
 * GGUF's name of a tensor by its key in Hugging Face's files, or of a module by its path; undefined: it has none.
 * @internal
 */
export function ggufName(architecture: string, key: string): string | undefined {
  const { whole, layers, layer } = ARCHITECTURES[architecture]!;
  const suffix = SUFFIX.exec(key)?.[0] ?? "";
  const path = key.slice(0, key.length - suffix.length).replace(PART, "model.");
  const named = whole.find(([from]) => from === path);
  if (named) return named[1] + suffix;
  if (!path.startsWith(layers)) return undefined;
  const [, index, rest] = /^(\d+)\.(.+)$/.exec(path.slice(layers.length)) ?? [];
  const found = layer.find(([from]) => from === rest);
  return found && `blk.${index}.${found[1]}${suffix}`;
}

/** The reverse of `ggufName`. @internal */
export function keyOfGguf(architecture: string, name: string): string | undefined {
  const { whole, layers, layer } = ARCHITECTURES[architecture]!;
  const suffix = SUFFIX.exec(name)?.[0] ?? "";
  const path = name.slice(0, name.length - suffix.length);
  const named = whole.find(([, to]) => to === path);
  if (named) return named[0] + suffix;
  const [, index, rest] = /^blk\.(\d+)\.(.+)$/.exec(path) ?? [];
  const found = layer.find(([, to]) => to === rest);
  return found && `${layers}${index}.${found[0]}${suffix}`;
}

/** Heads, as the order of rows needs them. */
export interface GgufHeads {
  heads: number;
  kvHeads: number;
}

/**
 * How the rows of a tensor (of a matrix, or the values of a bias) lie in GGUF: row i there is row order[i] of Hugging
 * Face's; null: as there. So do those of an adapter's B, whose rows are the matrix's.
 *
 *   interleaved q, k: of each head of 2 h rows, rows j and h + j are neighbours (h d + 2 j, h d + 2 j + 1)
 *   gptneox's q, k and v of one matrix: by heads first, (head, q k v, row) -> (q k v, head, row)
 *
 * @param name GGUF's, with or without suffix
 * @internal
 */
export function ggufRowOrder(
  architecture: string,
  name: string,
  rows: number,
  { heads, kvHeads }: GgufHeads,
): Int32Array | null {
  const [, part] = /^blk\.\d+\.(\w+)/.exec(name) ?? [];
  const order = new Int32Array(rows);
  if (ARCHITECTURES[architecture]!.interleaved && (part === "attn_q" || part === "attn_k")) {
    const size = rows / (part === "attn_q" ? heads : kvHeads);
    for (let i = 0; i < rows; i++) {
      const at = i % size;
      order[i] = i - at + Math.floor(at / 2) + (at % 2) * (size / 2);
    }
    return order;
  }
  if (architecture === "gptneox" && part === "attn_qkv") {
    const size = rows / (3 * heads);
    for (let i = 0; i < rows; i++) {
      const kind = Math.floor(i / (heads * size));
      const head = Math.floor(i / size) % heads;
      order[i] = (head * 3 + kind) * size + (i % size);
    }
    return order;
  }
  return null;
}

/** Whether Hugging Face stores a matrix [in, out] that GGUF has [out, in]. @param name GGUF's @internal */
export function isTransposedInGguf(architecture: string, name: string): boolean {
  const part = /^blk\.\d+\.(\w+)\.weight$/.exec(name)?.[1];
  return part !== undefined && (ARCHITECTURES[architecture]!.transposed?.includes(part) ?? false);
}

/** What is added to a tensor's values in GGUF: 1 to weights of norms that the model adds itself. @internal */
export function ggufOffset(architecture: string, name: string): 0 | 1 {
  return ARCHITECTURES[architecture]!.unitNorms && name.endsWith("norm.weight") ? 1 : 0;
}

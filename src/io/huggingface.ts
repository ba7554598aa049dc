/**
 * Model folders as Hugging Face transformers writes them: config.json of a Llama or a GPT-2, and the weights as
 * model.safetensors or as shards listed in model.safetensors.index.json:
 *
 *   {"metadata": ..., "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors", ...}}
 *
 * Source: huggingface/transformers, models/{llama,gpt2}/configuration_*.py and modeling_utils.py.
 */
import { FileError, FormatError } from "../runtime/errors.js";
import type { StateEntry } from "../runtime/state_entry.js";
import { exists, parseJson, readBytes } from "./files.js";
import { asObject, show } from "./json.js";
import { parseSafetensors, toFloat32, type TensorView } from "./safetensors.js";

export const MODEL_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";

/** What config.json says of a Llama. */
export interface LlamaConfig {
  /** Width of the residual stream (hidden_size). */
  hiddenSize: number;
  /** Width of the MLP (intermediate_size). */
  intermediateSize: number;
  /** Number of layers (num_hidden_layers). */
  numHiddenLayers: number;
  /** Heads of queries (num_attention_heads). */
  numAttentionHeads: number;
  /** Heads of keys and values; divides numAttentionHeads (num_key_value_heads). */
  numKeyValueHeads: number;
  /** Values of a head, even (head_dim). */
  headDim: number;
  /** Number of token ids (vocab_size). */
  vocabSize: number;
  /** Longest sequence (max_position_embeddings). */
  maxPositionEmbeddings: number;
  /** eps of the norms (rms_norm_eps). */
  rmsNormEps: number;
  /** Base of the rotary frequencies (rope_theta). */
  ropeTheta: number;
  /** Whether the embedding table is the head too (tie_word_embeddings). */
  tieWordEmbeddings: boolean;
  /** Begins a text; null: the model has none. */
  bosTokenId: number | null;
  /** Ends a text, each of several; null: the model has none. What generation ends at: `data.specialTokens`. */
  eosTokenId: number | readonly number[] | null;
}

/** What config.json says of a GPT-2, in the names of LlamaConfig. */
export interface Gpt2Config {
  /** Width of the residual stream, a multiple of numAttentionHeads (n_embd). */
  hiddenSize: number;
  /** Width of the MLP: 4 hiddenSize unless n_inner says otherwise. */
  intermediateSize: number;
  /** Number of blocks (n_layer). */
  numHiddenLayers: number;
  /** Heads of attention (n_head). */
  numAttentionHeads: number;
  /** Number of token ids (vocab_size). */
  vocabSize: number;
  /** Longest sequence (n_positions). */
  maxPositionEmbeddings: number;
  /** eps of the norms (layer_norm_epsilon). */
  layerNormEpsilon: number;
  /** Whether the embedding table is the head too (tie_word_embeddings). */
  tieWordEmbeddings: boolean;
  /** Begins a text; null: the model has none. */
  bosTokenId: number | null;
  /** Ends a text, each of several; null: the model has none. What generation ends at: `data.specialTokens`. */
  eosTokenId: number | readonly number[] | null;
}

/** Reads keys of config.json strictly: each fault is a FormatError that names the key. */
function configReader(json: unknown, name: string, modelType: string) {
  const fail = (message: string): never => {
    throw new FormatError(`${name}: ${message}.`);
  };
  const config = asObject(json) ?? fail("the file holds no JSON object");

  /** The key's value, or the default if the key is absent or null. */
  const read = <T>(key: string, valid: (value: any) => boolean, expected: string, fallback?: T, from = config): T => {
    const value = from[key] ?? fallback;
    if (!valid(value)) fail(`${key} is ${show(value)}; expected ${expected}`);
    return value as T;
  };
  const count = (key: string, fallback?: number): number =>
    read(key, (value) => Number.isSafeInteger(value) && value > 0, "a positive integer", fallback);
  const positive = (key: string, fallback?: number, from?: Record<string, unknown>): number =>
    read(key, (value) => Number.isFinite(value) && value > 0, "a positive number", fallback, from);
  const flag = (key: string, fallback: boolean): boolean =>
    read(key, (value) => typeof value === "boolean", "true or false", fallback);
  const only = (key: string, value: unknown): void => {
    if ((config[key] ?? value) !== value) fail(`${key} is ${show(config[key])}; only ${show(value)} is supported`);
  };
  const tokens = (key: string, fallback: number): number | readonly number[] | null => {
    const given = config[key] === undefined ? fallback : config[key];
    const list = Array.isArray(given) ? given : [given];
    const valid = given === null || (list.length > 0 && list.every((id) => Number.isSafeInteger(id) && id >= 0));
    return valid
      ? (given as number | number[] | null)
      : fail(`${key} is ${show(given)}; expected a token's number or a list of them`);
  };
  const token = (key: string, fallback: number): number | null => [tokens(key, fallback)].flat()[0]!;
  // What a hub answers instead of a file is JSON too.
  if (config.model_type === undefined && typeof config.error === "string")
    fail(`the file is a server's answer, ${show(config.error)}, instead of the file; download it again`);
  if (config.model_type !== modelType)
    fail(`model_type is ${show(config.model_type)}; only ${show(modelType)} is supported`);
  only("quantization_config", null);
  return { config, fail, count, positive, flag, only, token, tokens };
}

/**
 * What the file leaves out has the values of transformers' LlamaConfig.
 *
 * Source: huggingface/transformers 5, models/llama/configuration_llama.py.
 * @param json of config.json
 * @param name of the file, for errors
 * @throws FormatError naming the key that is wrong or asks for what is not supported
 */
export function parseLlamaConfig(json: unknown, name: string): LlamaConfig {
  const { config, fail, count, positive, flag, only, token, tokens } = configReader(json, name, "llama");
  only("attention_dropout", 0);
  only("hidden_act", "silu");
  only("attention_bias", false);
  only("mlp_bias", false);
  only("partial_rotary_factor", 1);
  // Since transformers 5 theta stands in rope_parameters, beside the kind of scaling.
  const [rope] = ["rope_parameters", "rope_scaling"].map((name) => {
    const parameters =
      config[name] == null
        ? {}
        : (asObject(config[name]) ?? fail(`${name} is ${show(config[name])}; expected an object`));
    // The type first: the others only follow from it.
    for (const [key, value] of Object.entries(parameters).sort(
      ([a], [b]) => Number(b.endsWith("type")) - Number(a.endsWith("type")),
    )) {
      const plain =
        key === "rope_theta" ||
        ((key === "rope_type" || key === "type") && value === "default") ||
        ((key === "partial_rotary_factor" || key === "factor") && value === 1) ||
        value === null;
      if (!plain) fail(`${name} has ${key} ${show(value)}; only rope_type "default" is supported`);
    }
    return parameters;
  });
  const hiddenSize = count("hidden_size", 4096);
  const numAttentionHeads = count("num_attention_heads", 32);
  if (config.head_dim == null && hiddenSize % numAttentionHeads !== 0) {
    fail(
      `hidden_size is ${hiddenSize}; without head_dim it must be a multiple of num_attention_heads = ` +
        `${numAttentionHeads}`,
    );
  }
  const headDim = count("head_dim", hiddenSize / numAttentionHeads);
  if (headDim % 2 !== 0) fail(`head_dim is ${headDim}; rotary embeddings need an even number`);
  const numKeyValueHeads = count("num_key_value_heads", numAttentionHeads);
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    fail(
      `num_attention_heads is ${numAttentionHeads}; expected a multiple of num_key_value_heads = ${numKeyValueHeads}`,
    );
  }
  return {
    hiddenSize,
    intermediateSize: count("intermediate_size", 11008),
    numHiddenLayers: count("num_hidden_layers", 32),
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    vocabSize: count("vocab_size", 32000),
    maxPositionEmbeddings: count("max_position_embeddings", 2048),
    rmsNormEps: positive("rms_norm_eps", 1e-6),
    ropeTheta: rope!.rope_theta == null ? positive("rope_theta", 10000) : positive("rope_theta", undefined, rope),
    tieWordEmbeddings: flag("tie_word_embeddings", false),
    bosTokenId: token("bos_token_id", 1),
    eosTokenId: tokens("eos_token_id", 2),
  };
}

/**
 * What the file leaves out has the values of transformers' GPT2Config. Its dropout probabilities are not read: Gpt2
 * has no dropout.
 *
 * Source: huggingface/transformers 5, models/gpt2/configuration_gpt2.py.
 * @param json of config.json
 * @param name of the file, for errors
 * @throws FormatError naming the key that is wrong or asks for what is not supported
 */
export function parseGpt2Config(json: unknown, name: string): Gpt2Config {
  const { fail, count, positive, flag, only, token, tokens } = configReader(json, name, "gpt2");
  only("activation_function", "gelu_new");
  only("scale_attn_weights", true);
  only("scale_attn_by_inverse_layer_idx", false);
  only("add_cross_attention", false);
  const hiddenSize = count("n_embd", 768);
  const numAttentionHeads = count("n_head", 12);
  if (hiddenSize % numAttentionHeads !== 0)
    fail(`n_embd is ${hiddenSize}; expected a multiple of n_head = ${numAttentionHeads}`);
  return {
    hiddenSize,
    intermediateSize: count("n_inner", 4 * hiddenSize),
    numHiddenLayers: count("n_layer", 12),
    numAttentionHeads,
    vocabSize: count("vocab_size", 50257),
    maxPositionEmbeddings: count("n_positions", 1024),
    layerNormEpsilon: positive("layer_norm_epsilon", 1e-5),
    tieWordEmbeddings: flag("tie_word_embeddings", true),
    bosTokenId: token("bos_token_id", 50256),
    eosTokenId: tokens("eos_token_id", 50256),
  };
}

/** The tensors of a folder, not copied. */
export interface CheckpointViews {
  /** By name, as the files have them. */
  tensors: Map<string, TensorView>;
  /**
   * Tensors that the index lists and no shard has, and those that a shard has and the index does not list, with the
   * path of the shard.
   */
  astray: Map<string, string>;
  /** All files' metadata: safetensors.torch.save_model keeps there which names stood for one tensor. */
  metadata: Map<string, string>;
}

/**
 * The tensors of model.safetensors if that is there, else of the shards of its index, each read once.
 * @throws FileError if a file is missing, FormatError if one is damaged or a tensor is in another shard than the index
 * says
 * @internal
 */
export function readCheckpoint(directory: string): CheckpointViews {
  const tensors = new Map<string, TensorView>();
  const astray = new Map<string, string>();
  const metadata = new Map<string, string>();
  const whole = `${directory}/${MODEL_FILE}`;
  const indexPath = `${directory}/${INDEX_FILE}`;
  const read = (path: string): Iterable<TensorView> => {
    const file = parseSafetensors(readBytes(path), { name: path });
    for (const [key, value] of Object.entries(file.metadata)) metadata.set(key, value);
    return file.tensors.values();
  };
  if (exists(whole)) {
    for (const view of read(whole)) tensors.set(view.name, view);
    return { tensors, astray, metadata };
  }
  if (!exists(indexPath)) {
    throw new FileError(
      `cannot read a checkpoint from ${directory}: neither ${MODEL_FILE} nor ${INDEX_FILE} is there; ` +
        "check the path, and save pickled weights (.bin) as safetensors.",
    );
  }
  const shardOf = readWeightMap(indexPath);
  for (const shard of new Set(shardOf.values())) {
    const path = `${directory}/${shard}`;
    for (const view of read(path)) {
      const expected = shardOf.get(view.name);
      if (expected !== undefined && expected !== shard)
        throw new FormatError(`${path}: tensor ${show(view.name)} is here, but ${indexPath} has it in ${expected}.`);
      if (expected === undefined) astray.set(view.name, path);
      tensors.set(view.name, view);
    }
  }
  for (const [name, shard] of shardOf) {
    if (!tensors.has(name)) astray.set(name, `${directory}/${shard}`);
  }
  return { tensors, astray, metadata };
}

/** @throws FormatError for the first tensor that is astray @internal */
export function refuseAstray(directory: string, { tensors, astray }: CheckpointViews): void {
  for (const [name, path] of astray) {
    const index = `${directory}/${INDEX_FILE}`;
    throw new FormatError(
      `${path}: tensor ${show(name)} ${
        tensors.has(name) ? `is here, but ${index} does not ` + `list it` : `is missing; ${index} lists it`
      }.`,
    );
  }
}

/**
 * All weights of a folder as float32, from model.safetensors if it is there, else from the shards of
 * its index, each read once.
 *
 * @param wanted which tensors to give; the others may be of any dtype
 * @throws FileError if a file is missing, FormatError if one is damaged or the index does not fit
 *
 * @example
 * const weights = io.loadWeights("models/base", (name) => name.includes("layers.0."));
 * console.log(weights.get("model.layers.0.input_layernorm.weight").shape.length); // 1
 */
export function loadWeights(
  directory: string,
  wanted: (name: string) => boolean = () => true,
): Map<string, StateEntry> {
  const checkpoint = readCheckpoint(directory);
  const { tensors } = checkpoint;
  refuseAstray(directory, checkpoint);
  const weights = new Map<string, StateEntry>();
  for (const [name, view] of tensors) if (wanted(name)) weights.set(name, { shape: view.shape, data: toFloat32(view) });
  return weights;
}

/** The shard of each tensor, by an index. @throws FileError, FormatError @internal */
export function readWeightMap(path: string): Map<string, string> {
  return parseWeightMap(readBytes(path), path);
}

/** The shard of each tensor, from the bytes of an index. @throws FormatError @internal */
export function parseWeightMap(bytes: Uint8Array, path: string): Map<string, string> {
  const weightMap = asObject(asObject(parseJson(bytes, path))?.weight_map);
  if (!weightMap)
    throw new FormatError(`${path}: expected an object with weight_map, an object of tensor names and shards.`);
  const shardOf = new Map<string, string>();
  const plain = new Set<unknown>();
  for (const name in weightMap) {
    const shard = weightMap[name];
    // A plain name: no separators, drives or dots that could lead out of the folder.
    if (
      !plain.has(shard) &&
      (typeof shard !== "string" || shard.length > 255 || !/^\w[\w.-]*\.safetensors$/.test(shard))
    ) {
      throw new FormatError(
        `${path}: tensor ${show(name)} is in shard ${show(shard)}; expected the name of a .safetensors file in ` +
          `this folder.`,
      );
    }
    plain.add(shard);
    shardOf.set(name, shard as string);
  }
  return shardOf;
}

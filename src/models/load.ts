/** Models from folders in Hugging Face's layout. */
import { loadTokenizer, specialTokens, type Tokenizer } from "../data/index.js";
import {
  parseGpt2Config,
  parseLlamaConfig,
  readCheckpoint,
  refuseAstray,
  type CheckpointViews,
  type Gpt2Config,
  type LlamaConfig,
} from "../io/huggingface.js";
import { exists, readJson } from "../io/files.js";
import { show } from "../io/json.js";
import { copyFloat32, type TensorView } from "../io/safetensors.js";
import type { Module } from "../nn/module.js";
import { skipInit } from "../nn/skip_init.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, FileError, FormatError } from "../runtime/errors.js";
import { allOrNothing } from "../tensor/scope.js";
import { Gpt2 } from "./gpt2.js";
import { Llama } from "./llama.js";

/** A model and what its folder says. */
export interface LoadedModel<M extends Module, Config> {
  /** In training mode, all parameters trainable but those that LoRA freezes. */
  model: M;
  /** The same as model.config: config.json's, but for tieWordEmbeddings, which says what the weights are. */
  config: Config;
  /** The folder. */
  path: string;
  /** The folder's tokenizer, read when it is first asked for. Errors as `data.loadTokenizer`. */
  readonly tokenizer: Tokenizer;
  /**
   * The tokens that end a text, from generation_config.json or config.json, read when first asked for. Errors as
   * `data.specialTokens`.
   */
  readonly eosTokenIds: readonly number[];
}

/**
 * A Llama from a folder with config.json and model.safetensors (or its shards), F32, F16 or BF16. Whether the embedding
 * table is the head too is what the weights say: a head that differs from the table is a head of its own, whatever
 * config.json says.
 *
 * Source: transformers, LlamaForCausalLM.from_pretrained.
 * @throws FileError, FormatError naming what is missing, unknown or of another shape than config.json says
 *
 * @example
 * const { model, config } = models.loadLlama("models/base");
 * const logits = noGrad(() => model.forward(tensor(new Int32Array([5, 6, 7]), [1, 3])));
 * console.log(logits.shape[2] === config.vocabSize); // true
 */
export function loadLlama(directory: string): LoadedModel<Llama, LlamaConfig> {
  const json = readConfig("loadLlama", directory);
  const read = parseLlamaConfig(json, `${directory}/config.json`);
  const weights = new Weights(directory, "model.", (key) => /(^|\.)rotary_emb\.inv_freq$/.test(key));
  const config = {
    ...read,
    tieWordEmbeddings: weights.tie("model.embed_tokens.weight", "lm_head.weight", read.tieWordEmbeddings),
  };
  weights.check("model.layers.", ["num_hidden_layers", config.numHiddenLayers], llamaShapes(config));
  return loaded(directory, config, () => weights.fill(() => new Llama(config)));
}

/**
 * A GPT-2 from such a folder. Keys may lack the "transformer." prefix, as the hub's own GPT-2 has them;
 * the stored causal masks (attn.bias, attn.masked_bias) are ignored.
 *
 * Source: transformers, GPT2LMHeadModel.from_pretrained.
 * @throws FileError, FormatError naming what is missing, unknown, there twice or of another shape than config.json says
 *
 * @example
 * const { model } = models.loadGpt2("gpt2");
 * peft.getLoraModel(model, { r: 8, loraAlpha: 16, targetModules: ["c_attn"] });
 */
export function loadGpt2(directory: string): LoadedModel<Gpt2, Gpt2Config> {
  const json = readConfig("loadGpt2", directory);
  const read = parseGpt2Config(json, `${directory}/config.json`);
  const weights = new Weights(directory, "transformer.", (key) => /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/.test(key));
  const config = {
    ...read,
    tieWordEmbeddings: weights.tie("transformer.wte.weight", "lm_head.weight", read.tieWordEmbeddings),
  };
  weights.check("transformer.h.", ["n_layer", config.numHiddenLayers], gpt2Shapes(config));
  return loaded(directory, config, () => weights.fill(() => new Gpt2(config)));
}

/**
 * The model of a folder, of the architecture that its config.json names in model_type.
 * @throws FileError, FormatError; also for a model_type other than "llama" and "gpt2"
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * console.log(model instanceof models.Llama); // true
 */
export function loadModel(directory: string): LoadedModel<Llama, LlamaConfig> | LoadedModel<Gpt2, Gpt2Config> {
  const type = (readConfig("loadModel", directory) as { model_type?: unknown } | null)?.model_type;
  if (type === "gpt2") return loadGpt2(directory);
  // A config without the type is no Llama's either: the error is that of the reader.
  if (type === "llama" || type === undefined) return loadLlama(directory);
  throw new FormatError(`${directory}/config.json: model_type is ${show(type)}; supported are "llama" and "gpt2".`);
}

/** config.json of a folder; what is no folder here is told apart. */
function readConfig(where: string, directory: string): unknown {
  if (typeof directory !== "string")
    throw new ArgumentError(`${where}: directory must be the path of a folder; got ${show(directory)}.`);
  const path = `${directory}/config.json`;
  if (/^https?:/i.test(directory)) {
    throw new ArgumentError(
      `${where}: ${directory} is a web address, and ${where} reads a folder on disk or in io.memoryFiles: use ` +
        `await models.fetchModel(url).`,
    );
  }
  if (
    (directory.startsWith("memory:") || !exists(path)) &&
    exists(`${directory}/adapter_config.json`) &&
    !exists(path)
  ) {
    throw new FileError(
      `cannot read ${path}: the folder holds a PEFT adapter, not a model. Load its base model and then the ` +
        `adapter: peft.LoraModel.fromPretrained(model, ${show(directory)}).`,
    );
  }
  if (!directory.startsWith("memory:") && !exists(path)) {
    if (/\.(safetensors|bin|pt|gguf|json)$/.test(directory) && exists(directory)) {
      throw new FileError(
        `cannot read ${path}: ${directory} is a file; name the folder that holds config.json and model.safetensors.`,
      );
    }
    if (/^[\w-][\w.-]*\/[\w.-]+$/.test(directory) && !exists(directory)) {
      throw new FileError(
        `cannot read ${path}: it does not exist. ${where} reads a local folder; if ${directory} is a model on the ` +
          `Hugging Face hub, download it ` +
          `(hf download ${directory} --local-dir ${directory.split("/")[1]}) and name that folder, or use await ` +
          `models.fetchModel("https://huggingface.co/${directory}/resolve/main").`,
      );
    }
  }
  return readJson(path);
}

function loaded<M extends Module, C extends LlamaConfig | Gpt2Config>(
  path: string,
  config: C,
  make: () => M,
): LoadedModel<M, C> {
  let tokenizer: Tokenizer | undefined;
  let eosTokenIds: readonly number[] | undefined;
  return {
    model: allOrNothing(make),
    config,
    path,
    get tokenizer() {
      return (tokenizer ??= loadTokenizer(path));
    },
    get eosTokenIds() {
      return (eosTokenIds ??= specialTokens(path, config).eosTokenIds);
    },
  };
}

/** A dimension: the key of config.json that says it, and what it says. */
type Dimension = readonly [key: string, size: number];

/** Everything is compared with config.json before anything is built: a few bytes of it may name any counts. */
function* llamaShapes(c: LlamaConfig): Generator<readonly [string, readonly Dimension[]]> {
  const hidden: Dimension = ["hidden_size", c.hiddenSize];
  const vocab: Dimension = ["vocab_size", c.vocabSize];
  const mlp: Dimension = ["intermediate_size", c.intermediateSize];
  const heads: Dimension = ["num_attention_heads * head_dim", c.numAttentionHeads * c.headDim];
  const kv: Dimension = ["num_key_value_heads * head_dim", c.numKeyValueHeads * c.headDim];
  yield ["model.embed_tokens.weight", [vocab, hidden]];
  yield ["model.norm.weight", [hidden]];
  if (!c.tieWordEmbeddings) yield ["lm_head.weight", [vocab, hidden]];
  for (let i = 0; i < c.numHiddenLayers; i++) {
    const at = `model.layers.${i}.`;
    yield [`${at}self_attn.q_proj.weight`, [heads, hidden]];
    for (const name of ["k", "v"]) yield [`${at}self_attn.${name}_proj.weight`, [kv, hidden]];
    yield [`${at}self_attn.o_proj.weight`, [hidden, heads]];
    for (const name of ["gate", "up"]) yield [`${at}mlp.${name}_proj.weight`, [mlp, hidden]];
    yield [`${at}mlp.down_proj.weight`, [hidden, mlp]];
    for (const name of ["input", "post_attention"]) yield [`${at}${name}_layernorm.weight`, [hidden]];
  }
}

function* gpt2Shapes(c: Gpt2Config): Generator<readonly [string, readonly Dimension[]]> {
  const hidden: Dimension = ["n_embd", c.hiddenSize];
  const mlp: Dimension = ["n_inner (4 n_embd where it is left out)", c.intermediateSize];
  const vocab: Dimension = ["vocab_size", c.vocabSize];
  const qkv: Dimension = ["3 n_embd", 3 * c.hiddenSize];
  yield ["transformer.wte.weight", [vocab, hidden]];
  yield ["transformer.wpe.weight", [["n_positions", c.maxPositionEmbeddings], hidden]];
  if (!c.tieWordEmbeddings) yield ["lm_head.weight", [vocab, hidden]];
  const norm = function* (at: string): Generator<readonly [string, readonly Dimension[]]> {
    for (const name of ["weight", "bias"]) yield [`${at}.${name}`, [hidden]];
  };
  yield* norm("transformer.ln_f");
  for (let i = 0; i < c.numHiddenLayers; i++) {
    const at = `transformer.h.${i}.`;
    for (const name of ["ln_1", "ln_2"]) yield* norm(at + name);
    for (const [name, from, to] of [
      ["attn.c_attn", hidden, qkv],
      ["attn.c_proj", hidden, hidden],
      ["mlp.c_fc", hidden, mlp],
      ["mlp.c_proj", mlp, hidden],
    ] as const) {
      yield [`${at}${name}.weight`, [from, to]];
      yield [`${at}${name}.bias`, [to]];
    }
  }
}

const DTYPES = ["F32", "F16", "BF16", "F64"];
/** Tensors that a message names at most. */
const NAMED = 4;
/** Names that are compared at least. */
const LOOKED_AT = 64;

/** A folder's tensors under the names that the model has. */
class Weights {
  readonly #where: string;
  readonly #tensors = new Map<string, TensorView>();
  readonly #checkpoint: CheckpointViews;

  /**
   * @param prefix of all but the head; the file of a model without its head's class has names without it
   * @param ignored buffers that are computed anyway
   */
  constructor(directory: string, prefix: string, ignored: (key: string) => boolean) {
    this.#where = directory;
    this.#checkpoint = readCheckpoint(directory);
    for (const [name, view] of this.#checkpoint.tensors) {
      if (ignored(name)) {
        this.#checkpoint.astray.delete(name);
        continue;
      }
      const key = name.startsWith(prefix) || name.startsWith("lm_head.") ? name : prefix + name;
      if (this.#tensors.has(key))
        throw new FormatError(`${directory} has ${key} twice, with and without ${show(prefix)}.`);
      this.#tensors.set(key, view);
    }
    for (const name of [...this.#checkpoint.astray.keys()]) if (ignored(name)) this.#checkpoint.astray.delete(name);
  }

  /**
   * Whether table and head are one, as transformers 5 has it: where both are stored, if they are equal; where one is,
   * if config.json says so or the file's metadata names it by both names.
   */
  tie(table: string, head: string, tied: boolean): boolean {
    const a = this.#tensors.get(table);
    const b = this.#tensors.get(head);
    const { metadata } = this.#checkpoint;
    // safetensors.torch.save_model leaves out all names of a tensor but one, and says so.
    const alias = (!a && metadata.get(table) === head) || (!b && metadata.get(head) === table);
    if (!tied && !alias) return false;
    // An index may list a head that was left out of its shard, or a shard have one that is not listed.
    for (const name of [table, head, table.slice(table.indexOf(".") + 1)]) this.#checkpoint.astray.delete(name);
    if (a && b && !equal(a, b)) return false;
    const one = a ?? b;
    if (one) this.#tensors.set(table, one);
    this.#tensors.delete(head);
    return true;
  }

  /**
   * @param layers what every layer's keys begin with; [key of config.json, number of layers]
   * @throws FormatError naming the key of config.json and the tensor that disagree, or what is missing or too much
   */
  check(layers: string, [key, count]: Dimension, shapes: Iterable<readonly [string, readonly Dimension[]]>): void {
    const path = `${this.#where}/config.json`;
    refuseAstray(this.#where, this.#checkpoint);
    let found = 0;
    for (const name of this.#tensors.keys()) {
      const index = name.startsWith(layers) ? /^\d{1,9}(?=\.)/.exec(name.slice(layers.length)) : null;
      if (index) found = Math.max(found, Number(index[0]) + 1);
    }
    if (found !== count)
      throw new FormatError(
        `${path}: ${key} is ${count}, but the weights have ` +
          `${found < count ? `no ${layers}${found}.` : `${layers}${found - 1} too.`}`,
      );
    const missing: string[] = [];
    const expected = new Set<string>();
    for (const [name, dimensions] of shapes) {
      const view = this.#tensors.get(name);
      if (view) this.#checkShape(name, view, dimensions);
      else missing.push(name);
      expected.add(name);
      // The first layer's names are those of all.
      if (missing.length >= NAMED && expected.size > LOOKED_AT) break;
    }
    const unexpected = [...this.#tensors.keys()].filter(
      (name) => !expected.has(name) && !expected.has(name.replace(/\.\d+\./, ".0.")),
    );
    const some = (names: string[]): string =>
      names
        .slice(0, NAMED)
        .map((name) => name.slice(0, 100))
        .join(", ") || "nothing";
    if (missing.length + unexpected.length > 0) {
      const advice = missing.includes("lm_head.weight")
        ? " Where the embedding table is the head, config.json says tie_word_embeddings: true."
        : "";
      throw new FormatError(
        `${this.#where} does not fit its config.json: missing ${some(missing)}, unexpected ` +
          `${some(unexpected)}.${advice}`,
      );
    }
  }

  #checkShape(name: string, { shape, dtype }: TensorView, dimensions: readonly Dimension[]): void {
    if (!DTYPES.includes(dtype))
      throw new FormatError(
        `${this.#where}: ${name} has dtype ${dtype}; expected F32, F16, BF16 or F64. Weights that are quantised ` +
          `are not supported: take the model as it was.`,
      );
    if (shape.length !== dimensions.length)
      throw new FormatError(
        `${this.#where}: ${name} has shape ${show(shape)}; expected ${dimensions.length} dimensions.`,
      );
    const at = dimensions.findIndex(([, size], i) => shape[i] !== size);
    if (at >= 0)
      throw new FormatError(
        `${this.#where}/config.json: ${dimensions[at]![0]} is ${dimensions[at]![1]}, but ${name} has shape ` +
          `${show(shape)}.`,
      );
  }

  /** The model that make gives, with the tensors as its weights: nothing is drawn, and each is written once. */
  fill<M extends Module>(make: () => M): M {
    const model = skipInit(make);
    if (engine().isRehearsal) return model;
    for (const [key, parameter] of model.namedParameters()) {
      const view = this.#tensors.get(key)!;
      try {
        copyFloat32(view, parameter.data);
      } catch (cause) {
        if (!(cause instanceof FormatError)) throw cause;
        throw new FormatError(`${this.#where}: ${cause.message}`, { cause });
      }
    }
    return model;
  }
}

function equal(a: TensorView, b: TensorView): boolean {
  if (a.dtype !== b.dtype || a.bytes.length !== b.bytes.length) return false;
  for (let i = 0; i < a.bytes.length; i++) if (a.bytes[i] !== b.bytes[i]) return false;
  return true;
}

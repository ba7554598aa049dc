/** The weights of a model's folder: which tensor is which parameter, whether they fit config.json; loading them. */
import { readWeightViews, refuseAstray, type WeightViews } from "../io/huggingface.js";
import { show } from "../io/json.js";
import { copyFloat32, type TensorView } from "../io/safetensors.js";
import type { Module } from "../nn/module.js";
import { skipInit } from "../nn/skip_init.js";
import { engine } from "../runtime/engine.js";
import { FormatError } from "../runtime/errors.js";
import { setBfloat16 } from "../tensor/bfloat16.js";
import type { CausalLM } from "./causal_lm.js";
import type { Dimension, Family, FamilyConfig } from "./family.js";

const DTYPES = ["F32", "F16", "BF16", "F64"];
/** Tensors that one message names at most. */
const NAMED = 4;
/** Expected names that are compared before a list of missing ones may end the comparison. */
const LOOKED_AT = 64;

/** A folder's tensors under the keys that the model has. */
export class Weights<Config extends FamilyConfig> {
  readonly #where: string;
  readonly #family: Family<Config, CausalLM>;
  readonly #tensors = new Map<string, TensorView>();
  readonly #files: WeightViews;

  /** @throws FileError, FormatError, also where a tensor is there under two names */
  constructor(directory: string, family: Family<Config, CausalLM>) {
    const { prefix, head } = family;
    const ofHead = head.slice(0, head.lastIndexOf(".") + 1);
    this.#where = directory;
    this.#family = family;
    this.#files = readWeightViews(directory);
    for (const [name, view] of this.#files.tensors) {
      if (family.isBuffer(name)) {
        this.#files.astray.delete(name);
        continue;
      }
      const key = name.startsWith(prefix) || name.startsWith(ofHead) ? name : prefix + name;
      if (this.#tensors.has(key))
        throw new FormatError(`${directory} has ${key} twice, with and without ${show(prefix)}.`);
      this.#tensors.set(key, view);
    }
    for (const name of [...this.#files.astray.keys()]) if (family.isBuffer(name)) this.#files.astray.delete(name);
  }

  /**
   * Whether table and head are one, as transformers 5 has it: where both are stored, if they are equal; where one is,
   * if config.json says so or the file's metadata names it by both names.
   * @param tied what config.json says
   */
  tie(tied: boolean): boolean {
    const { table, head, prefix } = this.#family;
    const a = this.#tensors.get(table);
    const b = this.#tensors.get(head);
    const { metadata } = this.#files;
    // safetensors.torch.save_model leaves out all names of a tensor but one, and says so.
    const alias = (!a && metadata.get(table) === head) || (!b && metadata.get(head) === table);
    if (!tied && !alias) return false;
    // An index may list a head that was left out of its shard, or a shard have one that is not listed.
    for (const name of [table, head, table.slice(prefix.length)]) this.#files.astray.delete(name);
    if (a && b && !equal(a, b)) return false;
    const one = a ?? b;
    if (one) this.#tensors.set(table, one);
    this.#tensors.delete(head);
    return true;
  }

  /**
   * Compares everything with config.json before anything is built: a few bytes of it may name any counts.
   * @throws FormatError naming the key of config.json and the tensor that disagree, or what is missing or too much
   */
  check(config: Config): void {
    const { head, layers, layerCount } = this.#family;
    const count = config.numHiddenLayers;
    const path = `${this.#where}/config.json`;
    refuseAstray(this.#where, this.#files);
    let found = 0;
    for (const name of this.#tensors.keys()) {
      const index = name.startsWith(layers) ? /^\d{1,9}(?=\.)/.exec(name.slice(layers.length)) : null;
      if (index) found = Math.max(found, Number(index[0]) + 1);
    }
    if (found !== count)
      throw new FormatError(
        `${path}: ${layerCount} is ${count}, but the weights have ` +
          `${found < count ? `no ${layers}${found}.` : `${layers}${found - 1} too.`}`,
      );
    const missing: string[] = [];
    const expected = new Set<string>();
    for (const [name, dimensions] of this.#family.shapes(config)) {
      const view = this.#tensors.get(name);
      if (view) this.#checkShape(name, view, dimensions);
      else missing.push(name);
      expected.add(name);
      // All layers have the names of the first, so what is missing there is the same for the rest.
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
      const advice = missing.includes(head)
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

  /** The module that make gives, with the tensors as its weights: nothing is drawn, and each is written once. */
  fill<M extends Module>(make: () => M): M {
    const model = skipInit(make);
    if (engine().isRehearsal) return model;
    for (const [key, parameter] of model.namedParameters()) {
      const view = this.#tensors.get(key)!;
      try {
        if (view.dtype === "BF16") setBfloat16(parameter, view.bytes);
        else copyFloat32(view, parameter.data);
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

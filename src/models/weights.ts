/** The weights of a model's folder, by their headers: which tensor is which parameter, whether they fit config.json. */
import { refuseAstray, type PlacedTensor, type WeightIndex } from "../io/huggingface.js";
import { show } from "../io/json.js";
import * as init from "../nn/init.js";
import type { Module, Parameter } from "../nn/module.js";
import { skipInit } from "../nn/skip_init.js";
import { ArgumentError, FormatError, WasmLoraError } from "../runtime/errors.js";
import { rehearse } from "../runtime/rehearsal.js";
import type { QuantizedType } from "../tensor/blocks.js";
import { fits, isBlocks, isHalf, type WeightDType } from "../tensor/dtype.js";
import type { Labels } from "./parts/classification.js";
import type { Family, FamilyConfig, Head, HeadOf, Size } from "./parts/family.js";
import { ofFirstLayers } from "./parts/layer_types.js";
import { dtypeOf, type FileDType, fileDType, type StoredAs } from "./parts/stored.js";
import type { Destination, Destinations } from "./feed.js";
import { isMatrix, materialize } from "./materialize.js";
import { checkNf4, findNf4, Nf4Join, type Nf4Parts } from "./nf4.js";

/** Tensors that one message names at most. */
const NAMED = 4;
/** Layers that are compared first; then so many times as many, and so on. */
const FIRST_LAYERS = 8;

/** A folder's tensors under the keys that the model has. @internal */
export class Weights<Config extends FamilyConfig> {
  readonly #where: string;
  readonly #config: string;
  readonly #family: Family<Config>;
  readonly #head: HeadOf<Config>;
  /** What the keys of the base model begin with under this head. */
  readonly #prefix: string;
  /** Whether the head is another than the folder's own, which is left out then; this one may be drawn. */
  readonly #isOther: boolean;
  readonly #tensors = new Map<string, PlacedTensor>();
  readonly #index: WeightIndex;
  /** What belongs to those that are bitsandbytes' NF4. */
  readonly #nf4 = new Map<PlacedTensor, Nf4Parts>();

  /** @throws FormatError where a tensor is there under two names */
  constructor(directory: string, family: Family<Config>, head: Head, isOther: boolean, index: WeightIndex) {
    this.#where = directory;
    this.#config = index.config ?? `${directory}/config.json`;
    this.#family = family;
    this.#head = family.heads[head]!;
    this.#prefix = head === "none" ? "" : family.prefix;
    this.#isOther = isOther;
    this.#index = index;
    const { tensors, astray } = index;
    const nf4 = findNf4(tensors);
    for (const name of [...tensors.keys(), ...astray.keys()]) {
      const today = family.isBuffer(name) ? null : family.rename ? family.rename(name) : name;
      if (today === null) {
        astray.delete(name);
        continue;
      }
      const view = tensors.get(name);
      if (!view || nf4.parts.has(name)) continue;
      const parts = nf4.weights.get(name);
      if (parts) this.#nf4.set(view, parts);
      const key = this.#keyOf(today);
      if (this.#head.unused?.some((start) => key.startsWith(start))) continue;
      if (this.#tensors.has(key) && this.#tensors.get(key) !== view)
        throw new FormatError(`${directory} has ${onOneLine(key)} twice, with and without ${show(family.prefix)}.`);
      this.#tensors.set(key, view);
    }
  }

  /** The model's key of what a file may name with or without the base model's prefix. */
  #keyOf(name: string): string {
    const { prefix, headKeys } = this.#family;
    if (headKeys.some((start) => name.startsWith(start))) return name;
    return this.#prefix + (name.startsWith(prefix) ? name.slice(prefix.length) : name);
  }

  /**
   * Whether table and head are one, as transformers 5 has it: where one is stored, if config.json says so or the file's
   * metadata names it by both names. Where both are, `twins` says what is to be compared.
   * @param tied what config.json says
   */
  tie(tied: boolean): boolean {
    if (!this.#family.tied) return tied;
    const { table, head } = this.#family.tied;
    const key = this.#keyOf(table);
    const a = this.#tensors.get(key);
    const b = this.#tensors.get(head);
    const { metadata, astray } = this.#index;
    // safetensors.torch.save_model leaves out all names of a tensor but one, and says so.
    const alias = (!a && metadata.get(table) === head) || (!b && metadata.get(head) === table);
    if (!tied && !alias) return false;
    // An index may list a head that was left out of its shard, or a shard have one that is not listed.
    for (const name of [table, head, table.slice(this.#family.prefix.length)]) astray.delete(name);
    if (a && b) return false;
    const one = a ?? b;
    if (one) this.#tensors.set(key, one);
    this.#tensors.delete(head);
    return true;
  }

  /** Table and head, if both are stored and wanted: they are one if config.json says so and they are equal. */
  twins(): readonly [PlacedTensor, PlacedTensor] | undefined {
    if (!this.#family.tied) return undefined;
    const table = this.#tensors.get(this.#keyOf(this.#family.tied.table));
    const head = this.#tensors.get(this.#family.tied.head);
    // Equal codes say nothing without their scales, and nobody stores such a table twice.
    const isOfCodes = [table, head].some((one) => one && this.#nf4.has(one));
    return table && head && !isOfCodes ? [table, head] : undefined;
  }

  /**
   * Compares everything with config.json before anything is built: a few bytes of it may name any counts.
   * @throws FormatError naming the key of config.json and the tensor that disagree, or what is missing or too much
   */
  check(config: Config): void {
    refuseAstray(this.#where, this.#index);
    const { keys, std } = this.#head;
    const ofHead = (name: string): boolean => keys.some((start) => name.startsWith(start));
    const isDrawn = (name: string): boolean => this.#isOther && std !== undefined && ofHead(name);
    if (this.#isOther) {
      for (const name of [...this.#tensors.keys()])
        if (this.#family.headKeys.some((start) => name.startsWith(start)) && !ofHead(name)) this.#tensors.delete(name);
    }
    const layers = config.numHiddenLayers;
    this.#checkLayers(layers);
    let expected: ReadonlyMap<string, readonly number[]>;
    let missing: string[];
    let count = FIRST_LAYERS;
    // A file may name any number of layers and have next to nothing of each: what the first lack is said at once.
    for (; ; count *= FIRST_LAYERS) {
      expected = this.#rehearse(ofFirstLayers(config, Math.min(count, layers)));
      missing = [];
      for (const [name, shape] of expected) {
        const view = this.#tensors.get(name);
        if (view) this.#checkShape(name, view, shape, config);
        else if (!isDrawn(name)) missing.push(name);
      }
      if (missing.length > 0 || count >= layers) break;
    }
    const unexpected = [...this.#tensors.keys()].filter(
      (name) => !expected.has(name) && !((this.#layerOf(name) ?? 0) >= count),
    );
    const some = (names: string[]): string =>
      names
        .slice(0, NAMED)
        .map((name) => onOneLine(name.slice(0, 100)))
        .join(", ") || "nothing";
    if (missing.length + unexpected.length > 0) {
      const advice = missing.includes(this.#family.tied?.head ?? "")
        ? " Where the embedding table is the head, config.json says tie_word_embeddings: true."
        : "";
      throw new FormatError(
        `${this.#where} does not fit its ${this.#index.config === undefined ? "config.json" : "metadata"}: missing ` +
          `${some(missing)}, unexpected ${some(unexpected)}.${advice}`,
      );
    }
  }

  /** What the model itself says that it has: it is made in a rehearsal, where it takes no memory. */
  #rehearse(config: Config): Map<string, readonly number[]> {
    const shapesOf = (model: Module): Map<string, readonly number[]> =>
      new Map(Array.from(model.namedParameters(), ([name, { shape }]) => [name, shape]));
    try {
      return rehearse(() => shapesOf(this.#create(config)), Infinity);
    } catch (cause) {
      if (!(cause instanceof WasmLoraError)) throw cause;
      throw new FormatError(`${this.#config}: no model has such sizes: ${cause.message}`, { cause });
    }
  }

  /** Of which layer a tensor is. */
  #layerOf(name: string): number | undefined {
    const start = this.#prefix + this.#family.layers;
    const index = name.startsWith(start) ? /^\d{1,9}(?=\.)/.exec(name.slice(start.length)) : null;
    return index ? Number(index[0]) : undefined;
  }

  /** As many layers as config.json says, so that the rehearsal is of no more than the file has. */
  #checkLayers(count: number): void {
    const start = this.#prefix + this.#family.layers;
    const found = new Set<number>();
    for (const name of this.#tensors.keys()) {
      const layer = this.#layerOf(name);
      if (layer !== undefined) found.add(layer);
    }
    const say = (what: string): never => {
      throw new FormatError(`${this.#config}: ${this.#family.layerCount} is ${count}, but the weights have ${what}.`);
    };
    let last = -1;
    for (const layer of found) last = Math.max(last, layer);
    if (last >= count) say(`${start}${last} too`);
    let layer = 0;
    while (found.has(layer)) layer++;
    if (layer < count) say(`no ${start}${layer}`);
  }

  #checkShape(name: string, view: PlacedTensor, expected: readonly number[], config: Config): void {
    const { shape, dtype } = view;
    const parts = this.#nf4.get(view);
    if (parts) {
      checkNf4(this.#where, name, view, parts, expected);
      return;
    }
    if (fileDType(dtype) === undefined)
      throw new FormatError(
        `${this.#where}: ${name} has dtype ${dtype}; expected F32, F16, BF16 or F64, ggml's blocks or NF4. Weights ` +
          `that are quantised otherwise are not supported: take the model as it was.`,
      );
    if (shape.length !== expected.length)
      throw new FormatError(
        `${this.#where}: ${name} has shape ${show(shape)}; expected ${expected.length} dimensions.`,
      );
    const at = expected.findIndex((size, i) => shape[i] !== size);
    if (at < 0) return;
    const isHeads = this.#head.keys.some((start) => name.startsWith(start));
    const { id2label } = config as Config & Partial<Labels>;
    const sizes: readonly Size[] =
      isHeads && id2label?.length === expected[at]
        ? [["the number of classes (id2label, num_labels)", id2label.length]]
        : this.#family.sizes(config);
    const keys = sizes.flatMap(([key, size]) => (size === expected[at] ? [key] : []));
    throw new FormatError(
      keys.length > 0
        ? `${this.#config}: ${keys.join(" or ")} is ${expected[at]}, but ${name} has shape ${show(shape)}.`
        : `${this.#where}: ${name} has shape ${show(shape)}; by its config.json it is ${show([...expected])}.`,
    );
  }

  /** The module without its values. */
  #create(config: Config): Module {
    const has = (start: string): boolean => [...this.#tensors.keys()].some((name) => name.startsWith(start));
    return skipInit(() => this.#head.create(config, has));
  }

  /**
   * What matrices are stored as in memory: blocks as the files have them; others as `quantize` says where their rows
   * are whole blocks of that, or of 16 bits where all of them are in the files. A matrix that its file has transposed
   * has no blocks along its own rows.
   * @throws ArgumentError if there is nothing to quantise
   */
  storedAs(quantize: QuantizedType | undefined): StoredAs {
    // Codes lie in any shape; by `check` they are a matrix's.
    const matrices = [...this.#tensors].filter(([, stored]) => isMatrix(stored) || this.#nf4.has(stored));
    const kinds = new Set<WeightDType>();
    for (const [, stored] of matrices) {
      const dtype = this.#dtypeOf(stored);
      if (dtype === "float64" || !isBlocks(dtype)) kinds.add(dtype !== "float64" && isHalf(dtype) ? dtype : "float32");
    }
    const [plain] = kinds.size === 1 ? kinds : ["float32" as const];
    let quantised = 0;
    const each = matrices.map(([key, stored]): [string, WeightDType] => {
      const { shape, arrangement } = stored;
      const own = this.#dtypeOf(stored);
      const isTransposed = arrangement?.transposed ?? false;
      if (own !== "float64" && isBlocks(own)) return [key, isTransposed ? "float32" : own];
      const isQuantised = quantize !== undefined && !isTransposed && fits(shape, quantize);
      quantised += Number(isQuantised);
      return [key, isQuantised ? quantize : plain!];
    });
    if (quantize !== undefined && quantised === 0)
      throw new ArgumentError(
        `loadModel: quantize ${show(quantize)} finds no matrix to quantise: those of ${this.#where} are in blocks ` +
          `already, or their rows are no whole blocks of ${quantize}. Leave it out.`,
      );
    const [, one] = each.find(([, dtype]) => dtype !== "float32") ?? ["", "float32" as const];
    const isOne = matrices.every(
      ([key, stored], i) => (this.#nf4.has(stored) ? one : dtypeOf(key, stored.shape, one)) === each[i]![1],
    );
    return isOne ? one : Object.fromEntries(each);
  }

  #dtypeOf(stored: PlacedTensor): FileDType {
    return this.#nf4.has(stored) ? "nf4" : fileDType(stored.dtype)!;
  }

  /** The module, whose weights are to be written. */
  make(config: Config): Module {
    const model = this.#create(config);
    // A new head is drawn as float32.
    materialize(model, config.dtype, (key) => this.#tensors.has(key));
    return model;
  }

  /** What each tensor becomes. One that becomes nothing, as a head that is the table, is left out. */
  destinations(model: Module): Destinations {
    const destinations = new Map<PlacedTensor, Destination>();
    for (const [key, parameter] of model.namedParameters()) {
      const stored = this.#tensors.get(key);
      if (!stored) continue;
      const parts = this.#nf4.get(stored);
      if (!parts) {
        destinations.set(stored, parameter);
        continue;
      }
      const join = new Nf4Join(stored.name, parameter, stored, parts);
      destinations.set(stored, join.codes());
      for (const [part, tensor] of parts) destinations.set(tensor, join.part(part));
    }
    return destinations;
  }

  /** Draws what the weights lack: a new head. */
  drawMissing(model: Module, config: Config): void {
    for (const [key, parameter] of model.namedParameters())
      if (!this.#tensors.has(key)) drawHead(key, parameter, this.#head.std!(config));
  }
}

/** A name that a file may have put line breaks in, as JSON has it between its quotes. */
function onOneLine(name: string): string {
  return JSON.stringify(name).slice(1, -1);
}

/** Initial values as transformers': matrices N(0, std²), biases zeros, weights of norms ones. */
function drawHead(key: string, parameter: Parameter, std: number): void {
  if (parameter.rank > 1) init.normal_(parameter, 0, std);
  else if (key.endsWith(".bias")) init.zeros_(parameter);
  else init.ones_(parameter);
}

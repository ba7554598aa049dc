/** What decoders have in common: the way through the layers, and a head that may be the embedding table. */
import {
  attentionRanges,
  crossEntropy,
  linear,
  linearCrossEntropy,
  narrow,
  scale,
  tanh,
  type RopeTable,
} from "../../autograd/ops/index.js";
import { selectRows } from "../../autograd/ops/select_rows.js";
import { noGrad } from "../../autograd/tape.js";
import { IGNORED } from "../../data/labels.js";
import { extentOf } from "../../nn/extent.js";
import * as init from "../../nn/init.js";
import { Linear, type Layer } from "../../nn/layers.js";
import { Module, type Parameter } from "../../nn/module.js";
import { isInitSkipped } from "../../nn/skip_init.js";
import { adopt } from "../../random/seed.js";
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import { checkOptions } from "../../runtime/options.js";
import { className } from "../../runtime/shown.js";
import { checkInteger, checkTensor } from "../../tensor/check.js";
import { allOrNothing, graphScope, scope } from "../../tensor/scope.js";
import { Tensor, tensor } from "../../tensor/tensor.js";
import { KeyValueCache, type CacheShape } from "./cache.js";
import type { CausalLM, ForwardOptions, LossOptions } from "./causal_lm.js";
import type { FamilyConfig } from "./family.js";
import { LayeredModel } from "./layered_model.js";
import type { RotaryEmbedding } from "./rope.js";
import { throughLayers } from "./through_layers.js";

/** What every decoder's configuration says. */
export interface DecoderConfig extends FamilyConfig {
  /** Number of token ids. */
  vocabSize: number;
  /** Whether the embedding table is the head too. */
  tieWordEmbeddings: boolean;
  /** Begins a text; null: the model has none. */
  bosTokenId: number | null;
  /** Ends a text, each of several; null: the model has none. */
  eosTokenId: number | readonly number[] | null;
  /** Width of the residual stream. */
  hiddenSize: number;
  /** Heads of queries. */
  numAttentionHeads: number;
  /** Longest sequence. */
  maxPositionEmbeddings: number;
}

/** An embedding table: an nn.Embedding, or what wraps it. */
export type Table = Layer & {
  /** [rows, width] */
  readonly weight: Parameter;
};

/** What the layers of one forward share. */
export interface Pass {
  /** int32 [batch, steps] */
  readonly positions: Tensor;
  /** int32 [batch, steps, 2]: the keys that each token sees, for each window that layers have; null: without one. */
  readonly ranges: ReadonlyMap<number | null, Tensor>;
  /** Angles of positions, of each of the model's rotary embeddings. */
  readonly tables: ReadonlyMap<RotaryEmbedding, RopeTable>;
  /** Keys and values of the tokens before them; undefined: there is none. */
  readonly cache: KeyValueCache | undefined;
}

/** A layer of a decoder. */
export interface Block extends Module {
  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, pass: Pass): Tensor;
}

/** Options of a model without a head. */
const STATES = ["cache", "attentionMask", "positionIds"];

/** A decoder without its head: token ids to the states of its last layer. */
export abstract class DecoderModel<C extends DecoderConfig = DecoderConfig> extends LayeredModel<C> {
  /** @internal */ static override readonly className: string = "DecoderModel";

  /** The table of token embeddings (transformers' get_input_embeddings). */
  abstract get table(): Table;
  /** First layer to last. @internal */
  abstract get blocks(): readonly Block[];
  /** After the last layer. @internal */
  abstract get lastNorm(): Layer;
  /** Heads of keys and values: those of queries, which share the width of the residual stream evenly. @internal */
  get cachedHeads(): Pick<CacheShape, "numKeyValueHeads" | "headDim"> {
    const { numAttentionHeads, hiddenSize } = this.config;
    return { numKeyValueHeads: numAttentionHeads, headDim: hiddenSize / numAttentionHeads };
  }
  /**
   * A layer of the kind of layer `source`, whose place in the cache is `index`: what layer_replication asks for. Left
   * out by families that do not have it. @internal
   */
  newLayer?(source: number, index: number): Block;
  /** What the first layer gets. @internal */
  abstract embed(ids: Tensor, pass: Pass): Tensor;

  /** The windows that layers have; null: a layer without one. @internal */
  get windows(): readonly (number | null)[] {
    return [null];
  }

  /** The rotary embeddings that layers ask for their angles. @internal */
  get rotaries(): readonly RotaryEmbedding[] {
    return [];
  }

  /** What the logits are multiplied by. @internal */
  get logitsScale(): number {
    return 1;
  }

  /** What the logits are bounded by: softcap * tanh(logits / softcap); null: nothing. @internal */
  get logitsSoftcap(): number | null {
    return null;
  }

  /**
   * @param ids int32 [batch, steps]
   * @returns [batch, steps, hiddenSize]
   * @throws ArgumentError for an id beyond the vocabulary; ShapeError beyond maxPositionEmbeddings
   */
  forward(ids: Tensor, options?: Omit<ForwardOptions, "logitsToKeep">): Tensor {
    const where = `${className(this)}.forward`;
    checkOptions(where, options, STATES);
    const x = this.states(where, ids, options);
    if (options?.cache) options.cache.length += ids.shape[1]!;
    return x;
  }

  /** The states of the last layer. Who calls it moves the cache on, when all else is done. @internal */
  states(where: string, ids: Tensor, options: Omit<ForwardOptions, "logitsToKeep"> = {}): Tensor {
    const { cache, attentionMask, positionIds } = options;
    checkTensor(where, "ids", ids, "int32", [null, null]);
    const [batch, steps] = ids.shape as [number, number];
    const keys = (cache?.length ?? 0) + steps;
    if (attentionMask) checkTensor(where, "attentionMask", attentionMask, "int32", [batch, keys]);
    if (positionIds) checkTensor(where, "positionIds", positionIds, "int32", ids.shape);
    const positions = positionIds ?? positionsOf(ids, keys, attentionMask);
    const length = attentionMask || positionIds ? positions.indices.reduce((a, b) => Math.max(a, b + 1), 1) : keys;
    const { maxPositionEmbeddings } = this.config;
    if (length > maxPositionEmbeddings) {
      throw new ShapeError(
        `${where}: positions up to ${length} are needed; the model has maxPositionEmbeddings = ` +
          `${maxPositionEmbeddings}.`,
      );
    }
    const ranges = new Map(
      this.windows.map((window) => [window, attentionRanges({ batch, queries: steps, keys, window, attentionMask })]),
    );
    const tables = new Map(this.rotaries.map((rotary) => [rotary, rotary.table(length)]));
    const pass = { positions, ranges, tables, cache };
    const isCheckpointing = this.gradientCheckpointing && !cache;
    return this.lastNorm.forward(
      throughLayers(this.blocks, this.embed(ids, pass), isCheckpointing, (block, x) => block.forward(x, pass)),
    );
  }

  override getLayers(): readonly Block[] {
    return this.blocks;
  }

  /** An empty cache for `forward`. */
  newCache(): KeyValueCache {
    const { numHiddenLayers, maxPositionEmbeddings } = this.config;
    const kinds = this.rotaries.map(({ parameters }) => parameters);
    const renewAt = kinds.find((kind) => kind.ropeType === "longrope")?.originalMaxPositionEmbeddings;
    return new KeyValueCache({ numHiddenLayers, maxPositionEmbeddings, ...this.cachedHeads, renewAt });
  }

  /** Disposes all parameters and the tables of angles. */
  override dispose(): void {
    super.dispose();
    for (const rotary of this.rotaries) rotary.dispose();
  }

  /** Draws a parameter of this model or of its head, as transformers does. @internal */
  initParameter(name: string, parameter: Parameter): void {
    if (name.endsWith(".bias")) init.zeros_(parameter);
    else if (parameter.rank === 2) init.normal_(parameter, 0, 0.02);
  }
}

/**
 * Positions of the last tokens of `keys`, int32 of ids' shape: counted from 0 at the start of each text of a row. What
 * is no text stands at 0.
 */
function positionsOf(ids: Tensor, keys: number, attentionMask: Tensor | undefined): Tensor {
  const positions = new Tensor(ids.shape, "int32");
  const to = positions.indices;
  const texts = attentionMask?.indices;
  const steps = ids.shape[1]!;
  const first = keys - steps;
  // No loop over rows: in a rehearsal there are more than anybody would wait for, and no values.
  for (let i = 0; i < to.length; i++) {
    const row = Math.floor(i / steps) * keys;
    const key = first + (i % steps);
    if (!texts) to[i] = key;
    else if (texts[row + key] === 0) to[i] = 0;
    else if (i % steps > 0 && texts[row + key] === texts[row + key - 1]) to[i] = to[i - 1]! + 1;
    else {
      let start = key;
      while (start > 0 && texts[row + start - 1] === texts[row + key]) start--;
      to[i] = key - start;
    }
  }
  return positions;
}

/** The places of the targets that are scored; null: all are, as in a rehearsal of more than have values there. */
function scoredPlaces(targets: Tensor): number[] | null {
  const { indices } = targets;
  const places: number[] = [];
  for (const [place, target] of indices.entries()) if (target !== IGNORED) places.push(place);
  return places.length === indices.length ? null : places;
}

/** Rows of logits that are there at a time where the likeliest tokens are counted. */
const HIT_ROWS = 128;

/** What `DecoderForCausalLM.measure` gives. @internal */
export interface Measured {
  /** The mean loss of the scored targets. */
  loss: number;
  /** How many of them are the likeliest. */
  correct: number;
}

function countLikeliest({ data, shape }: Tensor, targets: readonly number[]): number {
  const classes = shape.at(-1)!;
  return targets.reduce((n, target, row) => {
    const logits = data.subarray(row * classes, (row + 1) * classes);
    const value = logits[target]!;
    // Of what is not a number nothing is the likeliest.
    return n + (logits.every((other, id) => other < value || (other === value && id >= target)) ? 1 : 0);
  }, 0);
}

/** A base model with initial weights. @internal */
export function initialised<M extends DecoderModel>(model: M): M {
  for (const [name, parameter] of model.namedParameters()) model.initParameter(name, parameter);
  return model;
}

/** How a model's parts are called: the properties of transformers' class. */
export interface Names {
  /** The base model. */
  readonly base: string;
  /** The head. */
  readonly head: string;
  /** The key here of what adapters' files may call otherwise. Default: the same. */
  readonly rename?: ((key: string) => string) | undefined;
}

/**
 * A decoder with its language-model head, each under the name that it has in transformers: `model` and `lmHead` in most
 * families.
 *
 * Source: transformers, its classes ...ForCausalLM.
 */
export class DecoderForCausalLM<C extends DecoderConfig = DecoderConfig> extends Module implements CausalLM {
  /** @internal */ static override readonly className: string = "DecoderForCausalLM";
  /** Its sizes. tieWordEmbeddings becomes false where adapters that are merged part the head from the table. */
  config: Readonly<C>;
  readonly #names: Names;

  constructor(
    config: Readonly<C>,
    make: (config: Readonly<C>) => DecoderModel<C>,
    names: Names = { base: "model", head: "lmHead" },
  ) {
    super();
    // What is made new is float32, whatever the model had whose configuration this is.
    this.config = config.dtype && !isInitSkipped() ? { ...config, dtype: "float32" } : config;
    this.#names = names;
    allOrNothing(() => {
      const base = make(config);
      this.#set(names.base, base);
      this.#head = config.tieWordEmbeddings ? null : new Linear(config.hiddenSize, config.vocabSize, { bias: false });
      for (const [name, parameter] of this.namedParameters()) base.initParameter(name, parameter);
    });
  }

  #set(name: string, part: Module | null): void {
    (this as Record<string, unknown>)[name] = part;
  }

  /** All but the head. */
  get base(): DecoderModel<C> {
    return (this as Record<string, unknown>)[this.#names.base] as DecoderModel<C>;
  }

  /**
   * null when tied: then the embedding table is the head. While adapters are on the model: a layer on the table's
   * weight.
   */
  get #head(): Layer | null {
    return (this as Record<string, unknown>)[this.#names.head] as Layer | null;
  }

  set #head(head: Layer | null) {
    this.#set(this.#names.head, head);
  }

  /**
   * Whether backward computes each layer's activations again, so that only its input is kept (Hugging Face:
   * gradient_checkpointing_enable()).
   */
  get gradientCheckpointing(): boolean {
    return this.base.gradientCheckpointing;
  }

  set gradientCheckpointing(wanted: boolean) {
    this.base.gradientCheckpointing = wanted;
  }

  /**
   * @param ids int32 [batch, steps]
   * @param options with a cache for one sequence, ids are its next tokens, and the cache takes them in; with
   * logitsToKeep, only the logits of so many last steps are computed (0, the default: of all)
   * @returns logits [batch, steps, vocabSize]
   * @throws ArgumentError for an id beyond the vocabulary; ShapeError beyond maxPositionEmbeddings
   */
  forward(ids: Tensor, options?: ForwardOptions): Tensor {
    const where = `${className(this)}.forward`;
    checkOptions(where, options, [...STATES, "logitsToKeep"]);
    const { logitsToKeep = 0, ...rest } = options ?? {};
    checkInteger(where, "logitsToKeep", logitsToKeep, 0);
    let x = this.base.states(where, ids, rest);
    const steps = x.shape[1]!;
    if (logitsToKeep > 0 && logitsToKeep < steps) x = narrow(x, 1, steps - logitsToKeep, logitsToKeep);
    const logits = this.#logits(this.#scaled(x));
    if (rest.cache) rest.cache.length += steps;
    return logits;
  }

  /**
   * Mean cross-entropy, of shape [], of predicting `targets` (int32 [batch, steps]; -100 is not scored) from `ids`. The
   * head computes the rows of scored targets alone, and a plain one's logits are never there all at once: they can be
   * larger than all else. Options and errors as `forward`; ArgumentError, too, if no target is scored and
   * numItemsInBatch does not say how many are elsewhere.
   */
  loss(ids: Tensor, targets: Tensor, options?: LossOptions): Tensor {
    const where = `${className(this)}.loss`;
    checkOptions(where, options, [...STATES.slice(1), "numItemsInBatch"]);
    const { numItemsInBatch, ...rest } = options ?? {};
    checkTensor(where, "ids", ids, "int32", [null, null]);
    checkTensor(where, "targets", targets, "int32", ids.shape);
    if (numItemsInBatch !== undefined) checkInteger(where, "numItemsInBatch", numItemsInBatch, 1);
    const scored = scoredPlaces(targets);
    if (scored?.length === 0 && numItemsInBatch === undefined)
      throw new ArgumentError(
        `${where}: targets has no scored target: all are ${IGNORED}. Give batches that score something, or ` +
          `numItemsInBatch, the scored targets of all batches of the step.`,
      );
    return this.#lossAt(where, this.base.states(where, ids, rest), targets, scored, numItemsInBatch);
  }

  /**
   * `loss` of at least one scored target, and how many of them are the likeliest token; of equal logits, that of the
   * lower id. Without gradients.
   * @internal
   */
  measure(ids: Tensor, targets: Tensor, options?: Omit<LossOptions, "numItemsInBatch">): Measured {
    const where = `${className(this)}.measure`;
    return noGrad(() =>
      scope(() => {
        const x = this.base.states(where, ids, options);
        const places = scoredPlaces(targets);
        const loss = this.#lossAt(where, x, targets, places, undefined).item();
        const all = places ?? Array.from(targets.indices, (_, place) => place);
        let correct = 0;
        for (let first = 0; first < all.length; first += HIT_ROWS) {
          const rows = all.slice(first, first + HIT_ROWS);
          const own = rows.map((place) => targets.indices[place]!);
          correct += scope(() => {
            const logits = this.#atHead(where, targets, rows, () => this.#logits(this.#scaled(selectRows(x, rows))));
            return countLikeliest(logits, own);
          });
        }
        return { loss, correct };
      }),
    );
  }

  /** @param scored their places; null: all */
  #lossAt(
    where: string,
    x: Tensor,
    targets: Tensor,
    scored: readonly number[] | null,
    numItemsInBatch: number | undefined,
  ): Tensor {
    if (scored === null) return this.#lossOf(x, targets, numItemsInBatch);
    // Nothing but its own row reaches a row of logits, and rows that are not scored have no gradient: to add their
    // zeros changes no bit.
    const own = tensor(Int32Array.from(scored, (place) => targets.indices[place]!));
    return this.#atHead(where, targets, scored, () => this.#lossOf(selectRows(x, scored), own, numItemsInBatch));
  }

  /** Runs the head on places of a batch: each has the adapters of its row. */
  #atHead<T>(where: string, { shape: [batch, steps] }: Tensor, places: readonly number[], run: () => T): T {
    const within = extentOf(where, this.#head ?? this.base.table);
    return within(
      run,
      places.map((place) => Math.floor(place / steps!)),
      batch,
    );
  }

  #lossOf(states: Tensor, targets: Tensor, numItemsInBatch: number | undefined): Tensor {
    const x = this.#scaled(states);
    const head = this.#head;
    if (this.base.logitsSoftcap === null) {
      if (head === null)
        return linearCrossEntropy(x, this.base.table.weight, null, targets, undefined, IGNORED, numItemsInBatch);
      // Exactly this class: what extends or wraps it adds to its product.
      if (head.constructor === Linear) {
        const { weight, bias } = head as Linear;
        return linearCrossEntropy(x, weight, bias, targets, undefined, IGNORED, numItemsInBatch);
      }
    }
    return crossEntropy(this.#logits(x), targets, IGNORED, numItemsInBatch);
  }

  /** What the head gets: it has no bias, so scaling its input scales the logits, which are larger. */
  #scaled(x: Tensor): Tensor {
    const { logitsScale } = this.base;
    return logitsScale === 1 ? x : scale(x, logitsScale);
  }

  #logits(x: Tensor): Tensor {
    const head = this.#head;
    const logits = head ? head.forward(x) : linear(x, this.base.table.weight);
    const softcap = this.base.logitsSoftcap;
    return softcap === null ? logits : graphScope(() => scale(tanh(scale(logits, 1 / softcap)), softcap));
  }

  /** An empty cache for `forward`. */
  newCache(): KeyValueCache {
    return this.base.newCache();
  }

  /** The key here of what an adapter's file may call otherwise. @internal */
  renameKey(key: string): string {
    return this.#names.rename?.(key) ?? key;
  }

  /** The table of token embeddings (transformers' get_input_embeddings). */
  getInputEmbeddings(): Module {
    return this.base.table;
  }

  /** The head; the embedding table where it is both (transformers' get_output_embeddings). */
  getOutputEmbeddings(): Module {
    return this.#head ?? this.base.table;
  }

  /** Gives a tied head a layer of its own, so that adapters can act on it apart from the table. @internal */
  showHead(): void {
    this.#head ??= tiedHead(this, this.base.table);
  }

  /** Takes that layer away again, unless an adapter has made its weight another than the table's. @internal */
  hideHead(): void {
    const head = this.#head;
    if (head?.constructor === Linear && (head as Linear).weight === this.base.table.weight) this.#head = null;
    if (this.#head && this.config.tieWordEmbeddings) this.config = { ...this.config, tieWordEmbeddings: false };
  }
}

/**
 * A head on the table's weight. While adapters are on a tied model, its head is such a layer, so that they can act on
 * table and head each for itself.
 */
function tiedHead(model: Module, table: Table): Linear {
  const { weight } = table;
  const [outFeatures, inFeatures] = weight.shape;
  // Made without its constructor, which would allocate and draw a weight of its own.
  const head = Object.assign(Object.create(Linear.prototype) as Linear, {
    training: model.training,
    inFeatures,
    outFeatures,
    fanInFanOut: false,
    weight,
    bias: null,
  });
  adopt(head, model);
  return head;
}

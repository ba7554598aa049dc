/** What a decoder keeps of earlier tokens while it generates. */
import { engine } from "../../runtime/engine.js";
import { ShapeError, StateError } from "../../runtime/errors.js";
import { checkInteger } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";

/** The sizes of a cache: part of a model's configuration. */
export interface CacheShape {
  /** Number of layers. */
  numHiddenLayers: number;
  /** Steps that the cache holds at most. */
  maxPositionEmbeddings: number;
  /** Heads of keys and values. */
  numKeyValueHeads: number;
  /** Values of a head. */
  headDim: number;
  /** Keys of a text of at most so many steps are of no use where it gets longer: its angles are others then. */
  renewAt?: number | undefined;
}

/** Keys and values of a layer. */
interface Pair {
  /** [batch, capacity, kvHeads, headDim]; the first `length` steps of a row count. */
  k: Tensor | null;
  /** In k's shape. */
  v: Tensor | null;
}

/** Frees what a cache that nobody holds any more had, where the engine tells of such. */
const forgotten =
  typeof FinalizationRegistry === "undefined" ? undefined : new FinalizationRegistry<readonly Pair[]>(free);

function free(layers: readonly Pair[]): void {
  for (const pair of layers) {
    pair.k?.dispose();
    pair.v?.dispose();
    pair.k = pair.v = null;
  }
}

/**
 * Keys and values of the tokens so far, of one sequence or of a batch. `model.newCache()` makes one of the model's
 * sizes; a model's `forward` fills it. Its memory follows the text: it doubles when it is full, and a step writes its
 * own rows alone. A layer with a sliding window keeps the rows behind its window, too. `dispose()` frees it; one that
 * is forgotten is freed when the engine's garbage collector finds it.
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * const cache = model.newCache();
 * noGrad(() => model.forward(tensor(new Int32Array([5, 6, 7]), [1, 3]), { cache }));
 * const logits = noGrad(() => model.forward(tensor(new Int32Array([8]), [1, 1]), { cache })); // [1, 1, 1024]
 * console.log(cache.length); // 4
 * cache.dispose();
 */
export class KeyValueCache {
  /** @internal */ static readonly className: string = "KeyValueCache";
  /** Steps so far. */
  length = 0;
  /** Steps that it may grow to: at first config's maxPositionEmbeddings. Who knows a text's end saves memory by it. */
  limit: number;
  readonly #layers: Pair[];

  constructor(
    /** Its sizes. */
    readonly config: CacheShape,
  ) {
    for (const size of ["numHiddenLayers", "maxPositionEmbeddings", "numKeyValueHeads", "headDim"] as const)
      checkInteger("KeyValueCache", size, config?.[size], 1);
    this.limit = config.maxPositionEmbeddings;
    this.#layers = Array.from({ length: config.numHiddenLayers }, () => ({ k: null, v: null }));
    forgotten?.register(this, this.#layers, this);
  }

  /** Steps that there is memory for now. */
  get capacity(): number {
    return this.#layers.at(-1)!.v?.shape[1] ?? 0;
  }

  /**
   * Appends rows to a layer's cache. The model advances `length` once, after its last layer.
   * @param k [batch, steps, kvHeads, headDim]
   * @param v k's shape
   * @returns keys and values, the cache's own: each [batch, capacity, kvHeads, headDim], of which the first length +
   * steps count
   * @throws StateError if k or v carries a gradient: call the model under noGrad(); ShapeError for another model's,
   * another batch, or more steps than the limit
   */
  extend(layer: number, k: Tensor, v: Tensor): [Tensor, Tensor] {
    if (k.requiresGrad || v.requiresGrad) {
      throw new StateError(
        "KeyValueCache: gradients do not flow through cached keys and values; run the model under noGrad().",
      );
    }
    const { numKeyValueHeads, headDim } = this.config;
    const pair = this.#layers[layer];
    const [batch, steps] = k.shape;
    const expected = [pair?.k?.shape[0] ?? batch, steps, numKeyValueHeads, headDim].join();
    if (k.shape.join() !== expected || v.shape.join() !== expected || !pair) {
      throw new ShapeError(
        `KeyValueCache: layer ${layer} gives keys of shape [${k.shape}] and values of shape [${v.shape}]; ` +
          `this cache has ${this.#layers.length} layers of [${pair?.k?.shape[0] ?? "batch"}, steps, ` +
          `${numKeyValueHeads}, ${headDim}]: make one with the model's own newCache().`,
      );
    }
    const needed = this.length + steps!;
    if (needed > this.limit)
      throw new ShapeError(`KeyValueCache: ${needed} steps are needed; this cache holds ${this.limit} at most.`);
    const have = pair.k?.shape[1] ?? 0;
    if (have < needed) {
      const every = Array.from({ length: batch! }, (_, row) => row);
      this.#replace(pair, every, 0, 2 * needed >= this.limit ? this.limit : Math.max(needed, 2 * have));
    }
    for (const [all, fresh] of [
      [pair.k!, k],
      [pair.v!, v],
    ] as const)
      copyRows(all, this.length, fresh, 0, steps!, (row) => row);
    return [pair.k!, pair.v!];
  }

  /**
   * Puts tensors of that capacity in the place of a pair, with these rows of it, from that step on: both, or, where
   * there is no memory for both, none.
   */
  #replace(pair: Pair, rows: readonly number[], first: number, capacity: number): void {
    const { numKeyValueHeads, headDim } = this.config;
    const shape = [rows.length, capacity, numKeyValueHeads, headDim];
    const [k, v] = allOrNothing(() => [new Tensor(shape).keep(), new Tensor(shape).keep()] as const);
    const { k: oldK, v: oldV } = pair;
    if (oldK) copyRows(k, 0, oldK, first, this.length - first, (row) => rows[row]!);
    if (oldV) copyRows(v, 0, oldV, first, this.length - first, (row) => rows[row]!);
    Object.assign(pair, { k, v });
    oldK?.dispose();
    oldV?.dispose();
  }

  /**
   * Goes on with some rows of the batch alone, and without the steps before `first`.
   * @param rows in their new order
   * @internal
   */
  narrow(rows: readonly number[], first: number): void {
    for (const pair of this.#layers) if (pair.k) this.#replace(pair, rows, first, pair.k.shape[1]! - first);
    this.length -= first;
  }

  /** Frees keys and values; then it is as new, but for its limit. */
  dispose(): void {
    this.length = 0;
    free(this.#layers);
  }
}

/** Copies steps of each row of `to`, from the row of `from` that `source` names. */
function copyRows(
  to: Tensor,
  toStep: number,
  from: Tensor,
  fromStep: number,
  steps: number,
  source: (row: number) => number,
): void {
  // A rehearsal has no values.
  if (engine().isRehearsal) return;
  const [rows, capacity, heads, dim] = to.shape as [number, number, number, number];
  const step = heads * dim;
  const [into, values] = [to.data, from.data];
  for (let row = 0; row < rows; row++) {
    const start = (source(row) * from.shape[1]! + fromStep) * step;
    into.set(values.subarray(start, start + steps * step), (row * capacity + toStep) * step);
  }
}

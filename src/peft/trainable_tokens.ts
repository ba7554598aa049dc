/**
 * PEFT's trainable_token_indices: rows of an embedding table, or of a head that is the table, that an adapter trains.
 * Source: huggingface/peft 0.21, utils/other.py (TrainableTokensWrapper), tuners/trainable_tokens/layer.py.
 */
import { embeddingAt } from "../autograd/ops/embedding.js";
import { indexCopy } from "../autograd/ops/index_copy.js";
import { embedding, linear, reshape } from "../autograd/ops/index.js";
import { noGrad } from "../autograd/tape.js";
import { TOKENS } from "../io/peft/keys.js";
import { Embedding, Linear } from "../nn/layers.js";
import { Merge, setAside } from "../nn/merge.js";
import type { Module, Parameter } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { className } from "../runtime/shown.js";
import { attempt, scope } from "../tensor/scope.js";
import { Tensor } from "../tensor/tensor.js";
import { isPlain } from "./plain.js";
import { Wrapper } from "./wrapper.js";

/** One adapter's rows. */
export interface Tokens {
  /** Ids of the tokens. */
  readonly indices: readonly number[];
  /** [indices.length, dim]: what stands in the rows' places. PEFT calls it a delta. */
  readonly rows: Parameter;
  /** Of a table: whether a head that is the same weight has these rows, too. */
  readonly hasHead: boolean;
  /** Of such a head: the table, whose rows they are to save and to merge. */
  readonly table: TrainableTokens | null;
}

/** What stands in a table's or head's place: it, and the rows of the active adapter. */
export class TrainableTokens extends Wrapper {
  /** @internal */ static override readonly className: string = "TrainableTokens";
  readonly baseLayer: Embedding | Linear;
  /** By adapter. */
  readonly tokens = new Map<string, Tokens>();
  protected override readonly gone = "trained tokens were deleted, replaced, merged or unmerged";
  /** In the order of merging. */
  readonly #merged: string[] = [];
  readonly #merge = new Merge();
  /** Whether `disable` holds back merged rows. */
  #aside = false;

  /** @throws ArgumentError for what has no such rows */
  constructor(where: string, module: Module) {
    super();
    const isTable = isPlain(module, Embedding) && module.maxNorm === null;
    const isHead = isPlain(module, Linear) && !module.fanInFanOut && module.bias === null;
    if (!isTable && !isHead)
      throw new ArgumentError(
        `${where} is a ${className(module)}; only an nn.Embedding without maxNorm and an nn.Linear without bias and ` +
          `fanInFanOut, neither of them adapted otherwise, can have trained tokens.`,
      );
    this.baseLayer = module;
    this.training = module.training;
  }

  /** The base layer's: what is tied to it finds it here. */
  get weight(): Parameter {
    return this.baseLayer.weight;
  }

  /** The base layer is a part of this one: its weight is here, as in PEFT. */
  override *children(): IterableIterator<[string, Module]> {}

  override *ownParameters(): IterableIterator<[string, Parameter]> {
    yield ["token_adapter.base_layer.weight", this.weight];
    for (const [name, { rows }] of this.tokens) yield [`${TOKENS}.${name}`, rows];
  }

  override has(adapterName: string): boolean {
    return this.tokens.has(adapterName);
  }

  /** Those that act: of the first of the active adapters that has some. */
  get active(): Tokens | undefined {
    if (this.disabled || this.#merged.length > 0) return undefined;
    return this.tokens.get(this.activeAdapters.find((name) => this.tokens.has(name)) ?? "");
  }

  protected override get acting(): readonly unknown[] {
    return [this.active, this.#merged.join()];
  }

  /** ids int32 [...] -> [..., dim] of a table; x [..., dim] -> [..., tokens] of a head. */
  forward(x: Tensor): Tensor {
    const { active, baseLayer } = this;
    if (!active) return baseLayer.forward(x);
    return attempt(() =>
      baseLayer instanceof Embedding
        ? this.#look(x, baseLayer, active)
        : indexCopy(baseLayer.forward(x), x.rank - 1, active.indices, linear(x, active.rows)),
    );
  }

  #look(ids: Tensor, table: Embedding, { indices, rows }: Tokens): Tensor {
    const y = table.forward(ids);
    const rowOf = new Map(indices.map((id, row) => [id, row]));
    const places: number[] = [];
    const found: number[] = [];
    // A rehearsal knows no ids: each may be one of these.
    const { isRehearsal } = engine();
    if (!isRehearsal) {
      for (const [place, id] of ids.indices.entries()) {
        const row = rowOf.get(id);
        if (row === undefined) continue;
        places.push(place);
        found.push(row);
      }
      // Rows that train have a gradient in any case, of zeros, as in PEFT: optimisers count on it.
      if (places.length === 0 && !rows.requiresGrad) return y;
    }
    const padding = table.paddingIdx === null ? undefined : rowOf.get(table.paddingIdx);
    const options = { scaleGradByFreq: table.scaleGradByFreq, paddingIdx: padding ?? null };
    const looked = new Tensor([isRehearsal ? ids.size : found.length], "int32");
    looked.indices.set(found);
    const trained = embeddingAt("peft.TrainableTokens.forward", looked, rows, options, []);
    return reshape(indexCopy(reshape(y, [ids.size, table.embeddingDim]), 0, places, trained), y.shape);
  }

  /**
   * Puts adapters' rows into the weight, whose original bits are kept aside; returns what takes that back.
   * @throws ArgumentError for two with rows of one token, or values that are not finite (with safeMerge)
   */
  merge(where: string, adapterNames: readonly string[], safeMerge: boolean): () => void {
    const { weight } = this;
    const count = this.#merged.length;
    const before = count > 0 && this.#merge.merged ? weight.stored() : null;
    const undo = (): void => {
      if (before) weight.restore(before);
      else this.#merge.restore(weight);
      this.#merged.length = count;
    };
    try {
      for (const name of adapterNames) {
        const own = this.tokens.get(name);
        if (!own || this.#merged.includes(name)) continue;
        const rival = this.#merged.find((other) =>
          this.tokens.get(other)!.indices.some((id) => own.indices.includes(id)),
        );
        if (rival !== undefined)
          throw new ArgumentError(`${where}: ${rival} and ${name} have rows of the same token; merge one of them.`);
        if (safeMerge && !own.rows.data.every(Number.isFinite))
          throw new ArgumentError(
            `${where}: adapter "${name}" has rows of tokens with values that are not finite; all weights are as ` +
              `they were.`,
          );
        if (!own.table) this.#merge.apply(weight, () => putRows(weight, own));
        this.#merged.push(name);
      }
    } catch (error) {
      undo();
      throw error;
    }
    return undo;
  }

  /** Restores the weight's original bits. */
  unmerge(): void {
    this.#merge.restore(this.weight);
    this.#merged.length = 0;
  }

  /** Merged rows come out of the weight, too. */
  override disable(): () => void {
    const aside = this.#aside;
    const original = aside ? null : this.#merge.original;
    const weightBack = setAside(this.weight, original);
    const enable = super.disable();
    this.#aside = aside || original !== null;
    return () => {
      weightBack();
      this.#aside = aside;
      enable();
    };
  }

  /** Frees an adapter's rows, if they are here. */
  override remove(adapterName: string): void {
    const own = this.tokens.get(adapterName);
    if (own && !own.table) own.rows.dispose();
    this.tokens.delete(adapterName);
  }

  /** Frees all rows and gives the base layer; what is merged stays in its weight. */
  unload(): Embedding | Linear {
    this.#merge.settle();
    this.#merged.length = 0;
    for (const name of [...this.tokens.keys()]) this.remove(name);
    this.baseLayer.training = this.training;
    return this.baseLayer;
  }

  override unmergedData(p: Parameter): Float32Array {
    if (p !== this.weight) return p.toFloat32();
    const table = this.#merged.map((name) => this.tokens.get(name)!.table).find((other) => other);
    return table ? table.unmergedData(p) : this.#merge.originalOf(p);
  }

  override isMerged(): boolean {
    return this.#merged.length > 0;
  }
}

/** A table's rows, as float32. */
export function rowsOf(weight: Parameter, indices: readonly number[]): Float32Array {
  return noGrad(() => scope(() => embedding(new Tensor([indices.length], "int32").set(indices), weight).data.slice()));
}

function putRows(weight: Parameter, { indices, rows }: Tokens): void {
  const width = weight.shape[1]!;
  const to = weight.data;
  const from = rows.data;
  for (const [i, id] of indices.entries()) to.set(from.subarray(i * width, (i + 1) * width), id * width);
}

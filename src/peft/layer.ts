/**
 * What PEFT's LoRA layers share: a base layer, any number of named adapters beside it, and which of
 * them are at work. A subclass says how its base computes; this file says what is added to it.
 * Source: huggingface/peft, tuners/lora/layer.py (LoraLayer) and tuners/lora/dora.py.
 */
import { add, channelScale, doraNorm, doraScale, scale, type LoraBranch } from "../autograd/ops/index.js";
import { dropoutBy } from "../autograd/ops/dropout.js";
import { noGrad } from "../autograd/tape.js";
import type { LoraInit } from "../io/peft/config.js";
import { BASE_LAYER, FACTOR_NAMES, type LayerKind, MAGNITUDE } from "../io/peft/keys.js";
import { addProduct, Merge, setAside } from "../nn/merge.js";
import { Module, type Parameter } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, ShapeError, StateError } from "../runtime/errors.js";
import { attempt, scope } from "../tensor/scope.js";
import { type StoredValues, tensor, type Tensor } from "../tensor/tensor.js";

/** One adapter's part in one layer. */
export interface Adapter {
  /** [r, inFeatures], or the layer's `factorShapes`. */
  readonly loraA: Parameter;
  /** [outFeatures, r], or the layer's `factorShapes`. */
  readonly loraB: Parameter;
  /** [outFeatures], a bias of loraB that is scaled as its product is; or null. */
  readonly loraBias: Parameter | null;
  /** DoRA's magnitude vector, or null. */
  readonly magnitude: Parameter | null;
  /** Its rank in this layer. */
  readonly r: number;
  /** lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. */
  readonly scaling: number;
  /** Probability of dropping an element of its input while training. */
  readonly loraDropout: number;
  /**
   * The base weight before this adapter changed it: by an init that took the first product out of it (pissa, olora), or
   * by a table that its folder has. null: it did not.
   */
  readonly initial: {
    /** The base weight before, as it was stored. */
    weight: StoredValues;
    /** The factors right after an init that was done here; null where the folder says what was changed. */
    factors: {
      /** loraA then. */
      loraA: Float32Array;
      /** loraB then. */
      loraB: Float32Array;
    } | null;
  } | null;
}

/** What an init sets. */
export type Factors = Pick<Adapter, "loraA" | "loraB" | "loraBias">;

/** In a batch of mixed adapters: the name for items that the base model computes alone. */
export const BASE = "__base__";

/** A layer that can be adapted. */
export type BaseLayer = Module & {
  /** What adapters are added to. */
  readonly weight: Parameter;
  /** Left out by layers that never have one. */
  readonly bias?: Parameter | null | undefined;
};

/**
 * A layer with named adapters, in the place of its base layer: what `LoraModel` makes of every module that it adapts.
 * Switch and merge through the model, which keeps its layers together.
 *
 * Source: PEFT, LoraLayer; Liu et al. 2024 (DoRA).
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * peft.getLoraModel(model, { r: 4, targetModules: ["q_proj"] });
 * const layer = model.model.layers[0].selfAttn.qProj;
 * console.log(layer instanceof peft.LoraLayer, layer.adapters.get("default").r); // true 4
 */
export abstract class LoraLayer<Base extends BaseLayer = BaseLayer> extends Module {
  /** @internal */ static override readonly className: string = "LoraLayer";
  /** Every adapter this layer has, by name. */
  readonly adapters = new Map<string, Adapter>();
  /** In the order of merging. */
  readonly mergedAdapters: string[] = [];
  /** @internal */
  activeAdapters: readonly string[] = [];
  /** @internal */
  disabled = false;
  /** Whether `disable` holds back what adapters have put into the weight: merged products, or an init's change. */
  #aside = false;
  /** One adapter's name for each item of the batch; null: the active ones for all. @internal */
  adapterNames: readonly string[] | null = null;
  readonly #merge = new Merge();
  /** Of the base layer's bias, which biases of factors go into. */
  readonly #biasMerge = new Merge();

  /** What it is without adapters: its factors' names follow from it. */
  abstract readonly kind: LayerKind;
  /** Whether an adapter's dropout is applied. */
  protected readonly drops: boolean = true;
  /** Whether the weight is [d, k] where B A is [k, d]. */
  protected abstract readonly weightIsTransposed: boolean;

  constructor(
    /** The layer that was here before. */
    readonly baseLayer: Base,
  ) {
    super();
    this.training = baseLayer.training;
  }

  /** The base layer's weight, as in PEFT: what is tied to it finds it here. */
  get weight(): Parameter {
    return this.baseLayer.weight;
  }

  /** The base layer is a part of this one: its parameters are here as `base_layer.*`, as in PEFT. */
  override *children(): IterableIterator<[string, Module]> {}

  override *ownParameters(): IterableIterator<[string, Parameter]> {
    for (const [name, parameter] of this.baseLayer.ownParameters()) yield [`${BASE_LAYER}.${name}`, parameter];
    const { loraA, loraB, suffix } = FACTOR_NAMES[this.kind];
    for (const [name, adapter] of this.adapters) {
      yield [`${loraA}.${name}${suffix}`, adapter.loraA];
      yield [`${loraB}.${name}${suffix}`, adapter.loraB];
      if (adapter.loraBias) yield [`${loraB}.${name}.bias`, adapter.loraBias];
      if (adapter.magnitude) yield [`${MAGNITUDE}.${name}.weight`, adapter.magnitude];
    }
  }

  /** Shapes of loraA and loraB. @throws ArgumentError if this layer cannot have that rank */
  abstract factorShapes(r: number, where: string): [number[], number[]];

  /** @throws ArgumentError if B A is no matrix of the weight's shape @internal */
  checkDense(_where: string): void {}

  /** Initialises new factors. @throws ArgumentError if this layer cannot have that init @internal */
  abstract initFactors(kind: LoraInit, where: string, factors: Factors, scaling: number): void;

  /** The dimension of the output that DoRA scales; by default the last. */
  protected outputAxis(_x: Tensor): number | undefined {
    return undefined;
  }

  /** The base layer's output with these low-rank terms in its accumulators, and this bias instead of its own. */
  protected abstract product(x: Tensor, branches: readonly LoraBranch[], bias: Tensor | null): Tensor;

  /**
   * The base layer's output plus the terms of the active adapters; what is merged is in the weight. Shapes are the base
   * layer's.
   * @throws ShapeError, DTypeError, DisposedError; within withAdapterNames ShapeError for a batch of another size and
   * StateError for an adapter with DoRA
   */
  forward(x: Tensor): Tensor {
    const terms = this.#terms(x);
    const first = terms.findIndex(({ adapter }) => adapter.magnitude);
    return attempt(() => {
      if (first < 0)
        return this.product(
          x,
          terms.map((t) => this.#branch(t)),
          this.#bias(terms),
        );
      return terms.length === 1 ? this.#directed(x, terms[0]!.adapter) : this.#inTurn(x, terms, first);
    });
  }

  /** DoRA alone: y = g * (W x̃ + s B A x̃) + W (x - x̃) + bias, g = m / c, x̃ = dropout(x), as in PEFT. */
  #directed(x: Tensor, adapter: Adapter): Tensor {
    const g = this.#gain(adapter);
    const branches = [{ ...adapter, mask: null }];
    if (!this.#isDropping(adapter)) {
      return channelScale(this.product(x, branches, null), g, this.#bias(), this.outputAxis(x));
    }
    const dropped = dropoutBy(x, this.newMask(adapter.loraDropout));
    return add(
      this.product(add(x, scale(dropped, -1)), [], this.#bias()),
      channelScale(this.product(dropped, branches, null), g, null, this.outputAxis(x)),
    );
  }

  /**
   * Several adapters with DoRA among them, in PEFT's order: its gain acts on the terms so far too, y = g * (y + s B A
   * x), but with dropout on the base alone, y += (g - 1) * W x̃ + g * s B A x̃. The last step brings the bias.
   * @param first the first with DoRA
   */
  #inTurn(x: Tensor, terms: readonly Acting[], first: number): Tensor {
    const axis = this.outputAxis(x);
    const before = terms.slice(0, first);
    let y = this.product(
      x,
      before.map((t) => this.#branch(t)),
      this.#bias(before, null),
    );
    for (const [i, term] of terms.entries()) {
      if (i < first) continue;
      const { adapter } = term;
      const isLast = i === terms.length - 1;
      const bias = this.#bias([term], isLast ? this.#bias() : null);
      const branch = adapter.magnitude ? { ...adapter, mask: null } : this.#branch(term);
      if (!adapter.magnitude) {
        y = add(y, this.#difference(this.product(x, [branch], bias), x));
      } else if (this.#isDropping(adapter)) {
        const dropped = dropoutBy(x, this.newMask(adapter.loraDropout));
        y = add(
          y,
          this.#difference(
            channelScale(this.product(dropped, [branch], null), this.#gain(adapter), bias, axis),
            dropped,
          ),
        );
      } else {
        y = channelScale(add(y, this.#difference(this.product(x, [branch], null), x)), this.#gain(adapter), bias, axis);
      }
    }
    return y;
  }

  /** y - W x */
  #difference(y: Tensor, x: Tensor): Tensor {
    return add(y, scale(this.product(x, [], null), -1));
  }

  /** A bias, by default the base layer's, plus those of the terms' factors, scaled. */
  #bias(terms: readonly Acting[] = [], base: Tensor | null = this.baseLayer.bias ?? null): Tensor | null {
    let sum = base;
    for (const { adapter } of terms) {
      if (!adapter.loraBias) continue;
      const term = scale(adapter.loraBias, adapter.scaling);
      sum = sum ? add(sum, term) : term;
    }
    return sum;
  }

  #isDropping(adapter: Adapter): boolean {
    return this.drops && this.training && adapter.loraDropout > 0;
  }

  #branch({ adapter, from, to }: Acting): LoraBranch {
    const { loraA, loraB, scaling, loraDropout } = adapter;
    return { loraA, loraB, scaling, mask: this.#isDropping(adapter) ? this.newMask(loraDropout) : null, from, to };
  }

  /** Which adapters act, and on which items of x. */
  #terms(x: Tensor): Acting[] {
    if (this.disabled || this.mergedAdapters.length > 0) return [];
    const names = this.adapterNames;
    if (!names)
      return this.activeAdapters.flatMap((name) => this.adapters.get(name) ?? []).map((adapter) => ({ adapter }));
    if (x.rank === 0 || x.shape[0] !== names.length) {
      throw new ShapeError(
        `peft.LoraLayer.forward: x has shape [${x.shape}]; its first dimension must be the number of adapter ` +
          `names, ${names.length}.`,
      );
    }
    const terms: Acting[] = [];
    for (let from = 0, to = 0; from < names.length; from = to) {
      for (to = from + 1; names[to] === names[from]; ) to++;
      const adapter = this.adapters.get(names[from]!);
      if (adapter) terms.push({ adapter, from, to });
    }
    return terms;
  }

  /** m / c: what DoRA multiplies each output by. c, the norm of W + s B A, counts as a constant. */
  #gain(adapter: Adapter): Tensor {
    return doraScale(adapter.magnitude!, this.norm(adapter));
  }

  /** Norms of W + s B A over the inputs, of the magnitude vector's size; W is without what is merged. @internal */
  norm({ loraA, loraB, scaling }: Pick<Adapter, "loraA" | "loraB" | "scaling">): Tensor {
    const { weight } = this;
    return scope(() => {
      const original = this.isMerged() ? tensor(this.unmergedData(weight), weight.shape) : weight;
      return doraNorm(original, loraA, loraB, scaling, this.weightIsTransposed);
    });
  }

  /** weight += s B A, then DoRA's gain on its outputs: what forward does with the adapters in turn. */
  #addTo(weight: Parameter, adapter: Adapter): void {
    scope(() =>
      noGrad(() => {
        const gain = adapter.magnitude ? this.#gain(adapter) : null;
        addProduct(weight, adapter.loraA, adapter.loraB, adapter.scaling, this.weightIsTransposed);
        if (gain) weight.set(channelScale(weight, gain, null, this.weightIsTransposed ? 1 : 0).data);
      }),
    );
  }

  /**
   * Adds adapters to the weight, whose original bits are kept aside, and returns what takes that back. (Merging anew
   * what was merged before could fail for want of memory.)
   * @param safeMerge refuse a result that is not finite
   * @throws ArgumentError, OutOfMemoryError; then the weight is as it was
   */
  merge(where: string, names: readonly string[], safeMerge: boolean): () => void {
    const { weight } = this;
    const { bias } = this.baseLayer;
    const count = this.mergedAdapters.length;
    const before = count > 0 ? { weight: weight.stored(), bias: bias?.stored() } : null;
    const undo = (): void => {
      if (!before) return this.unmerge();
      weight.restore(before.weight);
      bias?.restore(before.bias!);
      this.mergedAdapters.length = count;
    };
    try {
      for (const name of names) {
        const adapter = this.adapters.get(name);
        if (!adapter || this.mergedAdapters.includes(name)) continue;
        this.checkDense(where);
        const check = (p: Parameter, what: string): void => {
          if (safeMerge && !p.data.every(Number.isFinite)) {
            throw new ArgumentError(
              `${where}: adapter "${name}" gives a merged ${what} with values that are not finite; all weights are ` +
                `as they were.`,
            );
          }
        };
        const { loraBias, scaling } = adapter;
        if (loraBias && !bias)
          throw new ArgumentError(
            `${where}: adapter "${name}" has biases (loraBias) and the base layer has none that could take them in; ` +
              `run it unmerged.`,
          );
        this.#merge.apply(
          weight,
          () => this.#addTo(weight, adapter),
          () => check(weight, "weight"),
        );
        if (loraBias && bias) {
          const { kernels } = engine();
          this.#biasMerge.apply(
            bias,
            () => kernels.saxpy(bias.address, loraBias.address, bias.size, scaling),
            () => check(bias, "bias"),
          );
        }
        this.mergedAdapters.push(name);
      }
    } catch (error) {
      undo();
      throw error;
    }
    return undo;
  }

  /** Restores the original bits of weight and bias. */
  unmerge(): void {
    this.#merge.restore(this.weight);
    if (this.baseLayer.bias) this.#biasMerge.restore(this.baseLayer.bias);
    this.mergedAdapters.length = 0;
  }

  /** Makes this the layer it was without adapters; returns what takes that back, to the bit. @internal */
  disable(): () => void {
    const { weight, disabled } = this;
    const aside = this.#aside;
    const original = aside ? null : (this.#changedFrom() ?? this.#merge.original);
    const weightBack = setAside(weight, original);
    const { bias } = this.baseLayer;
    const biasBack = bias ? setAside(bias, aside ? null : this.#biasMerge.original) : null;
    this.#aside = aside || original !== null;
    this.disabled = true;
    return () => {
      weightBack();
      biasBack?.();
      this.#aside = aside;
      this.disabled = disabled;
    };
  }

  /** Notes which adapters act, see `extentOf`. @internal */
  hold(where: string): (items?: readonly number[], batch?: number) => () => void {
    const { activeAdapters, adapterNames, disabled } = this;
    const merged = this.mergedAdapters.join();
    const adapters = new Map(this.adapters);
    const gone = (what: string): never => {
      throw new StateError(`${where}: ${what} since ${where}() was called; call it anew.`);
    };
    return (items, batch = adapterNames?.length) => {
      if (disabled) return this.disabled ? () => {} : this.disable();
      if (adapterNames && batch !== adapterNames.length)
        throw new ShapeError(`${where}: the batch has ${batch} items; there are ${adapterNames.length} adapter names.`);
      if (this.mergedAdapters.join() !== merged) gone("adapters were merged or unmerged");
      for (const name of adapterNames ?? activeAdapters) {
        if (this.adapters.get(name) !== adapters.get(name)) gone(`adapter "${name}" was deleted or replaced`);
      }
      if (this.#aside)
        throw new StateError(
          `${where}: what acts has its part in the weights, which disableAdapter holds back now; take the tokens ` +
            `outside of it.`,
        );
      const before = [this.activeAdapters, this.adapterNames, this.disabled] as const;
      const names = adapterNames && items ? items.map((item) => adapterNames[item]!) : adapterNames;
      [this.activeAdapters, this.adapterNames, this.disabled] = [activeAdapters, names, false];
      return () => {
        [this.activeAdapters, this.adapterNames, this.disabled] = before;
      };
    };
  }

  /** The weight before an adapter changed it, if one did. */
  #changedFrom(): StoredValues | undefined {
    return [...this.adapters.values()].find(({ initial }) => initial)?.initial?.weight;
  }

  /** Frees an adapter, if it is here, and gives the weight back the values that it had before the adapter. @internal */
  remove(name: string): void {
    const adapter = this.adapters.get(name);
    if (!adapter) return;
    if (adapter.initial && !this.isMerged()) this.weight.restore(adapter.initial.weight);
    for (const t of [adapter.loraA, adapter.loraB, adapter.loraBias, adapter.magnitude]) t?.dispose();
    this.adapters.delete(name);
  }

  /** Frees all adapters and gives the base layer; what is merged stays in its weight. @internal */
  unload(): Base {
    for (const name of [...this.adapters.keys()]) this.remove(name);
    this.#merge.settle();
    this.#biasMerge.settle();
    this.mergedAdapters.length = 0;
    this.baseLayer.training = this.training;
    return this.baseLayer;
  }

  /** What a checkpoint holds: never merged weights. @internal */
  override unmergedData(p: Parameter): Float32Array {
    if (p === this.weight) return this.#merge.originalOf(p);
    return p === this.baseLayer.bias ? this.#biasMerge.originalOf(p) : p.toFloat32();
  }
  /** @internal */
  override isMerged(): boolean {
    return this.#merge.merged;
  }
}

/** An adapter at work, on all items of the batch or on some. */
interface Acting {
  adapter: Adapter;
  from?: number | undefined;
  to?: number | undefined;
}

/** What loralib's layers share: the options, the factors beside a plain layer, and merging that follows the mode. */
import { kaimingUniform_, zeros_ } from "../nn/init.js";
import { Merge } from "../nn/merge.js";
import { type Module, Parameter } from "../nn/module.js";
import { drawFor } from "../random/seed.js";
import { checkOptions } from "../runtime/options.js";
import { checkBoolean, checkFloat, checkInteger, checkNumber } from "../tensor/check.js";
import { allOrNothing } from "../tensor/scope.js";

/** loralib's common parameters, with its defaults. */
export interface LoraOptions {
  /** Rank; 0 (default) gives the plain, fully trainable layer. */
  r?: number | undefined;
  /** scaling = loraAlpha / r. Default 1. */
  loraAlpha?: number | undefined;
  /** Whether eval() merges and train() unmerges. Default true. */
  mergeWeights?: boolean | undefined;
}

/** What a layer was made with. */
export interface LoraSettings {
  /** Rank; 0: the plain layer. */
  readonly r: number;
  /** Numerator of scaling. */
  readonly loraAlpha: number;
  /** loraAlpha / r, or 0 if r = 0. */
  readonly scaling: number;
  /** Probability of dropping an element of the branch's input while training; an embedding has 0. */
  readonly loraDropout: number;
  /** Whether eval() merges and train() unmerges. */
  readonly mergeWeights: boolean;
}

/** What loralib's layers have beside a plain layer's. */
export interface LoraLayer extends LoraSettings {
  /** The factor at the input, or null if there is none (r = 0); the layer tells its shape. */
  readonly loraA: Parameter | null;
  /** The factor at the output, or null with loraA. */
  readonly loraB: Parameter | null;
  /** Whether the weight holds the product now. */
  readonly merged: boolean;
  /**
   * Called last by a layer's constructor.
   * @param shapes of the factors; null: none, as with r = 0
   * @internal
   */
  adapt(settings: LoraSettings, shapes: readonly [a: readonly number[], b: readonly number[]] | null): void;
  /** Draws the factors: loralib's A kaimingUniform_(sqrt 5), B zeros. @internal */
  resetFactors(loraA: Parameter, loraB: Parameter): void;
  /** weight += scaling * B A. @internal */
  addFactors(loraA: Parameter, loraB: Parameter): void;
}

/** The settings, checked, and the options that are the plain layer's. */
export function checkLoraOptions<Options extends LoraOptions & { loraDropout?: number | undefined }>(
  where: string,
  options: Options,
  others: readonly string[],
) {
  checkOptions(where, options, ["r", "loraAlpha", "mergeWeights", ...others]);
  const { r = 0, loraAlpha = 1, loraDropout = 0, mergeWeights = true, ...base } = options;
  checkInteger(where, "r", r, 0);
  checkFloat(where, "loraAlpha", loraAlpha);
  checkNumber(where, "loraDropout", loraDropout, 0, 1);
  checkBoolean(where, "mergeWeights", mergeWeights);
  return { settings: { r, loraAlpha, scaling: r > 0 ? loraAlpha / r : 0, loraDropout, mergeWeights }, base };
}

/** A plain layer's class. TypeScript takes mixins with any[] alone; the classes keep their own constructors. */
type Class<T> = abstract new (...args: any[]) => T;

/**
 * A plain layer's class with factors, as `class Linear(nn.Linear, LoRALayer)` in loralib.
 * Source: loralib.LoRALayer, and what its layers repeat.
 */
export function withFactors<Base extends Class<Module & { readonly weight: Parameter; resetParameters(): void }>>(
  Plain: Base,
): Base & Class<LoraLayer> {
  abstract class Layer extends Plain implements LoraLayer {
    loraA: Parameter | null = null;
    loraB: Parameter | null = null;
    r = 0;
    loraAlpha = 1;
    scaling = 0;
    loraDropout = 0;
    mergeWeights = true;
    readonly #merge = new Merge();

    adapt(settings: LoraSettings, shapes: readonly [a: readonly number[], b: readonly number[]] | null): void {
      Object.assign(this, settings);
      if (this.r > 0 && shapes) {
        try {
          [this.loraA, this.loraB] = allOrNothing(() => [new Parameter(shapes[0]), new Parameter(shapes[1])]);
        } catch (error) {
          this.dispose();
          throw error;
        }
        this.weight.requiresGrad = false;
      }
      // The plain layer's constructor has drawn it once; loralib's own reset draws it again, for r = 0 too.
      this.resetParameters();
    }

    /** Draws in loralib's order: the plain layer, then the factors. */
    override resetParameters(): void {
      drawFor(this, () => {
        super.resetParameters();
        // They are not there yet when the plain layer's constructor calls this.
        if (this.loraA && this.loraB) this.resetFactors(this.loraA, this.loraB);
      });
    }

    resetFactors(loraA: Parameter, loraB: Parameter): void {
      kaimingUniform_(loraA);
      zeros_(loraB);
    }

    abstract addFactors(loraA: Parameter, loraB: Parameter): void;

    get merged(): boolean {
      return this.#merge.merged;
    }

    /** train() restores the weight's original bits; eval() merges (both only if mergeWeights). */
    override train(mode = true): this {
      const { loraA, loraB } = this;
      if (this.mergeWeights && loraA && loraB)
        this.#merge.follow(mode, this.weight, () => this.addFactors(loraA, loraB));
      return super.train(mode);
    }

    override unmergedData(p: Parameter): Float32Array {
      return p === this.weight ? this.#merge.originalOf(p) : super.unmergedData(p);
    }

    override isMerged(): boolean {
      return this.merged;
    }
  }
  return Layer;
}

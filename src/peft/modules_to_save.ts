/**
 * PEFT's modules_to_save: a plain layer with one trained copy for each adapter that asks for it.
 * Source: huggingface/peft, utils/other.py (ModulesToSaveWrapper).
 */
import type { ConvNd } from "../nn/conv.js";
import { Embedding, LayerNorm, Linear, RMSNorm } from "../nn/layers.js";
import { Module, Parameter } from "../nn/module.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import { className } from "../runtime/shown.js";
import type { Tensor } from "../tensor/tensor.js";
import { isPlain, isPlainConv } from "./plain.js";

type PlainLayer = Linear | Embedding | LayerNorm | RMSNorm | ConvNd;

const PLAIN: readonly (new (...args: never[]) => PlainLayer)[] = [Linear, Embedding, LayerNorm, RMSNorm];

/** What stands in a copied module's place: the original and the copies, of which the active adapter's acts. */
export class ModulesToSave extends Module {
  /** @internal */ static override readonly className: string = "ModulesToSave";
  readonly originalModule: PlainLayer;
  /** By adapter. */
  readonly modulesToSave = new Map<string, PlainLayer>();
  activeAdapters: readonly string[] = [];
  disabled = false;

  /** @throws ArgumentError for anything but a plain layer */
  constructor(where: string, module: Module) {
    super();
    if (!isPlainLayer(module)) {
      throw new ArgumentError(
        `${where} is a ${className(module)}; only plain layers (Linear, Embedding, LayerNorm, RMSNorm, ` +
          `convolutions) can be copied.`,
      );
    }
    this.originalModule = module;
    this.training = module.training;
  }

  has(adapterName: string): boolean {
    return this.modulesToSave.has(adapterName);
  }

  /** The copy of the active adapter that has one, else the original. */
  get active(): PlainLayer {
    return (this.disabled ? undefined : this.#copyOf(this.activeAdapters)) ?? this.originalModule;
  }

  #copyOf(adapterNames: readonly string[]): PlainLayer | undefined {
    return this.modulesToSave.get(adapterNames.find((name) => this.modulesToSave.has(name)) ?? "");
  }

  /** Switches to the original; returns what takes that back. */
  disable(): () => void {
    const before = this.disabled;
    this.disabled = true;
    return () => {
      this.disabled = before;
    };
  }

  /** Notes which copy acts, see `extentOf`. */
  hold(where: string): () => () => void {
    const { activeAdapters, disabled, active } = this;
    return () => {
      const before = [this.activeAdapters, this.disabled] as const;
      [this.activeAdapters, this.disabled] = [activeAdapters, disabled];
      const undo = (): void => {
        [this.activeAdapters, this.disabled] = before;
      };
      if (this.active === active) return undo;
      undo();
      throw new StateError(
        `${where}: the trained copy of a module (modulesToSave) was deleted or replaced since ${where}() was ` +
          `called; call it anew.`,
      );
    };
  }

  /** The active layer's: what is tied to it finds it here. */
  get weight(): Parameter {
    return this.active.weight;
  }

  forward(x: Tensor): Tensor {
    return this.active.forward(x);
  }

  /**
   * The same layer with parameters of its own.
   * @param shared copies of parameters that are copied once for all layers that have them
   */
  copyOriginal(shared: Map<Parameter, Parameter> | null = null): PlainLayer {
    const original = this.originalModule;
    const copied: Record<string, Parameter> = {};
    try {
      for (const [property, value] of Object.entries(original)) {
        if (!(value instanceof Parameter)) continue;
        copied[property] = shared?.get(value) ?? new Parameter(value.shape).set(value.toFloat32());
        shared?.set(value, copied[property]);
      }
    } catch (error) {
      for (const p of Object.values(copied)) p.dispose();
      throw error;
    }
    return Object.assign(Object.create(Object.getPrototypeOf(original) as object) as PlainLayer, original, copied);
  }

  /** Frees an adapter's copy, if it is here. */
  remove(adapterName: string): void {
    this.modulesToSave.get(adapterName)?.dispose();
    this.modulesToSave.delete(adapterName);
  }

  /**
   * The copy of the first of these adapters that has one, else the original; and the others, whose parameters may be
   * tied to what is kept.
   */
  unload(adapterNames: readonly string[]): { kept: PlainLayer; dropped: PlainLayer[] } {
    const kept = this.#copyOf(adapterNames) ?? this.originalModule;
    return { kept, dropped: [this.originalModule, ...this.modulesToSave.values()].filter((layer) => layer !== kept) };
  }
}

function isPlainLayer(module: Module): module is PlainLayer {
  return isPlainConv(module) || PLAIN.some((kind) => isPlain(module, kind));
}

/**
 * PEFT's modules_to_save: a plain layer with one trained copy for each adapter that asks for it.
 * Source: huggingface/peft, utils/other.py (ModulesToSaveWrapper).
 */
import { ConvNd } from "../nn/conv.js";
import { Embedding, LayerNorm, Linear, RMSNorm } from "../nn/layers.js";
import { Module, Parameter } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import type { Tensor } from "../tensor/tensor.js";

type PlainLayer = Linear | Embedding | LayerNorm | RMSNorm | ConvNd;

/** @internal */
export class ModulesToSave extends Module {
  readonly originalModule: PlainLayer;
  /** By adapter. */
  readonly modulesToSave = new Map<string, PlainLayer>();
  activeAdapters: readonly string[] = [];
  disabled = false;

  /** @throws ArgumentError for anything but a plain layer */
  constructor(path: string, module: Module) {
    super();
    if (!isPlainLayer(module)) {
      throw new ArgumentError(`addAdapter: modulesToSave: ${path} is a ${module.constructor.name}; only plain layers (Linear, Embedding, LayerNorm, RMSNorm, convolutions) can be copied.`);
    }
    this.originalModule = module;
  }

  /** The copy of the first active adapter that has one, else the original. */
  get active(): PlainLayer {
    const name = this.disabled ? undefined : this.activeAdapters.find((n) => this.modulesToSave.has(n));
    return name === undefined ? this.originalModule : this.modulesToSave.get(name)!;
  }

  /** The active layer's: what is tied to it finds it here. */
  get weight(): Parameter { return this.active.weight; }

  forward(x: Tensor): Tensor { return this.active.forward(x); }

  /** The same layer with parameters of its own. */
  copyOriginal(): PlainLayer {
    const original = this.originalModule;
    const copy = Object.assign(Object.create(Object.getPrototypeOf(original) as object) as PlainLayer, original);
    for (const [property, value] of Object.entries(original)) {
      if (value instanceof Parameter) (copy as unknown as Record<string, Parameter>)[property] = new Parameter(value.shape).set(value.data);
    }
    return copy;
  }

  /** Gives the active layer and frees the others. */
  unload(): PlainLayer {
    const kept = this.active;
    for (const layer of [this.originalModule, ...this.modulesToSave.values()]) if (layer !== kept) layer.dispose();
    return kept;
  }
}

/** A layer of nn itself: loralib's layers, some of which extend them, have state that a copy would share. */
function isPlainLayer(module: Module): module is PlainLayer {
  return [Linear, Embedding, LayerNorm, RMSNorm].some((kind) => module.constructor === kind) || (module instanceof ConvNd && !("loraA" in module));
}

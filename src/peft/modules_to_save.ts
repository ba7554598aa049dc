/**
 * PEFT's modules_to_save: a module with one trained copy for each adapter that asks for it.
 * Source: huggingface/peft, utils/other.py (ModulesToSaveWrapper).
 */
import type { Layer } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import { className } from "../runtime/shown.js";
import type { Tensor } from "../tensor/tensor.js";
import { LoraLayer } from "./layer.js";
import type { StandIn } from "./stand_in.js";
import { Wrapper } from "./wrapper.js";

/** What stands in a copied module's place: the original and the copies, of which the active adapter's acts. */
export class ModulesToSave extends Wrapper {
  /** @internal */ static override readonly className: string = "ModulesToSave";
  readonly originalModule: Layer & { readonly weight?: Parameter | undefined };
  /** By adapter. */
  readonly modulesToSave = new Map<string, StandIn>();
  protected override readonly gone = "the trained copy of a module (modulesToSave) was deleted or replaced";

  /** @throws ArgumentError for what has no `forward`, or has adapters in it */
  constructor(where: string, module: Module) {
    super();
    if (!("forward" in module))
      throw new ArgumentError(`${where} is a ${className(module)}, which has no forward; name the modules in it.`);
    const [adapted] = [...module.namedModules()].find(([, m]) => m instanceof LoraLayer || m instanceof Wrapper) ?? [];
    if (adapted !== undefined)
      throw new ArgumentError(
        `${where} is a ${className(module)} with adapters${adapted && ` on ${adapted}`}; it cannot be copied as well.`,
      );
    this.originalModule = module as Layer;
    this.training = module.training;
  }

  override has(adapterName: string): boolean {
    return this.modulesToSave.has(adapterName);
  }

  /** The copy of the active adapter that has one, else the original. */
  get active(): Layer & { readonly weight?: Parameter | undefined } {
    return (this.disabled ? undefined : this.#copyOf(this.activeAdapters)) ?? this.originalModule;
  }

  protected override get acting(): readonly unknown[] {
    return [this.active];
  }

  #copyOf(adapterNames: readonly string[]): StandIn | undefined {
    return this.modulesToSave.get(adapterNames.find((name) => this.modulesToSave.has(name)) ?? "");
  }

  /** The active layer's: what is tied to it finds it here. */
  get weight(): Parameter {
    return this.active.weight!;
  }

  forward(...args: [x: Tensor]): Tensor {
    return this.active.forward(...args);
  }

  /** Frees an adapter's copy, if it is here. */
  override remove(adapterName: string): void {
    this.modulesToSave.get(adapterName)?.dispose();
    this.modulesToSave.delete(adapterName);
  }

  /**
   * Gives the module the copy of the first of these adapters that has one, if any.
   * @returns what has the other parameters, which may be tied to what is kept
   */
  unload(adapterNames: readonly string[]): Module[] {
    const kept = this.#copyOf(adapterNames);
    kept?.install();
    return [...this.modulesToSave.values()];
  }
}

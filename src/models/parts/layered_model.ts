/** Models whose layers others may take the places of. */
import { Module } from "../../nn/module.js";
import type { FamilyConfig } from "./family.js";

/** A model without a head, of layers one after the other: what layer_replication can repeat, given `newLayer`. */
export abstract class LayeredModel<C extends FamilyConfig = FamilyConfig> extends Module {
  /** @internal */ static override readonly className: string = "LayeredModel";
  /**
   * Whether backward computes each layer's activations again, so that only its input is kept (Hugging Face:
   * gradient_checkpointing_enable()).
   */
  gradientCheckpointing = false;

  /** The layers that it was made with, once others have taken their places. */
  #own: readonly Module[] | null = null;

  constructor(
    /** Its sizes. */
    readonly config: Readonly<C>,
  ) {
    super();
  }

  /** First to last. @internal */
  abstract getLayers(): readonly Module[];

  /** Puts layers in the places of those that are there; config has their number. @internal */
  setLayers(layers: readonly Module[]): void {
    const places = this.getLayers() as Module[];
    this.#own ??= [...places];
    places.splice(0, places.length, ...layers);
    Object.assign(this, { config: { ...this.config, numHiddenLayers: layers.length } });
  }

  /** Disposes all parameters. */
  override dispose(): void {
    super.dispose();
    for (const layer of this.#own ?? []) layer.dispose();
  }
}

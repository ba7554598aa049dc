/**
 * What PEFT calls the tensors of an adapter, in its file and in a model's state dict.
 * Source: huggingface/peft 0.21, src/peft/utils/save_and_load.py, tuners/lora/layer.py.
 */
import type { StateEntry } from "../../runtime/state_entry.js";

/** Before the path of a module, in a file. */
export const PREFIX = "base_model.model.";

/** A tensor with its key in an adapter's file. */
export interface NamedPeftTensor extends StateEntry {
  /** `base_model.model.`, the module's path and `.lora_A.weight` or `.lora_B.weight`, as PEFT writes it. */
  name: string;
}

/** What can be adapted. */
export type LayerKind = "linear" | "conv" | "embedding";

/** What layers call their two factors: `<name><suffix>` in a file, `<name>.<adapter><suffix>` in a model. */
export interface FactorNames {
  readonly loraA: string;
  readonly loraB: string;
  readonly suffix: string;
}

/** Factors of linear layers and convolutions are layers themselves in PEFT, those of embeddings bare parameters. */
const WEIGHTS: FactorNames = { loraA: "lora_A", loraB: "lora_B", suffix: ".weight" };
export const FACTOR_NAMES: Readonly<Record<LayerKind, FactorNames>> = {
  linear: WEIGHTS,
  conv: WEIGHTS,
  embedding: { loraA: "lora_embedding_A", loraB: "lora_embedding_B", suffix: "" },
};

/** DoRA's magnitude, in a file; in a model `.<adapter>.weight` follows. */
export const MAGNITUDE = "lora_magnitude_vector";
/** The layer below an adapter, as a part of the adapted module. */
export const BASE_LAYER = "base_layer";

/** Both keys of a module's factors. */
export function factorKeys(modulePath: string, kind: LayerKind): [a: string, b: string] {
  const { loraA, loraB, suffix } = FACTOR_NAMES[kind];
  return [`${PREFIX}${modulePath}.${loraA}${suffix}`, `${PREFIX}${modulePath}.${loraB}${suffix}`];
}

/** What comes before such an end of a path; undefined if it has another, or nothing before it. */
export function before(path: string, end: string): string | undefined {
  return path.length > end.length && path.endsWith(end) ? path.slice(0, -end.length) : undefined;
}

/** A key of a factor: "linear" stands for convolutions, too, of which it says no more. */
export interface FactorKey {
  module: string;
  kind: "linear" | "embedding";
  isA: boolean;
}

/** What a key, without PREFIX, is a factor of; null: of nothing. */
export function parseFactorKey(path: string): FactorKey | null {
  for (const kind of ["linear", "embedding"] as const) {
    const { loraA, loraB, suffix } = FACTOR_NAMES[kind];
    for (const factor of [loraA, loraB]) {
      const module = before(path, `.${factor}${suffix}`);
      if (module !== undefined) return { module, kind, isA: factor === loraA };
    }
  }
  return null;
}

/** The key of a bias that trains with an adapter. */
export function biasKey(modulePath: string, isAdapted: boolean): string {
  return `${PREFIX}${modulePath}${isAdapted ? `.${BASE_LAYER}` : ""}.bias`;
}

/** The shape of a magnitude in a file: [outputs], or [1, outputs, 1, ...] of a convolution of so many dimensions. */
export function magnitudeShape(outputs: number, dimensions: number): number[] {
  return dimensions > 2 ? Array.from({ length: dimensions }, (_, i) => (i === 1 ? outputs : 1)) : [outputs];
}

/** The key of the bias of a module's loraB. */
export function factorBiasKey(modulePath: string): string {
  return `${PREFIX}${modulePath}.${FACTOR_NAMES.linear.loraB}.bias`;
}

/** Trained rows of a module's table, in a file; in a model the adapter's name follows. */
export const TOKENS = "token_adapter.trainable_tokens_delta";

/** The key of the trained rows of a module's table. PEFT calls them a delta, but they are the rows themselves. */
export function tokensKey(modulePath: string): string {
  return `${PREFIX}${modulePath}.${TOKENS}`;
}

/** The key of the base weight of an adapted module. */
export function baseWeightKey(modulePath: string): string {
  return `${PREFIX}${modulePath}.${BASE_LAYER}.weight`;
}

/** The key of DoRA's magnitude of a module. */
export function magnitudeKey(modulePath: string): string {
  return `${PREFIX}${modulePath}.${MAGNITUDE}`;
}

/** The key of a parameter of the base: of modules_to_save, or a bias. */
export function baseKey(parameterPath: string): string {
  return `${PREFIX}${parameterPath}`;
}

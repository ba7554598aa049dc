/** loralib's two helpers, with its exact rules on names. */
import type { BiasMode } from "../io/peft/config.js";
import type { Module, StateDict } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../tensor/check.js";
import { ConvLoRA } from "./conv.js";
import { Linear } from "./linear.js";
import { MergedLinear } from "./merged_linear.js";

function checkBias(where: string, bias: BiasMode): void {
  if (bias !== "none" && bias !== "all" && bias !== "lora_only") {
    throw new ArgumentError(`${where}: bias must be "none", "all" or "lora_only"; got ${shown(bias)}.`);
  }
}

/** Keys of the biases of LoRA layers, of any rank; an embedding has none. */
function loraBiases(model: Module): Set<string> {
  const keys = new Set<string>();
  for (const [path, m] of model.namedModules()) {
    if (m instanceof Linear || m instanceof MergedLinear || m instanceof ConvLoRA)
      keys.add(path ? `${path}.bias` : "bias");
  }
  return keys;
}

/**
 * Lets every parameter whose key has "lora_" train, also one that was frozen before, and freezes the others, but for
 * biases: every key that contains "bias" ("all"), or the bias of each LoRA layer ("lora_only"). (loralib leaves the
 * first as they are.)
 *
 * Source: loralib.mark_only_lora_as_trainable.
 * @param bias default "none"
 * @throws ArgumentError on another `bias`
 *
 * @example
 * const layer = new lora.Linear(8, 8, { r: 2 });
 * lora.markOnlyLoraAsTrainable(layer);
 * const trained = [...layer.namedParameters()].filter(([, p]) => p.requiresGrad);
 * console.log(trained.map(([key]) => key)); // [ 'lora_A', 'lora_B' ]
 */
export function markOnlyLoraAsTrainable(model: Module, bias: BiasMode = "none"): void {
  checkBias("markOnlyLoraAsTrainable", bias);
  const own = loraBiases(model);
  for (const [key, p] of model.namedParameters()) {
    p.requiresGrad =
      key.includes("lora_") || (bias === "all" && key.includes("bias")) || (bias === "lora_only" && own.has(key));
  }
}

/**
 * The part of the state dict that `markOnlyLoraAsTrainable(model, bias)` trains: keys with "lora_",
 * and for "all" those with "bias", for "lora_only" the bias beside each "lora_" key.
 *
 * Source: loralib.lora_state_dict.
 * @param bias default "none"
 * @throws ArgumentError on another `bias`
 *
 * @example
 * const layer = new lora.Linear(8, 8, { r: 2 });
 * console.log([...lora.loraStateDict(layer, "lora_only").keys()]); // [ 'bias', 'lora_A', 'lora_B' ]
 */
export function loraStateDict(model: Module, bias: BiasMode = "none"): StateDict {
  checkBias("loraStateDict", bias);
  const state = model.stateDict();
  const besideLora = new Set(
    [...state.keys()].filter((k) => k.includes("lora_")).map((k) => `${k.split("lora_")[0]}bias`),
  );
  return new Map(
    [...state].filter(
      ([key]) =>
        key.includes("lora_") ||
        (bias === "all" && key.includes("bias")) ||
        (bias === "lora_only" && besideLora.has(key)),
    ),
  );
}

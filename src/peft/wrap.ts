/** Which modules can be adapted, and the layer with adapters that takes such a one's place. */
import { Embedding, Linear } from "../nn/layers.js";
import type { Module } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import { className } from "../runtime/shown.js";
import { LoraConv } from "./conv.js";
import { LoraEmbedding } from "./embedding.js";
import { LoraLayer } from "./layer.js";
import { LoraLinear } from "./linear.js";
import { ModulesToSave } from "./modules_to_save.js";
import { TrainableTokens } from "./trainable_tokens.js";
import { isPlain, isPlainConv } from "./plain.js";

export function isAdaptable(module: Module): boolean {
  return module instanceof LoraLayer || isPlain(module, Linear) || isPlain(module, Embedding) || isPlainConv(module);
}

/** What PEFT's "all-linear" means, adapted or not. */
export function isLinear(module: Module): boolean {
  return module instanceof LoraLinear || isPlain(module, Linear);
}

/** The module with room for adapters; itself, if it has that already. @throws ArgumentError if it can have none */
export function wrap(where: string, path: string, module: Module): LoraLayer {
  if (module instanceof LoraLayer) return module;
  if (isPlain(module, Linear)) return new LoraLinear(module);
  if (isPlain(module, Embedding)) return new LoraEmbedding(module);
  if (isPlainConv(module)) return new LoraConv(module);
  if (module instanceof ModulesToSave)
    throw new ArgumentError(
      `${where}: target module ${path} is in another adapter's modulesToSave, which has copies of it; it cannot be ` +
        `adapted as well.`,
    );
  if (module instanceof TrainableTokens)
    throw new ArgumentError(
      `${where}: target module ${path} has trained tokens of another adapter (trainableTokenIndices); it cannot be ` +
        `adapted as well.`,
    );
  throw new ArgumentError(
    `${where}: target module ${path} is a ${className(module)}; only nn.Linear, nn.Embedding and nn's ` +
      `convolutions can be adapted, not what extends them.`,
  );
}

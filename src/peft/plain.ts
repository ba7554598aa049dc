/** Layers of nn itself: loralib's, which extend them, have factors of their own. */
import { ConvNd } from "../nn/conv.js";
import type { Module } from "../nn/module.js";

/** Exactly this class. */
export function isPlain<T extends Module>(module: Module, kind: new (...args: never[]) => T): module is T {
  return module.constructor === kind;
}

export function isPlainConv(module: Module): module is ConvNd {
  return module instanceof ConvNd && !("loraA" in module);
}

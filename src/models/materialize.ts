/** The memory of a model that was made under skipInit. */
import type { Module, Parameter } from "../nn/module.js";
import { dtypeOf, type StoredAs } from "./parts/stored.js";

/**
 * Gives a model's parameters their memory, whose contents are undefined: matrices, which alone can be other than
 * float32, as it is said, all else as float32.
 * @param isStored whether there are values for a key; what is to be drawn is float32
 * @throws OutOfMemoryError
 */
export function materialize(
  model: Module,
  storedAs: StoredAs | undefined,
  isStored: (key: string) => boolean = () => true,
): void {
  for (const [key, parameter] of model.namedParameters())
    parameter.materialize(isMatrix(parameter) && isStored(key) ? dtypeOf(key, parameter.shape, storedAs) : "float32");
}

/** Whether it is one of the weights that may be other than float32. */
export function isMatrix({ shape }: Pick<Parameter, "shape">): boolean {
  return shape.length === 2;
}

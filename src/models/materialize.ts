/** The memory of a model that was made under skipInit. */
import type { Module, Parameter } from "../nn/module.js";
import type { WeightDType } from "../tensor/dtype.js";

/**
 * Gives a model's parameters their memory, whose contents are undefined: matrices, which alone can be half, as `dtype`
 * says, all else as float32.
 * @param dtype of a matrix, by its key
 * @throws OutOfMemoryError
 */
export function materialize(model: Module, dtype: (key: string) => WeightDType): void {
  for (const [key, parameter] of model.namedParameters())
    parameter.materialize(isMatrix(parameter) ? dtype(key) : "float32");
}

/** Whether it is one of the weights that may be half. */
export function isMatrix({ shape }: Pick<Parameter, "shape">): boolean {
  return shape.length === 2;
}

/** A tensor outside linear memory: what a state dict holds of a parameter, and what readers of files give. */
export interface StateEntry {
  /** Sizes of the dimensions. */
  shape: readonly number[];
  /** The values, last dimension fastest; a copy outside linear memory. */
  data: Float32Array;
}

/** Whether it is one. */
export function isStateEntry(value: unknown): value is StateEntry {
  const { shape, data } = (value ?? {}) as Partial<StateEntry>;
  return Array.isArray(shape) && data instanceof Float32Array;
}

/** Element types of tensors: float32 for values, int32 for indices. Both have 4 bytes. */
export type DType = "float32" | "int32";
export const ELEMENT_BYTES = 4;

/**
 * Element types of tensors: float32 for values, int32 for indices. bfloat16 and float16 are what frozen weights may be
 * stored in; whatever reads them computes in float32.
 */
export type DType = "float32" | "int32" | HalfType;
/** Values of 16 bits. */
export type HalfType = "bfloat16" | "float16";
/** What a weight may be stored in. */
export type WeightDType = "float32" | HalfType;
export const WEIGHT_DTYPES: readonly WeightDType[] = ["float32", "bfloat16", "float16"];

/** The kernels' numbers of them (assembly/gemm/half.ts). */
const FORMATS: Readonly<Record<HalfType, number>> = { bfloat16: 1, float16: 2 };
/** Theirs of float16 without infinity and NaN. @internal */
export const FINITE16 = 3;

/** Whether values of 16 bits are meant. @internal */
export function isHalf(dtype: DType): dtype is HalfType {
  return dtype in FORMATS;
}
/** Bytes of one element. @internal */
export function elementBytes(dtype: DType): number {
  return isHalf(dtype) ? 2 : 4;
}
/** The kernels' number of a format. @internal */
export function formatOf(dtype: DType): number {
  return isHalf(dtype) ? FORMATS[dtype] : 0;
}

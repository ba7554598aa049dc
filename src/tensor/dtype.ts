/** What the elements of tensors are, and what weights are stored in. */
import { BLOCKS, bytesOfRow, type BlockType } from "./blocks.js";

/**
 * Element types of tensors: float32 for values, int32 for indices. The others are what frozen weights may be stored in;
 * whatever reads them computes in float32.
 */
export type DType = "float32" | "int32" | CompactType;
/** Values of 16 bits. */
export type HalfType = "bfloat16" | "float16";
/** Floats, one by one. */
export type FloatType = "float32" | HalfType;
export const FLOAT_TYPES: readonly FloatType[] = ["float32", "bfloat16", "float16"];
/** What takes less memory than float32: values of 16 bits, or blocks. */
export type CompactType = HalfType | BlockType;
/** What a weight may be stored in. */
export type WeightDType = FloatType | BlockType;
export const WEIGHT_DTYPES: readonly WeightDType[] = [...FLOAT_TYPES, ...(Object.keys(BLOCKS) as BlockType[])];

/** The kernels' numbers of them (assembly/gemm/half.ts). */
const FORMATS: Readonly<Record<HalfType, number>> = { bfloat16: 1, float16: 2 };
/** Theirs of float16 without infinity and NaN. @internal */
export const FINITE16 = 3;

/** Whether values of 16 bits are meant. @internal */
export function isHalf(dtype: DType): dtype is HalfType {
  return dtype in FORMATS;
}
/** Whether blocks are meant. @internal */
export function isBlocks(dtype: DType): dtype is BlockType {
  return dtype in BLOCKS;
}
/** Whether it takes less memory than float32, which `widen()` makes of it. @internal */
export function isCompact(dtype: DType): dtype is CompactType {
  return isHalf(dtype) || isBlocks(dtype);
}
/** Bytes of so many values, of a format of blocks as many as make whole blocks. @internal */
export function storedBytes(size: number, dtype: DType): number {
  return isBlocks(dtype) ? bytesOfRow(size, dtype) : size * (isHalf(dtype) ? 2 : 4);
}
/** Whether a tensor of this shape can have the dtype: rows are whole blocks. @internal */
export function fits(shape: readonly number[], dtype: DType): boolean {
  return !isBlocks(dtype) || (shape.length > 0 && shape.at(-1)! % BLOCKS[dtype].values === 0);
}
/** The kernels' number of a format. @internal */
export function formatOf(dtype: DType): number {
  return isHalf(dtype) ? FORMATS[dtype] : isBlocks(dtype) ? BLOCKS[dtype].format : 0;
}

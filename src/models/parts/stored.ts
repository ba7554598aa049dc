/** What weights are stored in: in files, in the words of safetensors or of Tensor.dtype, and in memory. */
import { fits, WEIGHT_DTYPES, type WeightDType } from "../../tensor/dtype.js";
import { ArgumentError } from "../../runtime/errors.js";
import { shown } from "../../runtime/shown.js";

/** What a weight may be stored in, in a file. @internal */
export type FileDType = WeightDType | "float64";

/**
 * What a model's matrices are stored as in memory: the same for all, but for those whose rows are not whole blocks of
 * it, which are float32; or each by its key, and float32 where it is not named.
 */
export type StoredAs = WeightDType | Readonly<Record<string, WeightDType>>;

const SAFETENSORS: Readonly<Record<string, FileDType>> = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  F64: "float64",
};

/** A file's type in one's own words; undefined: weights are not of that. @internal */
export function fileDType(dtype: string): FileDType | undefined {
  if (Object.hasOwn(SAFETENSORS, dtype)) return SAFETENSORS[dtype];
  return dtype === "float64" || (WEIGHT_DTYPES as readonly string[]).includes(dtype) ? (dtype as FileDType) : undefined;
}

/** What a matrix is stored as. @internal */
export function dtypeOf(key: string, shape: readonly number[], storedAs: StoredAs | undefined): WeightDType {
  const dtype = typeof storedAs === "object" ? (Object.hasOwn(storedAs, key) ? storedAs[key] : undefined) : storedAs;
  return dtype !== undefined && fits(shape, dtype) ? dtype : "float32";
}

/** @throws ArgumentError for what is none @internal */
export function checkStoredAs(where: string, storedAs: StoredAs | undefined): void {
  const named = typeof storedAs === "object" && storedAs !== null ? Object.entries(storedAs) : [["", storedAs]];
  for (const [key, dtype] of named)
    if (dtype !== undefined && !(WEIGHT_DTYPES as readonly unknown[]).includes(dtype))
      throw new ArgumentError(
        `${where}: dtype${key && ` of ${key}`} must be one of ${WEIGHT_DTYPES.join(", ")}; got ${shown(dtype)}.`,
      );
}

/** Values as a file's bytes, and back. */
import { toFloat32 } from "../io/safetensors.js";
import { toBfloat16, toFloat16 } from "../io/narrow.js";
import type { SafetensorsDtype } from "../io/safetensors_header.js";
import type { FloatType } from "../tensor/dtype.js";

/** What safetensors calls them. */
export const SAFETENSORS_DTYPES: Readonly<Record<FloatType, SafetensorsDtype>> = {
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
};

export function toBytes(values: Float32Array, dtype: FloatType): Uint8Array {
  if (dtype === "float16") return toFloat16(values);
  if (dtype === "bfloat16") return toBfloat16(values);
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

export function fromBytes(bytes: Uint8Array, dtype: FloatType): Float32Array {
  return toFloat32({ name: "", dtype: SAFETENSORS_DTYPES[dtype], shape: [], bytes });
}

/** The transpose of [rows, columns]. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j]!;
  return out;
}

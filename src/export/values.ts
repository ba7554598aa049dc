/** Values as a file's bytes, and back. */
import { toFloat32 } from "../io/safetensors.js";
import { toBfloat16, toFloat16 } from "../io/narrow.js";
import type { SafetensorsDtype } from "../io/safetensors_header.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { formatOf, storedBytes, type FloatType } from "../tensor/dtype.js";
import { widenedBytes } from "../tensor/widened.js";
import type { ModelDType } from "./targets.js";

/** What safetensors calls them. */
export const SAFETENSORS_DTYPES: Readonly<Record<FloatType, SafetensorsDtype>> = {
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
};

/** @param values whole rows; of "q8_0", as many as make whole blocks, none beyond float16 */
export function toBytes(values: Float32Array, dtype: ModelDType): Uint8Array {
  if (dtype === "float16") return toFloat16(values);
  if (dtype === "bfloat16") return toBfloat16(values);
  if (dtype === "q8_0") return toBlocks(values, dtype);
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** By the kernel that quantises on loading. */
function toBlocks(values: Float32Array, dtype: "q8_0"): Uint8Array {
  const { kernels, memory } = engine();
  const bytes = storedBytes(values.length, dtype);
  return memory.withBlocks([4 * values.length, bytes], (from, to) => {
    memory.f32(from, values.length).set(values);
    if (!kernels.quantise(to, from, values.length, formatOf(dtype)))
      throw new ArgumentError(`a weight is not finite, or too large for ${dtype}; write another type.`);
    return memory.u8(to, bytes).slice();
  });
}

export function fromBytes(bytes: Uint8Array, dtype: ModelDType): Float32Array {
  if (dtype === "q8_0") return widenedBytes(bytes, dtype);
  return toFloat32({ name: "", dtype: SAFETENSORS_DTYPES[dtype], shape: [], bytes });
}

/** The transpose of [rows, columns]. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j]!;
  return out;
}

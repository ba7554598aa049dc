/** The names of what can be written, apart from what writes it. */
import type { FloatType } from "../tensor/dtype.js";

/** Whom an adapter is for. */
export type ExportTarget = "gguf" | "ollama" | "mlx" | "workers-ai" | "peft";
export const EXPORT_TARGETS: readonly ExportTarget[] = ["gguf", "ollama", "mlx", "workers-ai", "peft"];

/** What a model's weights can be written in. */
export type ModelDType = FloatType | "q8_0";
export const MODEL_DTYPES: readonly ModelDType[] = ["float32", "float16", "bfloat16", "q8_0"];

/** What the command line calls the types of values. */
export const DTYPE_NAMES: Readonly<Record<string, FloatType>> = {
  f32: "float32",
  f16: "float16",
  bf16: "bfloat16",
};
/** As above, of a whole model's weights. */
export const MODEL_DTYPE_NAMES: Readonly<Record<string, ModelDType>> = { ...DTYPE_NAMES, q8_0: "q8_0" };

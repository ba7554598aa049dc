/**
 * The library. `init()` loads the kernels; then `tensor` and its like make tensors, `ops` and `nn` compute, `lora` and
 * `peft` adapt,
 * `optim` updates, `models` has whole language models, `data` their texts and `io` their files, and `train` fine-tunes
 * them.
 * @module wasm-lora
 */
export { init, memoryStats, type Engine, type InitOptions } from "./runtime/engine.js";
export { type Arithmetic, supportsFused } from "./runtime/fused.js";
export type { MemoryStats } from "./runtime/memory.js";
export * from "./runtime/errors.js";
export type { Options } from "./runtime/options.js";
export {
  clone,
  full,
  ones,
  tensor,
  Tensor,
  zeros,
  type NestedNumbers,
  type NumericData,
  type TypedData,
} from "./tensor/tensor.js";
export type { BlockType, QuantizedType } from "./tensor/blocks.js";
export type { CompactType, DType, FloatType, HalfType, WeightDType } from "./tensor/dtype.js";
export { scope } from "./tensor/scope.js";
export { noGrad } from "./autograd/tape.js";
export { gradientCheckpoint } from "./autograd/gradient_checkpoint.js";
export * as ops from "./autograd/ops/index.js";
export * as nn from "./nn/index.js";
export * as lora from "./lora/index.js";
export * as peft from "./peft/index.js";
export * as optim from "./optim/index.js";
export { manualSeed, type DropoutMask } from "./random/seed.js";
export { Generator } from "./random/generator.js";
export * as models from "./models/index.js";
export * as io from "./io/index.js";
export * as data from "./data/index.js";
export {
  exportAdapter,
  exportModel,
  type ExportAdapterOptions,
  type ExportedAdapter,
  type ExportedModel,
  type ExportModelOptions,
  type ModelDType,
  type ExportTarget,
} from "./export/index.js";
export * as train from "./train/index.js";

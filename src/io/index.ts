/**
 * Files: safetensors, PEFT's and loralib's adapters, Hugging Face's model folders, and PEFT's rules on module names.
 * @module
 */
export {
  parseSafetensors,
  serializeSafetensors,
  toFloat32,
  toInt32,
  type SafetensorsDtype,
  type SafetensorsFile,
  type TensorToWrite,
  type TensorView,
} from "./safetensors.js";
export {
  patternValue,
  peftBaseKey,
  peftEmbeddingKey,
  peftKey,
  peftMagnitudeKey,
  readPeftAdapter,
  scalingOf,
  serializePeftConfig,
  targets,
  writePeftAdapter,
  type LoraConfig,
  type NamedPeftTensor,
  type PeftAdapter,
  type PeftTensor,
  type Scales,
  type Selection,
} from "./peft.js";
export { matcher } from "./python_regexp.js";
export { loadWeights } from "./huggingface.js";
export { loadStateDict, saveStateDict } from "./state_dict.js";
export { loadLoralib, saveLoralib, type LoralibState } from "./loralib.js";
export {
  conv2dToPeft,
  linearToPeft,
  loralibToPeft,
  mergedLinearToPeft,
  type Conv2dLayer,
  type ConvertedAdapter,
  type LinearLayer,
  type LoralibLayer,
  type MergedLinearLayer,
  type PeftFactors,
} from "./convert.js";
export { memoryFiles } from "./files.js";
export { digestOfTensors } from "./digest.js";

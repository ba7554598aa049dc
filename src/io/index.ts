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
export { serializePeftConfig, type LoraConfig } from "./peft/config.js";
export { readPeftAdapter, writePeftAdapter, type PeftAdapter } from "./peft/folder.js";
export { peftBaseKey, peftEmbeddingKey, peftKey, peftMagnitudeKey, type NamedPeftTensor } from "./peft/keys.js";
export { patternValue, scalingOf, targets, type Scales, type Selection } from "./peft/match.js";
export { matcher } from "./peft/python_regexp.js";
export { loadWeights } from "./huggingface.js";
export { loadStateDict, saveStateDict } from "./state_dict.js";
export { loadLoralib, saveLoralib, type LoralibState } from "./loralib/state.js";
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
} from "./loralib/to_peft.js";
export { memoryFiles } from "./files.js";
export { digestOfTensors } from "./digest.js";

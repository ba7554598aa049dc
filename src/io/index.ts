/**
 * Files: safetensors, state dicts, loralib's factors, the weights of Hugging Face's folders, and files in memory.
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
export { loadWeights } from "./huggingface.js";
export { loadStateDict, saveStateDict } from "./state_dict.js";
export { loadLoralib, saveLoralib, type LoralibState } from "./loralib/state.js";
export { memoryFiles } from "./files.js";
export { digestOfTensors } from "./digest.js";

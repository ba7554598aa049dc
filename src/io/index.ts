export { parseSafetensors, serializeSafetensors, toFloat32, toInt32, type SafetensorsFile, type TensorToWrite, type TensorView } from "./safetensors.js";
export {
  patternValue, peftBaseKey, peftEmbeddingKey, peftKey, peftMagnitudeKey, readPeftAdapter, scalingOf, serializePeftConfig, targets, writePeftAdapter,
  type LoraConfig, type PeftTensor,
} from "./peft.js";
export { matcher } from "./python_regexp.js";
export { loadCheckpoint } from "./huggingface.js";
export { loadLoralib, saveLoralib, type LoralibState } from "./loralib.js";
export {
  conv2dToPeft, linearToPeft, loralibToPeft, mergedLinearToPeft,
  type Conv2dLayer, type LinearLayer, type LoralibLayer, type MergedLinearLayer, type PeftFactors,
} from "./convert.js";
export { memoryFiles } from "./files.js";

export { parseSafetensors, serializeSafetensors, toFloat32, toInt32, type SafetensorsFile, type TensorToWrite, type TensorView } from "./safetensors.js";
export { peftEmbeddingKey, peftKey, readPeftAdapter, writePeftAdapter, type PeftConfig, type PeftTensor } from "./peft.js";
export { loadCheckpoint } from "./huggingface.js";

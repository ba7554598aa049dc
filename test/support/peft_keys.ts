/** Keys of factors in PEFT's files. */
import { factorKeys } from "../../src/io/peft/keys.js";

/** Of a linear layer's or a convolution's factor. */
export function peftKey(modulePath: string, factor: "lora_A" | "lora_B"): string {
  return factorKeys(modulePath, "linear")[factor === "lora_A" ? 0 : 1];
}

/** Of an embedding's factor. */
export function peftEmbeddingKey(modulePath: string, factor: "lora_embedding_A" | "lora_embedding_B"): string {
  return factorKeys(modulePath, "embedding")[factor === "lora_embedding_A" ? 0 : 1];
}

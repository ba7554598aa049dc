/**
 * The base model that is part of the Worker, loaded once in an isolate, and again after a trap has ended its engine.
 */
import config from "wasm-lora/models/base/config.json";
import tokenizer from "wasm-lora/models/base/tokenizer.json";
import tokenizerConfig from "wasm-lora/models/base/tokenizer_config.json";
import weights from "wasm-lora/models/base/model.safetensors";
import { loadBase } from "./base.mjs";
import { kept } from "./kept.mjs";

export const embeddedBase = kept(
  () => loadBase({ config, tokenizer, tokenizerConfig, weights: new Uint8Array(weights) }),
  (base) => base.alive,
);

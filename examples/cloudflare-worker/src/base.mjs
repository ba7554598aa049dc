/** One base model in an isolate, its tokenizer, and the adapters that are at hand. */
import { Tokenizer } from "@huggingface/tokenizers";
import { init, io, models, peft } from "wasm-lora";
import { LIMITS } from "./limits.mjs";

const encoder = new TextEncoder();

/** @param files config, tokenizer and tokenizerConfig as JSON values; weights as bytes of a safetensors file */
export async function loadBase({ config, weights, tokenizer, tokenizerConfig }) {
  const engine = await init({ maximumBytes: LIMITS.linearMemoryBytes }), codec = new Tokenizer(tokenizer, tokenizerConfig);
  return withFiles("memory:base", { "config.json": encoder.encode(JSON.stringify(config)), "model.safetensors": weights }, (folder) =>
    new Base(engine, models.loadLlama(folder), codec));
}

class Base {
  #engine;
  #tokenizer;
  /** Versions of the adapters in the model by name, the one longest unused first. */
  #versions = new Map();

  constructor(engine, { model, config }, tokenizer) {
    this.#engine = engine;
    this.adapted = new peft.LoraModel(model);
    this.config = config;
    this.#tokenizer = tokenizer;
  }

  /** False after a trap: its tensors are dead with their engine. */
  get alive() { return this.#engine.alive; }

  /** Begin-of-text, then the text. */
  encode(text) {
    return [this.config.bosTokenId, ...(text ? this.#tokenizer.encode(text, { add_special_tokens: false }).ids : [])];
  }

  decode(ids) { return this.#tokenizer.decode([...ids], { skip_special_tokens: true }); }

  /**
   * Runs fn on the model with one adapter for each item of the batch.
   * @param adapters { name, version, files }, or null for the base model alone
   */
  withAdapters(adapters, fn) {
    for (const adapter of adapters) if (adapter) this.#fetch(adapter);
    return this.adapted.withAdapterNames(adapters.map((adapter) => adapter?.name ?? "__base__"), () => fn(this.adapted.model));
  }

  #fetch({ name, version, files }) {
    const known = this.#versions.get(name);
    this.#versions.delete(name);
    if (known === undefined) withFiles(`memory:${name}`, files, (folder) => this.adapted.loadAdapter(folder, name));
    else if (known !== version) withFiles(`memory:${name}`, files, (folder) => this.adapted.hotswapAdapter(folder, name));
    this.#versions.set(name, version);
    for (const oldest of this.#versions.keys()) {
      if (this.#versions.size <= LIMITS.adaptersAtHand) break;
      this.#versions.delete(oldest);
      this.adapted.deleteAdapter(oldest);
    }
  }
}

/** Runs fn with these files in a folder in memory. */
export function withFiles(folder, files, fn) {
  for (const [name, bytes] of Object.entries(files)) io.memoryFiles.set(`${folder}/${name}`, bytes);
  try {
    return fn(folder);
  } finally {
    for (const name of Object.keys(files)) io.memoryFiles.delete(`${folder}/${name}`);
  }
}

/** One base model in an isolate, its tokenizer, and the adapters that are at hand. */
import { data, FormatError, init, io, models, peft } from "wasm-lora";
import { LIMITS } from "./limits.mjs";

const encoder = new TextEncoder();

/** @param files config, tokenizer and tokenizerConfig as JSON values; weights as bytes of a safetensors file */
export async function loadBase({ config, weights, tokenizer, tokenizerConfig }) {
  const engine = await init({ maximumBytes: LIMITS.linearMemoryBytes });
  const codec = new data.Tokenizer(tokenizer, tokenizerConfig);
  return withFiles(
    "memory:base",
    { "config.json": encoder.encode(JSON.stringify(config)), "model.safetensors": weights },
    (folder) => {
      const { model, eosTokenIds } = models.loadModel(folder);
      return new Base(engine, model, codec, data.endOfTurnIds(codec, eosTokenIds));
    },
  );
}

class Base {
  #engine;
  #tokenizer;
  /** The adapters in the model by user and version, the one longest unused first: { name, holds }. */
  #adapters = new Map();
  #names = 0;

  constructor(engine, model, tokenizer, eosTokenIds) {
    this.#engine = engine;
    this.adapted = new peft.LoraModel(model);
    this.config = model.config;
    /** Each of them ends a text, or an answer of a chat. */
    this.eosTokenIds = eosTokenIds;
    this.#tokenizer = tokenizer;
  }

  /** False after a trap: its tensors are dead with their engine. */
  get alive() {
    return this.#engine.alive;
  }

  /** The text's tokens, with those that the model's texts begin with. */
  encode(text) {
    return this.#tokenizer.encode(text);
  }

  /** A chat up to where the next answer begins, as the tokenizer's template writes it. */
  encodeChat(messages) {
    const text = this.#tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true });
    return this.#tokenizer.encode(text, { addSpecialTokens: false });
  }

  /** Examples as rows to train on. @throws FormatError for one that nothing can be learnt from */
  tokenize(examples) {
    const tokenised = data.tokenizeExamples(examples, this.#tokenizer, {
      eosTokenIds: this.eosTokenIds,
      maxLength: LIMITS.rowTokens,
    });
    const { vocabSize } = this.config;
    for (const { ids, where } of tokenised.rows) {
      const stray = ids.find((id) => id >= vocabSize);
      if (stray !== undefined)
        throw new FormatError(`${where}: token ${stray} is beyond the model's vocabulary of ${vocabSize}.`);
    }
    return tokenised;
  }

  decode(ids) {
    return this.#tokenizer.decode(ids, { skipSpecialTokens: true });
  }

  /**
   * Runs fn on the model with one adapter for each item of the batch.
   * @param adapters { name, version, files }, or null for the base model alone
   */
  withAdapters(adapters, fn) {
    const held = [];
    try {
      for (const adapter of adapters) held.push(adapter && this.hold(adapter));
      return this.adapted.withAdapterNames(
        held.map((one) => one?.name ?? "__base__"),
        () => fn(this.adapted.model),
      );
    } finally {
      for (const one of held) one?.release();
    }
  }

  /**
   * An adapter in the model that stays there, as it is, until `release`: others come and go, and so do later versions
   * of it, while a text is generated token by token.
   */
  hold({ name: user, version, files }) {
    const key = `${user} ${version}`;
    const entry = this.#adapters.get(key) ?? { name: `adapter-${this.#names++}`, holds: 0 };
    if (!this.#adapters.delete(key))
      withFiles(`memory:${entry.name}`, files, (folder) => this.adapted.loadAdapter(folder, entry.name));
    this.#adapters.set(key, entry);
    entry.holds++;
    this.#letGo();
    return {
      name: entry.name,
      release: () => {
        entry.holds--;
        this.#letGo();
      },
    };
  }

  /** Of those that nobody holds. */
  #letGo() {
    for (const [key, { name, holds }] of this.#adapters) {
      if (this.#adapters.size <= LIMITS.adaptersAtHand) return;
      if (holds > 0) continue;
      this.#adapters.delete(key);
      this.adapted.deleteAdapter(name);
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

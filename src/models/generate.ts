/** Sampling from a language model, one token at a time with cached keys and values. */
import { noGrad } from "../autograd/tape.js";
import { extentOf } from "../nn/extent.js";
import { Module } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { bind } from "../runtime/synchronous.js";
import { checkInteger, shown } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import type { KeyValueCache } from "./cache.js";
import type { CausalLM, WrappedLM } from "./causal_lm.js";
import { checkedSampling, Sampler, SAMPLING_OPTIONS, type SamplingOptions } from "./sampling.js";

/** Options of `generate`. */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens to add at most. */
  maxNewTokens: number;
  /** Seed of the draws. Default 0. */
  seed?: number | undefined;
  /** Ends the text; not returned. One id or several, as a model's `config.eosTokenId`; null: none. Default: none. */
  stopToken?: number | readonly number[] | null | undefined;
}

const WHERE = "generate";
const OPTIONS: readonly (keyof GenerateOptions)[] = ["maxNewTokens", "seed", "stopToken", ...SAMPLING_OPTIONS];

/**
 * Yields new token ids after `prompt`, each as soon as it is drawn. Ends at a stopToken, after
 * maxNewTokens, or at the model's maxPositionEmbeddings. Same seed, same tokens, in every engine.
 *
 * Arguments are checked, and the adapters at work noted, when it is called: all tokens come from these adapters,
 * whatever is chosen before they are taken. So it may be called within `withAdapterNames` and `disableAdapter`, and
 * generations may take turns. Keys and values of the text so far are in linear memory until it ends; what leaves a loop
 * over it ends it. One that is forgotten is freed when the engine's garbage collector finds it.
 *
 * @param model a language model, or a LoraModel of one
 * @param prompt token ids in a list or typed array, at least one and at most maxPositionEmbeddings; a text's are
 * `data.loadTokenizer(directory).encode(text)`
 * @throws ArgumentError on what is no list of ids, an empty or too long one, an id beyond the vocabulary, an option out
 * of range or unknown. When a token is taken: StateError if the adapters that were noted are gone (deleted, replaced,
 * merged), or if the logits are not finite
 *
 * @example
 * const { model } = models.loadLlama("models/base");
 * const tokens = [...models.generate(model, [5, 6, 7], { maxNewTokens: 4, temperature: 0 })];
 * console.log(tokens.length); // 4
 */
export function generate(
  model: CausalLM | WrappedLM,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): IterableIterator<number> {
  const base = languageModel(model);
  const { vocabSize, maxPositionEmbeddings: limit } = base.config;
  if (options === undefined)
    throw new ArgumentError(`${WHERE}: options must say maxNewTokens: ${WHERE}(model, prompt, { maxNewTokens: 20 }).`);
  checkOptions(WHERE, options, OPTIONS);
  const { maxNewTokens, seed = 0, stopToken } = options;
  checkInteger(WHERE, "maxNewTokens", maxNewTokens, 0);
  const sampling = checkedSampling(WHERE, options);
  checkInteger(WHERE, "seed", seed, 0);
  const stops = new Set(
    stopToken === undefined || stopToken === null
      ? []
      : Array.isArray(stopToken)
        ? (stopToken as number[])
        : [stopToken as number],
  );
  for (const id of stops) checkInteger(WHERE, "stopToken", id, 0);
  const ids = checkedIds(prompt, vocabSize);
  if (ids.length === 0 || ids.length > limit)
    throw new ArgumentError(`${WHERE}: prompt has ${ids.length} tokens; expected 1 .. ${limit}.`);
  const sampler = new Sampler(WHERE, sampling, seed, ids);
  const within = extentOf(WHERE, base);
  const count = Math.min(maxNewTokens, limit - ids.length);
  function* tokens(): IterableIterator<number> {
    const cache = base.newCache();
    // The last token is not read.
    cache.limit = ids.length + count - 1;
    let next = ids;
    try {
      for (let i = 0; i < count; i++) {
        const token = within(() => noGrad(() => scope(() => sampler.draw(nextLogits(base, cache, next)))));
        if (stops.has(token)) return;
        yield token;
        next = Int32Array.of(token);
      }
    } finally {
      cache.dispose();
    }
  }
  return bind(tokens());
}

function isLanguageModel(value: unknown): value is CausalLM {
  const { forward, newCache, config } = (value ?? {}) as Partial<CausalLM>;
  return typeof forward === "function" && typeof newCache === "function" && typeof config === "object";
}

/** The language model itself. @throws ArgumentError */
function languageModel(model: unknown): CausalLM {
  if (isLanguageModel(model)) return model;
  const base = model instanceof Module && "model" in model ? model.model : model;
  if (isLanguageModel(base)) return base;
  const isLoaded = typeof base === "object" && base !== null && "model" in base && "config" in base;
  throw new ArgumentError(
    `${WHERE}: model must be a language model (Llama, Gpt2) or a LoraModel of one; got ${shown(base)}.` +
      (isLoaded ? " What was loaded holds it: pass its .model." : ""),
  );
}

/** A copy of the ids. @throws ArgumentError */
function checkedIds(prompt: unknown, vocabSize: number): Int32Array {
  const wanted = (got: string, advice = ""): never => {
    throw new ArgumentError(`${WHERE}: prompt must be a list of token ids; got ${got}.${advice}`);
  };
  if (typeof prompt === "string")
    return wanted(`the text ${shown(prompt)}`, ' Encode it: data.loadTokenizer("path of the model").encode(text).');
  if (prompt instanceof Tensor) return wanted("a Tensor", " Pass its values: Array.from(ids.indices).");
  if (!Array.isArray(prompt) && !(ArrayBuffer.isView(prompt) && !(prompt instanceof DataView)))
    return wanted(shown(prompt));
  const list = prompt as ArrayLike<unknown>;
  const ids = new Int32Array(list.length);
  for (let i = 0; i < ids.length; i++) {
    const id = list[i];
    if (Array.isArray(id) || ArrayBuffer.isView(id)) return wanted("a list of lists", " Pass one prompt a call.");
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocabSize) {
      throw new ArgumentError(
        `${WHERE}: prompt holds ${shown(id)} at position ${i}; expected an id in 0 .. ${vocabSize - 1}, the ` +
          `model's vocabulary.`,
      );
    }
    ids[i] = id as number;
  }
  return ids;
}

/** Of the token after ids: [1, 1, vocabSize]. */
function nextLogits(model: CausalLM, cache: KeyValueCache, ids: Int32Array): Tensor {
  return model.forward(tensor(ids, [1, ids.length]), { cache, logitsToKeep: 1 });
}

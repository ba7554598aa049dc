/** Sampling from a language model, one token at a time with cached keys and values. */
import { fillUniform, Generator } from "../random/generator.js";
import { softmax, scale } from "../autograd/ops/index.js";
import { noGrad } from "../autograd/tape.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkInteger, checkNumber } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import type { KeyValueCache } from "./cache.js";
import type { CausalLM } from "./causal_lm.js";

/** Options of `generate`. */
export interface GenerateOptions {
  /** Tokens to add at most. */
  maxNewTokens: number;
  /** Divides the logits; 0 takes the likeliest token (greedy). Default 0.8. */
  temperature?: number;
  /** Seed of the draws. Default 0. */
  seed?: number;
  /** Ends the text, each of several; not returned. Default: none. */
  stopToken?: number | readonly number[] | undefined;
}

/**
 * Yields new token ids after `prompt`, each as soon as it is drawn. Ends at stopToken, after
 * maxNewTokens, or at the model's maxPositionEmbeddings. Same seed, same tokens, in every engine.
 *
 * @param prompt token ids, at least one and at most maxPositionEmbeddings
 * @throws ArgumentError, at the first token, on an empty or too long prompt, an id beyond the vocabulary or an option out
 * of range
 *
 * @example
 * const { model } = models.loadLlama("models/base");
 * const tokens = [...models.generate(model, [5, 6, 7], { maxNewTokens: 4, temperature: 0 })];
 * console.log(tokens.length); // 4
 */
export function* generate(model: CausalLM, prompt: readonly number[], options: GenerateOptions): IterableIterator<number> {
  const { maxNewTokens, temperature = 0.8, seed = 0, stopToken = [] } = options, stops = new Set([stopToken].flat());
  checkInteger("generate", "maxNewTokens", maxNewTokens, 0);
  checkNumber("generate", "temperature", temperature, 0);
  const limit = model.config.maxPositionEmbeddings;
  if (prompt.length === 0 || prompt.length > limit) {
    throw new ArgumentError(`generate: prompt has ${prompt.length} tokens; expected 1 .. ${limit}.`);
  }
  const random = new Generator(seed);
  const cache = model.newCache();
  try {
    let next: readonly number[] = prompt;
    const count = Math.min(maxNewTokens, limit - prompt.length);
    for (let i = 0; i < count; i++) {
      const token = noGrad(() => scope(() => draw(model, cache, next, temperature, random)));
      if (stops.has(token)) return;
      yield token;
      next = [token];
    }
  } finally {
    cache.dispose();
    random.dispose();
  }
}

function draw(model: CausalLM, cache: KeyValueCache, ids: readonly number[], temperature: number, random: Generator): number {
  const logits = model.forward(tensor(Int32Array.from(ids), [1, ids.length]), cache);
  const last = tensor(logits.data.slice(-model.config.vocabSize));
  if (temperature === 0) return argMax(last.data);
  const probabilities = softmax(scale(last, 1 / temperature)).data;
  const u = uniform(random);
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) {
    sum += probabilities[i]!;
    if (u < sum) return i;
  }
  return argMax(probabilities);
}

function uniform(random: Generator): number {
  const { memory } = engine();
  const address = memory.alloc(4);
  fillUniform(random, address, 1, 0, 1);
  const u = memory.f32(address, 1)[0]!;
  memory.free(address);
  return u;
}

function argMax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** Sampling from a language model, one token at a time with cached keys and values. */
import { narrow } from "../autograd/ops/index.js";
import { noGrad } from "../autograd/tape.js";
import { extentOf } from "../nn/extent.js";
import { Module } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { bind } from "../runtime/synchronous.js";
import { checkInteger, shown } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import type { KeyValueCache } from "./parts/cache.js";
import type { CausalLM, WrappedLM } from "./parts/causal_lm.js";
import { checkedSampling, Sampler, SAMPLING_OPTIONS, type Sampling, type SamplingOptions } from "./sampling.js";

/** Options of `generate`. */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens to add at most. */
  maxNewTokens: number;
  /** Seed of the draws. Default 0. */
  seed?: number | undefined;
  /** Ends the text; not returned. One id or several, as a model's `config.eosTokenId`; null: none. Default: none. */
  stopToken?: number | readonly number[] | null | undefined;
}

/** Options of `generateBatch`. */
export interface GenerateBatchOptions extends Omit<GenerateOptions, "seed"> {
  /** Seeds of the draws, one for each prompt; with a number s, prompt i has s + i. Default 0. */
  seed?: number | readonly number[] | undefined;
}

/** A token of one of several texts. */
export interface BatchToken {
  /** Which prompt's text it goes on. */
  row: number;
  /** Its id. */
  token: number;
}

type Limits = CausalLM["config"];

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
 * const { model } = models.loadModel("models/base");
 * const tokens = [...models.generate(model, [5, 6, 7], { maxNewTokens: 4, temperature: 0 })];
 * console.log(tokens.length); // 4
 */
export function generate(
  model: CausalLM | WrappedLM,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): IterableIterator<number> {
  return generateAfter(null, model, prompt, options);
}

/**
 * `generate`, which need not read again what the memory has of the prompt's beginning. Afterwards the memory has the
 * new text. What is drawn is the same with a memory and without, as long as weights and acting adapters are those that
 * it was filled with.
 * @internal
 */
export function generateAfter(
  memory: TextMemory | null,
  model: CausalLM | WrappedLM,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): IterableIterator<number> {
  const where = "generate";
  const base = languageModel(where, model);
  const checked = checkedOptions(where, options);
  const ids = checkedIds(where, "prompt", prompt, base.config);
  const { seed = 0 } = options;
  checkInteger(where, "seed", seed, 0);
  const tokens = textsOf(where, base, [ids], checked, [new Sampler(where, checked.sampling, seed, ids)], memory);
  function* alone(): IterableIterator<number> {
    for (const { token } of tokens) yield token;
  }
  return bind(alone());
}

/** Keys and values of a text that was generated, for the next one that begins like it: a conversation's. @internal */
export class TextMemory {
  /** @internal */ static readonly className: string = "TextMemory";
  #cache: KeyValueCache | null = null;
  #ids: readonly number[] = [];

  /** Number of tokens that need not be read again. */
  get length(): number {
    return this.#ids.length;
  }

  /** Keys and values of all tokens that a text shares with the last one, but of its last, after which one is drawn. */
  recall(model: CausalLM, ids: readonly number[]): KeyValueCache {
    const cache = (this.#cache ??= model.newCache());
    let shared = 0;
    while (shared < ids.length - 1 && shared < this.#ids.length && ids[shared] === this.#ids[shared]) shared++;
    // The angles of a text's beginning may be others where the text is longer.
    if (shared === 0 || (cache.config.renewAt ?? 0) > 0) cache.dispose();
    else cache.length = shared;
    this.#ids = this.#ids.slice(0, cache.length);
    return cache;
  }

  /** Notes what the cache has now. */
  keep(ids: readonly number[]): void {
    this.#ids = ids;
  }

  /** Frees it; then it is as new. */
  dispose(): void {
    this.#cache?.dispose();
    this.#cache = null;
    this.#ids = [];
  }
}

/**
 * `generate` for several prompts at once: each token's weights are read once for all of them. Each text has the tokens
 * that it has alone, whatever the others are, and one that ends costs nothing from then on. Only in a model whose rope
 * is of the kind "dynamic" do its angles follow from the longest text of a batch, and from those before it, once one is
 * longer than config.originalMaxPositionEmbeddings, as in transformers. Called within `withAdapterNames`, each prompt
 * has its own adapter.
 *
 * @param prompts lists of token ids, of any lengths; at least one
 * @returns each new token with the number of its prompt: in turns one of each text that goes on
 * @throws as `generate`; ArgumentError also for seeds that are not one for each prompt
 *
 * @example
 * const { model, tokenizer } = models.loadModel("models/base");
 * const prompts = ["My fellow citizens", "The"].map((text) => tokenizer.encode(text));
 * const texts = prompts.map((ids) => [...ids]);
 * for (const { row, token } of models.generateBatch(model, prompts, { maxNewTokens: 5 })) texts[row].push(token);
 * console.log(texts.map((ids, i) => ids.length - prompts[i].length)); // [ 5, 5 ]
 */
export function generateBatch(
  model: CausalLM | WrappedLM,
  prompts: readonly ArrayLike<number>[],
  options: GenerateBatchOptions,
): IterableIterator<BatchToken> {
  const where = "generateBatch";
  const base = languageModel(where, model);
  const checked = checkedOptions(where, options);
  if (!Array.isArray(prompts) || prompts.length === 0)
    throw new ArgumentError(`${where}: prompts must be a list of at least one prompt; got ${shown(prompts)}.`);
  const all = (prompts as unknown[]).map((prompt, i) => checkedIds(where, `prompts[${i}]`, prompt, base.config));
  const { seed = 0 } = options;
  if (typeof seed !== "number" && !(Array.isArray(seed) && seed.length === all.length)) {
    throw new ArgumentError(
      `${where}: seed must be a number, or a list of one for each of ${all.length} prompts; got ${shown(seed)}.`,
    );
  }
  const samplers = all.map((ids, i) => {
    const own = typeof seed === "number" ? seed + i : (seed[i] as number);
    checkInteger(where, typeof seed === "number" ? "seed" : `seed[${i}]`, own, 0);
    return new Sampler(`${where}: prompts[${i}]`, checked.sampling, own, ids);
  });
  return bind(textsOf(where, base, all, checked, samplers));
}

interface Checked {
  readonly maxNewTokens: number;
  readonly sampling: Sampling;
  readonly stopTokens: ReadonlySet<number>;
}

/** @throws ArgumentError */
function checkedOptions(where: string, options: GenerateOptions | GenerateBatchOptions): Checked {
  if (options === undefined)
    throw new ArgumentError(`${where}: options must say maxNewTokens: ${where}(model, ids, { maxNewTokens: 20 }).`);
  checkOptions(where, options, OPTIONS);
  const { maxNewTokens, stopToken } = options;
  checkInteger(where, "maxNewTokens", maxNewTokens, 0);
  const sampling = checkedSampling(where, options);
  const stopTokens = new Set([stopToken ?? []].flat());
  for (const id of stopTokens) checkInteger(where, "stopToken", id, 0);
  return { maxNewTokens, sampling, stopTokens };
}

/** A text that goes on. */
interface Text {
  readonly row: number;
  readonly sampler: Sampler;
  /** The prompt, and what was drawn. */
  readonly ids: number[];
  /** Number of ids that keys and values are there of. */
  read: number;
  /** Tokens to draw yet, at most. */
  left: number;
}

function textsOf(
  where: string,
  model: CausalLM,
  prompts: readonly Int32Array[],
  { maxNewTokens, stopTokens }: Checked,
  samplers: readonly Sampler[],
  memory: TextMemory | null = null,
): IterableIterator<BatchToken> {
  const within = extentOf(where, model);
  function* tokens(): IterableIterator<BatchToken> {
    const texts = prompts
      .map((prompt, row): Text => {
        const left = Math.min(maxNewTokens, model.config.maxPositionEmbeddings - prompt.length);
        return { row, sampler: samplers[row]!, ids: [...prompt], read: 0, left };
      })
      .filter(({ left }) => left > 0);
    let groups = groupsOf(model, texts, memory);
    try {
      while (groups.length > 0) {
        for (const group of groups) {
          const rows = group.texts.map(({ row }) => row);
          const drawn = within(
            () => noGrad(() => scope(() => group.draw(model))),
            rows.length < prompts.length ? rows : undefined,
          );
          for (const [i, text] of group.texts.entries()) {
            const token = drawn[i]!;
            const stops = stopTokens.has(token);
            text.ids.push(token);
            text.left = stops ? 0 : text.left - 1;
            if (!stops) yield { row: text.row, token };
          }
          group.leaveEnded();
        }
        if (groups.some(({ texts }) => texts.length === 0)) groups = groups.filter(({ texts }) => texts.length > 0);
      }
    } finally {
      for (const group of groups) group.end();
    }
  }
  return tokens();
}

/** Texts that can be read together: all, unless the angles of one's positions change on its way and others' do not. */
function groupsOf(model: CausalLM, texts: readonly Text[], memory: TextMemory | null): Group[] {
  if (memory && texts.length === 1) return [new Group(memory.recall(model, texts[0]!.ids), [...texts], memory)];
  const { renewAt = 0 } = model.newCache().config;
  const isShort = texts.every(({ ids, left }) => ids.length + left <= renewAt);
  const isLong = texts.every(({ ids }) => ids.length > renewAt);
  const groups = isShort || isLong ? [[...texts]] : texts.map((text) => [text]);
  return groups.filter(({ length }) => length > 0).map((group) => new Group(model.newCache(), group));
}

/**
 * Texts with a cache. Rows are padded on the left, so that the last column is the next token's of each. When a text
 * ends, its row goes, and so do columns that are padding alone then: the columns never outnumber a text's positions.
 */
class Group {
  /** @internal */ static readonly className: string = "Group";

  constructor(
    readonly cache: KeyValueCache,
    public texts: Text[],
    /** Whose the cache is; null: the group's own. */
    readonly memory: TextMemory | null = null,
  ) {
    for (const text of texts) text.read = cache.length;
    this.#limit();
  }

  /** What is drawn last is not read. */
  #limit(): void {
    this.cache.limit = Math.max(...this.texts.map(({ ids, left }) => ids.length + left - 1));
  }

  /** Reads the next ids of each text and draws a token for each. */
  draw(model: CausalLM): number[] {
    const { cache, texts } = this;
    const { renewAt = 0 } = cache.config;
    // Then the group is one text alone.
    if (cache.length > 0 && cache.length <= renewAt && texts.some(({ ids }) => ids.length > renewAt)) {
      cache.dispose();
      for (const text of texts) text.read = 0;
    }
    const batch = texts.length;
    const steps = Math.max(...texts.map(({ ids, read }) => ids.length - read));
    const keys = cache.length + steps;
    const next = new Int32Array(batch * steps);
    for (const [i, { ids, read }] of texts.entries()) next.set(ids.slice(read), (i + 1) * steps - ids.length + read);
    const paddings = texts.map(({ ids }) => keys - ids.length);
    let attentionMask: Tensor | undefined;
    if (paddings.some((n) => n > 0)) {
      const mask = new Int32Array(batch * keys).fill(1);
      for (const [i, n] of paddings.entries()) mask.fill(0, i * keys, i * keys + n);
      attentionMask = tensor(mask, [batch, keys]);
    }
    const logits = model.forward(tensor(next, [batch, steps]), { cache, logitsToKeep: 1, attentionMask });
    for (const text of texts) text.read = text.ids.length;
    if (batch === 1) return [texts[0]!.sampler.draw(logits)];
    return texts.map(({ sampler }, i) => scope(() => sampler.draw(narrow(logits, 0, i, 1))));
  }

  /** Frees the cache, or leaves it to whose it is. */
  end(): void {
    if (!this.memory) return this.cache.dispose();
    const [text] = this.texts;
    if (text) this.memory.keep(text.ids.slice(0, text.read));
  }

  /** Goes on with the texts that have not ended. */
  leaveEnded(): void {
    const rows = this.texts.flatMap(({ left }, i) => (left > 0 ? [i] : []));
    if (rows.length === this.texts.length) return;
    if (rows.length === 0) this.end();
    this.texts = rows.map((i) => this.texts[i]!);
    if (rows.length === 0) return;
    this.cache.narrow(rows, this.cache.length - Math.max(...this.texts.map(({ read }) => read)));
    this.#limit();
  }
}

function isLanguageModel(value: unknown): value is CausalLM {
  const { forward, newCache, loss, config } = (value ?? {}) as Partial<CausalLM>;
  // A decoder without a head has no loss.
  return [forward, newCache, loss].every((method) => typeof method === "function") && typeof config === "object";
}

/** The language model itself. @throws ArgumentError */
function languageModel(where: string, model: unknown): CausalLM {
  if (isLanguageModel(model)) return model;
  const base = model instanceof Module && "model" in model ? model.model : model;
  if (isLanguageModel(base)) return base;
  const isLoaded = typeof base === "object" && base !== null && "model" in base && "config" in base;
  throw new ArgumentError(
    `${where}: model must be a language model (Llama, Gpt2) or a LoraModel of one; got ${shown(base)}.` +
      (isLoaded ? " What was loaded holds it: pass its .model." : ""),
  );
}

/** A copy of the ids. @throws ArgumentError */
function checkedIds(
  where: string,
  name: string,
  prompt: unknown,
  { vocabSize, maxPositionEmbeddings }: Limits,
): Int32Array {
  const wanted = (got: string, advice = ""): never => {
    throw new ArgumentError(`${where}: ${name} must be a list of token ids; got ${got}.${advice}`);
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
    if (Array.isArray(id) || ArrayBuffer.isView(id))
      return wanted("a list of lists", " Several prompts are given to generateBatch.");
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocabSize) {
      throw new ArgumentError(
        `${where}: ${name} holds ${shown(id)} at position ${i}; expected an id in 0 .. ${vocabSize - 1}, the ` +
          `model's vocabulary.`,
      );
    }
    ids[i] = id as number;
  }
  if (ids.length === 0 || ids.length > maxPositionEmbeddings)
    throw new ArgumentError(`${where}: ${name} has ${ids.length} tokens; expected 1 .. ${maxPositionEmbeddings}.`);
  return ids;
}

/** Rows of text and of messages as token ids, and which of them are scored. */
import { asObject } from "../io/json.js";
import { ArgumentError, FormatError, WasmLoraError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkInteger } from "../tensor/check.js";
import { ChatTemplate } from "./chat_template.js";
import type { ChatMessage, Example } from "./examples.js";
import { commonStart, partOf, spanOf, TokenizedText, Unusable, type Render, type Span } from "./masks.js";
import { checkDate } from "./strftime.js";
import { Tokenizer } from "./tokenizer.js";

/** A row to train on. */
export interface TrainingRow {
  /** Its tokens. */
  ids: Int32Array;
  /** Each of `ids` that is scored, and -100 for the others, as Hugging Face's labels. */
  labels: Int32Array;
  /** Its place, for errors. */
  where: string;
}

/** What `tokenizeExamples` makes of examples. */
export interface TokenizedData {
  /** In the examples' order. */
  rows: TrainingRow[];
  /** Rows that were longer than maxLength and lost their ends. */
  truncated: number;
  /** Examples that cannot be trained on, and why. */
  skipped: { where: string; reason: string }[];
  /**
   * Conversations whose template writes earlier turns otherwise than a last one (it drops thoughts): a row for each
   * answer was made of each.
   */
  split: number;
}

/**
 * What is scored. "completion": what comes after the prompt; of a conversation, its answers. "assistant": the
 * assistant's messages. "last": the last of these. "all": every token.
 */
export type LossOn = "completion" | "assistant" | "last" | "all";

/** Options of `tokenizeExamples`. */
export interface TokenizeExamplesOptions {
  /** The tokens that end a text of the model: `eosTokenIds` of `models.loadModel`. */
  eosTokenIds: readonly number[];
  /** Default: of texts all, of prompts with completions the completions, of messages the assistant's. */
  lossOn?: LossOn | undefined;
  /** Tokens a row; a longer one loses its end. Default 1024. */
  maxLength?: number | undefined;
  /** Default: the tokenizer's own. */
  chatTemplate?: ChatTemplate | undefined;
  /** The day that a template may write, "YYYY-MM-DD". */
  date?: string | undefined;
  /** Variables of the template's own; those of a row come before them. */
  chatTemplateKwargs?: Readonly<Record<string, unknown>> | undefined;
  /** What becomes of an example that cannot be trained on: an error, or an entry of `skipped`. Default "refuse". */
  onUnusable?: "refuse" | "skip" | undefined;
  /** Called after each example with those that are done, and all. */
  onProgress?: ((done: number, all: number) => void) | undefined;
}

const OPTIONS = [
  "eosTokenIds",
  "lossOn",
  "maxLength",
  "chatTemplate",
  "date",
  "chatTemplateKwargs",
  "onUnusable",
  "onProgress",
];
const LOSSES: readonly string[] = ["completion", "assistant", "last", "all"] satisfies LossOn[];
/** Labels of what is not scored. */
const IGNORED = -100;

/**
 * Examples as token ids, and which of these are scored.
 *
 * Texts and completions end with the model's end-of-text token. Conversations are what their template writes of them.
 * A scored answer takes its end-of-turn token along; a token that lies partly outside an answer is not scored.
 *
 * Source: TRL, SFTTrainer (data preparation and truncation); the masks of conversations are found by rendering their
 * beginnings, and need no marks in the template.
 * @throws FormatError naming the place of an example that cannot be trained on: one without a scored token, an answer
 * without an end-of-turn token, messages that the template refuses; ArgumentError
 *
 * @example
 * const { tokenizer, eosTokenIds } = models.loadModel("models/base");
 * const examples: data.Example[] = [{ kind: "completion", prompt: "My fellow", completion: " citizens", where: "1" }];
 * const [row] = data.tokenizeExamples(examples, tokenizer, { eosTokenIds }).rows;
 * console.log(tokenizer.decode(row.labels.filter((id) => id >= 0))); //  citizens<|endoftext|>
 */
export function tokenizeExamples(
  examples: readonly Example[],
  tokenizer: Tokenizer,
  options: TokenizeExamplesOptions,
): TokenizedData {
  const where = "tokenizeExamples";
  if (!Array.isArray(examples))
    throw new ArgumentError(
      `${where}: examples must be a list, as data.readExamples gives it; got ${shown(examples)}.`,
    );
  if (!(tokenizer instanceof Tokenizer))
    throw new ArgumentError(`${where}: tokenizer must be a data.Tokenizer; got ${shown(tokenizer)}.`);
  const settings = checked(where, tokenizer, options);
  const { onUnusable = "refuse", onProgress, maxLength = 1024 } = options;
  const data: TokenizedData = { rows: [], truncated: 0, skipped: [], split: 0 };
  const ends = new Set(settings.eosTokenIds);
  const rowsOf = (example: Example): TrainingRow[] => {
    switch (example.kind) {
      case "text":
        return [textRow(example, "", example.text, tokenizer, ends, settings)];
      case "completion":
        return [textRow(example, example.prompt, example.completion, tokenizer, ends, settings)];
      case "tokens":
        return [tokensRow(example, settings.lossOn)];
      case "messages":
      case "chatCompletion":
        return conversationRows(example, tokenizer, ends, settings);
    }
  };
  for (const [i, example] of (examples as readonly Example[]).entries()) {
    try {
      const rows = rowsOf(example);
      const kept = rows.map((row) => cutRow(row, maxLength));
      data.rows.push(...kept);
      data.truncated += kept.filter((row, r) => row !== rows[r]).length;
      if (rows.length > 1) data.split++;
    } catch (cause) {
      if (!(cause instanceof Unusable)) throw cause;
      if (onUnusable === "refuse")
        throw new FormatError(
          `${example.where}: ${cause.message}; mend or remove the row, or let such rows be skipped.`,
          { cause },
        );
      data.skipped.push({ where: example.where, reason: cause.message });
    }
    onProgress?.(i + 1, examples.length);
  }
  return data;
}

type Settings = Pick<TokenizeExamplesOptions, "eosTokenIds" | "lossOn" | "date" | "chatTemplateKwargs"> & {
  template: ChatTemplate | null;
};

function checked(where: string, tokenizer: Tokenizer, options: TokenizeExamplesOptions): Settings {
  if (options === undefined) throw new ArgumentError(`${where}: options are needed: { eosTokenIds }.`);
  checkOptions(where, options, OPTIONS);
  const { eosTokenIds, lossOn, maxLength = 1024, chatTemplate, date, chatTemplateKwargs, onUnusable } = options;
  if (!Array.isArray(eosTokenIds) || !eosTokenIds.every((id) => Number.isSafeInteger(id) && id >= 0))
    throw new ArgumentError(`${where}: eosTokenIds must be a list of token ids; got ${shown(eosTokenIds)}.`);
  if (lossOn !== undefined && !LOSSES.includes(lossOn))
    throw new ArgumentError(`${where}: lossOn must be one of ${LOSSES.join(", ")}; got ${shown(lossOn)}.`);
  checkInteger(where, "maxLength", maxLength, 2);
  if (chatTemplate !== undefined && !(chatTemplate instanceof ChatTemplate))
    throw new ArgumentError(`${where}: chatTemplate must be a data.ChatTemplate; got ${shown(chatTemplate)}.`);
  if (date !== undefined) checkDate(where, date);
  if (chatTemplateKwargs !== undefined && !asObject(chatTemplateKwargs))
    throw new ArgumentError(`${where}: chatTemplateKwargs must be an object; got ${shown(chatTemplateKwargs)}.`);
  if (onUnusable !== undefined && onUnusable !== "refuse" && onUnusable !== "skip")
    throw new ArgumentError(`${where}: onUnusable must be refuse or skip; got ${shown(onUnusable)}.`);
  return { eosTokenIds, lossOn, date, chatTemplateKwargs, template: chatTemplate ?? tokenizer.chatTemplate };
}

/** A text, or a prompt with its completion, of which the prompt is not scored. */
function textRow(
  { kind, where }: Example,
  prompt: string,
  completion: string,
  tokenizer: Tokenizer,
  ends: ReadonlySet<number>,
  { eosTokenIds, lossOn }: Settings,
): TrainingRow {
  const own = kind === "text" ? "all" : "completion";
  if (lossOn !== undefined && lossOn !== own && lossOn !== "all")
    throw new ArgumentError(
      `tokenizeExamples: lossOn is ${lossOn}, but ${where} is a ${kind}, which has no messages; expected ` +
        `${own === "all" ? own : `${own} or all`}.`,
    );
  const text = new TokenizedText(prompt + completion, (part) => tokenizer.encode(part, { addSpecialTokens: false }));
  // Begin-of-text goes before, and is no part of what is scored after a prompt.
  const ids = tokenizer.encode(text.text);
  let before = 0;
  while (before < ids.length && commonStart(ids.slice(before), text.ids) < text.ids.length) before++;
  if (ids.length === 0 || !ends.has(ids.at(-1)!) || text.ids.length === 0) {
    if (eosTokenIds.length > 0) ids.push(tokenizer.preferredOf(eosTokenIds));
    else if (kind === "completion") throw new Unusable("the model has no token that could end the completion");
  }
  const first = (lossOn ?? own) === "all" ? 0 : before + text.firstFrom(prompt.length);
  return scoredRow(where, ids, [[first, ids.length]]);
}

function tokensRow({ inputIds, labels, where }: Example & { kind: "tokens" }, lossOn: LossOn | undefined): TrainingRow {
  if (lossOn !== undefined && lossOn !== "all")
    throw new ArgumentError(`tokenizeExamples: lossOn is ${lossOn}, but ${where} is of tokens, whose labels say it.`);
  return scored({ ids: inputIds, labels: lossOn === "all" || !labels ? inputIds.slice() : labels, where });
}

function conversationRows(
  example: Example & { kind: "messages" | "chatCompletion" },
  tokenizer: Tokenizer,
  ends: ReadonlySet<number>,
  { lossOn: asked, template, date, chatTemplateKwargs }: Settings,
): TrainingRow[] {
  const { where, tools, chatTemplateKwargs: own } = example;
  if (template === null)
    throw new FormatError(
      `${where}: it holds messages, and the tokenizer has no chat template; give one (--template <file>, or the ` +
        `option chatTemplate), made of tokens that the model has.`,
    );
  const prompt = example.kind === "messages" ? [] : example.prompt;
  const given = example.kind === "messages" ? example.messages : [...prompt, ...example.completion];
  // The weight is for us; templates get what else there is.
  const messages = given.map(({ weight: _, ...message }) => message as ChatMessage);
  const render: Render = (some, addGenerationPrompt) => {
    try {
      return template.render(some, {
        tools,
        date,
        addGenerationPrompt,
        kwargs: { ...chatTemplateKwargs, ...own },
      });
    } catch (cause) {
      if (!(cause instanceof WasmLoraError)) throw cause;
      throw new Unusable(cause.message, { cause });
    }
  };
  const encode = (text: string): number[] => tokenizer.encode(text, { addSpecialTokens: false });
  const whole = new TokenizedText(render(messages, false), encode);
  const lossOn = asked ?? (example.kind === "messages" ? "assistant" : "completion");
  const isOut = (i: number): boolean => given[i]!.weight === 0;
  const answers = messages.flatMap(({ role }, i) => (role === "assistant" ? [i] : []));
  const isCompletion = lossOn === "completion" && example.kind === "chatCompletion";
  if (lossOn === "all" || isCompletion) {
    const spanOfMessages = (first: number, end: number): Span => {
      const span = spanOf(whole, partOf(messages, first, end, render), ends);
      if (span) return span;
      throw new Unusable(`the template writes what comes before message ${first + 1} otherwise if more follows`);
    };
    const all: Span = isCompletion ? spanOfMessages(prompt.length, messages.length) : [0, whole.ids.length];
    if (answers.some((i) => i >= prompt.length && !isOut(i))) checkEnd(whole.ids, all, ends);
    const out = messages.flatMap((_, i) => (i >= (isCompletion ? prompt.length : 0) && isOut(i) ? [i] : []));
    return [
      scoredRow(
        where,
        whole.ids,
        [all],
        out.map((i) => spanOfMessages(i, i + 1)),
      ),
    ];
  }
  const asksLast = lossOn === "last";
  const wanted = answers.filter((i) => !isOut(i) && (!asksLast || i === answers.at(-1)));
  if (wanted.length === 0)
    throw new Unusable(
      answers.length === 0 ? "no message is the assistant's" : "no answer is scored: their weights are 0",
    );
  const parts = wanted.map((i) => partOf(messages, i, i + 1, render));
  const spans = parts.map((part) => spanOf(whole, part, ends));
  if (spans.every((span) => span !== null)) {
    for (const span of spans) checkEnd(whole.ids, span, ends);
    return [scoredRow(where, whole.ids, spans)];
  }
  return parts.map((part, k) => {
    const alone = new TokenizedText(part.upto, encode);
    const span = spanOf(alone, part, ends);
    if (span === null)
      throw new Unusable(`the template writes what comes before message ${wanted[k]! + 1} otherwise if that follows`);
    checkEnd(alone.ids, span, ends);
    return scoredRow(where, alone.ids, [span]);
  });
}

/** An answer without its end teaches never to stop. */
function checkEnd(ids: readonly number[], [start, end]: Span, ends: ReadonlySet<number>): void {
  if (!ids.slice(start, end).some((id) => ends.has(id)))
    throw new Unusable("the template ends an answer with none of the tokens that end a text of the model");
}

function scoredRow(
  where: string,
  ids: readonly number[],
  spans: readonly Span[],
  without: readonly Span[] = [],
): TrainingRow {
  const labels = new Int32Array(ids.length).fill(IGNORED);
  for (const [start, end] of spans) for (let i = start; i < end; i++) labels[i] = ids[i]!;
  for (const [start, end] of without) labels.fill(IGNORED, start, end);
  return scored({ ids: Int32Array.from(ids), labels, where });
}

/** The first token is nobody's target. */
function scored(row: TrainingRow): TrainingRow {
  if (row.labels.subarray(1).every((label) => label === IGNORED)) throw new Unusable("no token of it is scored");
  return row;
}

function cutRow(row: TrainingRow, maxLength: number): TrainingRow {
  if (row.ids.length <= maxLength) return row;
  const labels = row.labels.slice(0, maxLength);
  if (labels.subarray(1).every((label) => label === IGNORED))
    throw new Unusable(`its first ${maxLength} of ${row.ids.length} tokens (maxLength) hold none that is scored`);
  return { ids: row.ids.slice(0, maxLength), labels, where: row.where };
}

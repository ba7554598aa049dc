/** Rows of text and of messages as token ids, and which of them are scored. */
import { asObject } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkInteger } from "../tensor/check.js";
import { ChatTemplate } from "./chat_template.js";
import { brokenMarks, conversationRows, type ConversationSettings } from "./conversation.js";
import { endOfTurnIds } from "./end_of_turn.js";
import type { Example } from "./examples.js";
import { checkScored, cutRow, scoredRow, Unusable, type TrainingRow } from "./labels.js";
import { TokenizedText, type Encoding } from "./masks.js";
import { checkDate } from "./strftime.js";
import { Tokenizer } from "./tokenizer.js";

/** An example that was left out. */
export interface SkippedExample {
  /** Its place. */
  where: string;
  /** Why, as a clause. */
  reason: string;
}

/** What `tokenizeExamples` makes of examples. */
export interface TokenizedData {
  /** In the examples' order. */
  rows: TrainingRow[];
  /** Rows that were longer than maxLength and lost their ends. */
  truncated: number;
  /** Examples that cannot be trained on, and why. */
  skipped: SkippedExample[];
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
  checkSettings(where, options);
  const { lossOn, onUnusable = "refuse", onProgress, maxLength = 1024 } = options;
  const data: TokenizedData = { rows: [], truncated: 0, skipped: [], split: 0 };
  const encoding: Encoding = {
    encode: (text) => encoded(tokenizer, text, false),
    anchors: tokenizer.anchors,
  };
  let conversations: ConversationSettings | undefined;
  const rowsOf = (example: Example): TrainingRow[] => {
    switch (example?.kind) {
      case "text":
        return [textRow(example, "", example.text, tokenizer, encoding, options)];
      case "completion":
        return [textRow(example, example.prompt, example.completion, tokenizer, encoding, options)];
      case "tokens":
        return [tokensRow(example, lossOn)];
      case "messages":
      case "chatCompletion":
        conversations ??= conversationSettings(example.where, tokenizer, encoding, options);
        return conversationRows(example, conversations);
      default:
        // Who writes JavaScript may give anything.
        throw new ArgumentError(
          `${where}: examples must be what data.readExamples gives, of the kind text, messages, completion, ` +
            `chatCompletion or tokens; got ${shown(example)}.`,
        );
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
          `${example.where}: ${cause.message}; mend or remove the row, or skip such rows (--skip-unusable, or ` +
            `onUnusable: "skip").`,
          { cause },
        );
      data.skipped.push({ where: example.where, reason: cause.message });
    }
    onProgress?.(i + 1, examples.length);
  }
  return data;
}

function checkSettings(where: string, options: TokenizeExamplesOptions): void {
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
}

function conversationSettings(
  where: string,
  tokenizer: Tokenizer,
  encoding: Encoding,
  { eosTokenIds, lossOn, chatTemplate, date, chatTemplateKwargs: kwargs = {} }: TokenizeExamplesOptions,
): ConversationSettings {
  const template = chatTemplate ?? tokenizer.chatTemplate;
  if (template === null)
    throw new FormatError(
      `${where}: it holds messages, and the tokenizer has no chat template; give one (--template <file>, or the ` +
        `option chatTemplate), made of tokens that the model has.`,
    );
  const { eos_token: end } = tokenizer.specialTokensMap;
  const own = end === undefined ? [] : encoding.encode(end);
  const ends = new Set([
    ...endOfTurnIds(tokenizer, eosTokenIds, { chatTemplate: template, date, kwargs }),
    ...(own.length === 1 ? own : []),
  ]);
  return {
    template,
    encoding,
    ends,
    // A model's own template may write marks that are no tokens: its model has seen them so.
    brokenMarks: tokenizer.hasOwn(template) ? [] : brokenMarks(template.source, encoding),
    lossOn,
    date,
    kwargs,
  };
}

/** Token ids of a row's text. @throws Unusable for what the tokenizer has no tokens for */
function encoded(tokenizer: Tokenizer, text: string, addSpecialTokens: boolean): number[] {
  try {
    return tokenizer.encode(text, { addSpecialTokens });
  } catch (cause) {
    if (!(cause instanceof FormatError)) throw cause;
    throw new Unusable(cause.message, { cause });
  }
}

/** A text, or a prompt with its completion, of which the prompt is not scored. */
function textRow(
  { kind, where }: Example,
  prompt: string,
  completion: string,
  tokenizer: Tokenizer,
  encoding: Encoding,
  { eosTokenIds, lossOn }: TokenizeExamplesOptions,
): TrainingRow {
  const own = kind === "text" ? "all" : "completion";
  if (lossOn !== undefined && lossOn !== own && lossOn !== "all")
    throw new ArgumentError(
      `tokenizeExamples: lossOn is ${lossOn}, but ${where} is a ${kind}, which has no messages; expected ` +
        `${own === "all" ? own : `${own} or all`}.`,
    );
  const text = prompt + completion;
  const ids = encoded(tokenizer, text, true);
  let first = 0;
  if ((lossOn ?? own) !== "all") {
    const bare = new TokenizedText(text, encoding);
    // Begin-of-text goes before, and is no part of what is scored after a prompt.
    first = placeOf(bare.ids, ids) + bare.firstFrom(prompt.length);
  }
  // Of no text the end may be what begins a text, too.
  const isEnded = eosTokenIds.includes(ids.at(-1)!) && encoding.encode(text).length > 0;
  if (!isEnded) {
    if (eosTokenIds.length > 0) ids.push(tokenizer.preferredOf(eosTokenIds));
    else if (kind === "completion") throw new Unusable("the model has no token that could end the completion");
  }
  return scoredRow(where, ids, [[first, ids.length]]);
}

/** Where among tokens others stand, one after the other; the end of all where these do not. */
function placeOf(part: readonly number[], ids: readonly number[]): number {
  // Few tokens are not of the text, so few places can be it.
  const last = ids.length - part.length;
  for (let at = 0; at <= last; at++) if (part.every((id, i) => id === ids[at + i])) return at;
  return ids.length;
}

function tokensRow({ inputIds, labels, where }: Example & { kind: "tokens" }, lossOn: LossOn | undefined): TrainingRow {
  if (lossOn !== undefined && lossOn !== "all")
    throw new ArgumentError(`tokenizeExamples: lossOn is ${lossOn}, but ${where} is of tokens, whose labels say it.`);
  return checkScored({ ids: inputIds, labels: lossOn === "all" || !labels ? inputIds.slice() : labels, where });
}

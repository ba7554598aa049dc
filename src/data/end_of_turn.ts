/** What ends an answer: the tokens that end a text, and the one that the chat template writes there. */
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import type { ChatTemplate, RenderOptions } from "./chat_template.js";
import type { Tokenizer } from "./tokenizer.js";

/** Options of `endOfTurnIds`: how a conversation is rendered. */
export interface EndOfTurnOptions extends Pick<RenderOptions, "date" | "kwargs"> {
  /** Default: the tokenizer's own. */
  chatTemplate?: ChatTemplate | null | undefined;
}

/** In the place of an answer, to be found again: characters that no template writes. */
const ANSWER = "\ue000\ue001";

/**
 * The tokens that end an answer of a model: those that end a text, and the special token that its chat template writes
 * behind an answer, where it is another. (Qwen's bases end texts with <|endoftext|>, and their template ends turns with
 * <|im_end|>.) Without a template, or with one that refuses a question and an answer, these are `eosTokenIds`.
 *
 * @param eosTokenIds that of `models.loadModel`
 * @throws ArgumentError for what is no list of ids, and for what the template cannot be given
 *
 * @example
 * const { tokenizer, eosTokenIds } = models.loadModel("models/base");
 * const specialTokens = tokenizer.specialTokensMap;
 * tokenizer.chatTemplate = new data.ChatTemplate("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", {
 *   specialTokens,
 * });
 * console.log(data.endOfTurnIds(tokenizer, eosTokenIds)); // [ 0 ]
 */
export function endOfTurnIds(
  tokenizer: Tokenizer,
  eosTokenIds: readonly number[],
  options: EndOfTurnOptions = {},
): number[] {
  const where = "endOfTurnIds";
  checkOptions(where, options, ["date", "kwargs", "chatTemplate"]);
  if (!Array.isArray(eosTokenIds) || !eosTokenIds.every((id) => Number.isSafeInteger(id)))
    throw new ArgumentError(`${where}: eosTokenIds must be a list of token ids; got ${shown(eosTokenIds)}.`);
  if (typeof (tokenizer as Partial<Tokenizer> | null)?.decode !== "function")
    throw new ArgumentError(`${where}: tokenizer must be a data.Tokenizer; got ${shown(tokenizer)}.`);
  const { chatTemplate = tokenizer.chatTemplate, ...rendering } = options;
  const ids = [...(eosTokenIds as readonly number[])];
  if (!chatTemplate) return ids;
  const messages = [
    { role: "user", content: "?" },
    { role: "assistant", content: ANSWER },
  ];
  let text: string;
  try {
    text = chatTemplate.render(messages, rendering);
  } catch (error) {
    if (error instanceof FormatError) return ids;
    throw error;
  }
  const at = text.lastIndexOf(ANSWER);
  if (at < 0) return ids;
  const behind = tokenizer.encode(text.slice(at + ANSWER.length), { addSpecialTokens: false });
  const isSpecial = (id: number): boolean => tokenizer.decode([id], { skipSpecialTokens: true }) === "";
  const end = behind.find(isSpecial);
  return end === undefined || ids.includes(end) ? ids : [...ids, end];
}

/** What ends an answer: the tokens that end a text, and the one that the chat template writes there. */
import { FormatError } from "../runtime/errors.js";
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
  { chatTemplate = tokenizer.chatTemplate, ...options }: EndOfTurnOptions = {},
): number[] {
  const ids = [...eosTokenIds];
  if (!chatTemplate) return ids;
  const messages = [
    { role: "user", content: "?" },
    { role: "assistant", content: ANSWER },
  ];
  let text: string;
  try {
    text = chatTemplate.render(messages, options);
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

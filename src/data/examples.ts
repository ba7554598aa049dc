/** What a row of training data is, whatever file it came from. */

/** A part of a message's content: text, or what a template of more than text knows. */
export interface ContentPart {
  /** "text" mostly. */
  type: string;
  /** The part's text. */
  text?: string | undefined;
  /** Whatever else the part has goes to the template as it is. */
  [key: string]: unknown;
}

/** A message of a conversation. */
export interface ChatMessage {
  /** "system", "user", "assistant", "tool", or what else the template knows. */
  role: string;
  /** The text; null where there is none, as beside tool calls. */
  content: string | null | readonly ContentPart[];
  /** 0: no token of this message is scored; 1, the default: they are, if lossOn says so. */
  weight?: 0 | 1 | undefined;
  /** Whatever else the message has (tool_calls, name, reasoning_content, ...) goes to the template as it is. */
  [key: string]: unknown;
}

/** A row as text or messages, before the template and the tokenizer. */
export type Example = {
  /** The row's place, for errors: "chats.jsonl:12". */
  where: string;
  /** Variables of the template for this row alone. */
  chatTemplateKwargs?: Record<string, unknown> | undefined;
} & (
  | { kind: "text"; text: string }
  | { kind: "messages"; messages: readonly ChatMessage[]; tools?: readonly unknown[] | undefined }
  | { kind: "completion"; prompt: string; completion: string }
  | {
      kind: "chatCompletion";
      prompt: readonly ChatMessage[];
      completion: readonly ChatMessage[];
      tools?: readonly unknown[] | undefined;
    }
  | { kind: "tokens"; inputIds: Int32Array; labels: Int32Array | null }
);

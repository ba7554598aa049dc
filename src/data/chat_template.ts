/** Chat templates: conversations to the text that a model was trained on, as transformers renders them. */
import { asObject, checkText, show } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import type { ChatMessage } from "./examples.js";
import { parse, render, type Parsed, type Written } from "./jinja.js";
import { checkDate, strftime } from "./strftime.js";

/** Options of `ChatTemplate`. */
export interface ChatTemplateOptions {
  /** What it is called in errors: its file. Default "the chat template". */
  name?: string | undefined;
  /** The tokens it may write, by the names of its variables: { bos_token: "<s>", eos_token: "</s>" }. */
  specialTokens?: Readonly<Record<string, string>> | undefined;
  /** The template for conversations with tools, where a model has one of its own for them. */
  toolUse?: string | undefined;
}

/** Options of `ChatTemplate.render` and `Tokenizer.applyChatTemplate`. */
export interface RenderOptions {
  /** The tools that the model may call, as JSON schemas. */
  tools?: readonly unknown[] | undefined;
  /** What the model may quote: { title, text } each. */
  documents?: readonly unknown[] | undefined;
  /** Whether the beginning of an answer comes last, for a model that is to write the rest. Default false. */
  addGenerationPrompt?: boolean | undefined;
  /** The day that a template may write, "YYYY-MM-DD". Without one it is not told any: not today's either. */
  date?: string | undefined;
  /** Variables of the template's own: { enable_thinking: false }. */
  kwargs?: Readonly<Record<string, unknown>> | undefined;
}

const RENDER_OPTIONS = ["tools", "documents", "addGenerationPrompt", "date", "kwargs"];

/**
 * A chat template, in Jinja: it writes a conversation as the one text that a model reads. It writes all special tokens
 * itself, so its text is encoded with `addSpecialTokens: false`.
 *
 * Source: transformers 5, utils/chat_template_utils.py; rendered by @huggingface/jinja.
 * @throws FormatError for what is no template; ArgumentError for options that are none
 *
 * @example
 * const source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}";
 * const template = new data.ChatTemplate(source, { specialTokens: { eos_token: "</s>" } });
 * console.log(template.render([{ role: "user", content: "Hi" }])); // <|user|>Hi</s>
 */
export class ChatTemplate {
  /** @internal */ static readonly className: string = "ChatTemplate";
  /** What it is called in errors. */
  readonly name: string;
  /** In Jinja. */
  readonly source: string;
  readonly #specialTokens: Readonly<Record<string, string>>;
  readonly #template: Parsed;
  readonly #toolUse: Parsed | null;

  constructor(source: string, options: ChatTemplateOptions = {}) {
    const where = "ChatTemplate";
    checkOptions(where, options, ["name", "specialTokens", "toolUse"]);
    const { name = "the chat template", specialTokens = {}, toolUse } = options;
    checkText(where, "name", name);
    checkText(where, "source", source);
    if (toolUse !== undefined) checkText(where, "toolUse", toolUse);
    if (!asObject(specialTokens))
      throw new ArgumentError(`${where}: specialTokens must be an object of texts; got ${shown(specialTokens)}.`);
    for (const [variable, token] of Object.entries(specialTokens)) checkText(where, `specialTokens.${variable}`, token);
    this.name = name;
    this.source = source;
    this.#specialTokens = { ...specialTokens };
    this.#template = parsed(source, name);
    this.#toolUse = toolUse === undefined ? null : parsed(toolUse, name);
  }

  /**
   * The text of a conversation.
   * @throws FormatError with the template's words for messages that it refuses; ArgumentError for what are none
   *
   * @example
   * const template = new data.ChatTemplate("{{ messages[0].content }}{{ date_string }}");
   * const messages = [{ role: "user", content: "It is " }];
   * console.log(template.render(messages, { kwargs: { date_string: "May" } })); // It is May
   */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    return this.write(messages, options).text;
  }

  /** The text, and what of it the template marks as an assistant's. @internal */
  write(messages: readonly ChatMessage[], options: RenderOptions): Written {
    const where = "ChatTemplate.render";
    checkOptions(where, options, RENDER_OPTIONS);
    const { tools, documents, addGenerationPrompt = false, date, kwargs = {} } = options;
    checkMessages(where, messages);
    for (const [what, list] of [
      ["tools", tools],
      ["documents", documents],
    ] as const)
      if (list !== undefined && !Array.isArray(list))
        throw new ArgumentError(`${where}: ${what} must be a list; got ${shown(list)}.`);
    if (typeof addGenerationPrompt !== "boolean")
      throw new ArgumentError(
        `${where}: addGenerationPrompt must be true or false; got ${shown(addGenerationPrompt)}.`,
      );
    if (!asObject(kwargs))
      throw new ArgumentError(`${where}: kwargs must be an object of the template's variables; got ${shown(kwargs)}.`);
    const day = date === undefined ? undefined : checkDate(where, date);
    try {
      return render(tools === undefined ? this.#template : (this.#toolUse ?? this.#template), {
        ...this.#specialTokens,
        ...kwargs,
        messages,
        tools: tools ?? null,
        documents: documents ?? null,
        add_generation_prompt: addGenerationPrompt,
        raise_exception: (message: unknown) => {
          throw new Refusal(String(message));
        },
        ...(day ? { strftime_now: (format: string) => strftime(day, format) } : {}),
      });
    } catch (cause) {
      const { message } = cause as Error;
      const advice =
        !day && this.source.includes("strftime_now") ? '; its strftime_now needs a day: give date ("2026-01-31")' : "";
      throw new FormatError(
        cause instanceof Refusal
          ? `${this.name} refuses the messages: ${message}`
          : `${this.name} cannot render the messages: ${message}${advice}`,
        { cause },
      );
    }
  }
}

/** What a template says by raise_exception. */
class Refusal extends Error {}

function parsed(source: string, name: string): Parsed {
  try {
    return parse(source);
  } catch (cause) {
    // The parser steps over the end of a template whose last block is open.
    const why = cause instanceof TypeError ? "it ends within a block" : (cause as Error).message.replace(/\.+$/, "");
    throw new FormatError(`${name}: not a chat template in Jinja: ${why}.`, { cause });
  }
}

/** @throws ArgumentError unless it is a list of messages */
export function checkMessages(where: string, messages: unknown): asserts messages is readonly ChatMessage[] {
  if (!Array.isArray(messages))
    throw new ArgumentError(`${where}: messages must be a list of { role, content }; got ${shown(messages)}.`);
  for (const [i, message] of messages.entries())
    if (typeof asObject(message)?.["role"] !== "string")
      throw new ArgumentError(`${where}: messages[${i}] must be { role, content }; got ${show(message)}.`);
}

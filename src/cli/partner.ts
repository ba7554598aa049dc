/** Whom one talks to: a model with a chat template, which knows what was said, or one that goes on from prompts. */
import { readExamples, type ChatMessage } from "../data/index.js";
import { readJson } from "../io/files.js";
import { asObject } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { templateSettings, type TemplateCommand, type TemplateSettings } from "./data_options.js";
import { checkVocabulary, promptIds, type TextCodec } from "./text.js";

/** Takes lines, and what was answered to them. */
export interface Partner {
  /** What is told at the beginning of a conversation. */
  readonly greeting: string;
  /** What the model reads to answer a line. */
  promptFor(line: string): number[];
  /** What the model reads to answer what was said last. @throws ArgumentError if that asks for no answer */
  promptOfLast(): number[];
  /** Notes an answer, whole or not. */
  heard(line: string, answer: string): void;
  /** Forgets what was said, but for the system's message. */
  reset(): void;
  /** Begins anew with this message of the system's; "": without one. @throws ArgumentError if it has no place */
  setSystem(text: string): void;
  /** What was said, as rows that `--data` takes; "": nothing was. */
  rows(): string;
}

/** Options of the command generate that say whom one talks to. */
export interface PartnerOptions extends Omit<TemplateCommand, "template"> {
  system?: string | undefined;
  /** A file with what was said. */
  messages?: string | undefined;
  /** false: none, not even the model's. */
  template?: string | false | undefined;
  /** false: each line is asked anew, with nothing before it but what the conversation began with. */
  history?: boolean | undefined;
}

/** @throws ArgumentError for messages without a template; FileError, FormatError for a file that holds none */
export function partnerFor(folder: string, codec: TextCodec, options: PartnerOptions): Partner {
  const { system, messages: file, template } = options;
  const { chatTemplate } = codec.tokenizer;
  if (chatTemplate === null && (system !== undefined || file !== undefined))
    throw new ArgumentError(
      `generate: ${folder} has no chat template, which ${system === undefined ? "--messages" : "--system"} needs; ` +
        "give one, made of tokens that the model has, with --template <file>.",
    );
  if (chatTemplate === null || template === false) return new Prompts(codec, chatTemplate !== null);
  const settings = templateSettings({ ...options, template });
  const { messages, tools } = file === undefined ? { messages: [] } : messagesOf(file);
  const dialogue = (begun: readonly ChatMessage[]): Partner =>
    new Dialogue(codec, settings, begun, tools, options.history ?? true);
  if (system === undefined) return dialogue(messages);
  if (messages[0]?.role === "system")
    throw new ArgumentError(`generate: ${file} begins with a message of the system's; leave out --system, or that.`);
  return dialogue([{ role: "system", content: system }, ...messages]);
}

/** A list of messages, or a row of them as `--data` takes it. */
function messagesOf(file: string): { messages: readonly ChatMessage[]; tools?: readonly unknown[] | undefined } {
  const json = readJson(file);
  const value = Array.isArray(json) ? { messages: json } : asObject(json);
  const [example] = value ? readExamples([{ value, where: file }], { format: "messages" }) : [];
  if (example?.kind === "messages") return example;
  throw new FormatError(`${file}: expected a list of messages, or an object with messages.`);
}

/** A conversation, written by the tokenizer's template. */
class Dialogue implements Partner {
  readonly greeting: string;
  /** What is before the next line. */
  #messages: readonly ChatMessage[];
  /** Conversations that are over, where each line begins another. */
  #over: (readonly ChatMessage[])[] = [];

  constructor(
    private readonly codec: TextCodec,
    private readonly settings: TemplateSettings,
    messages: readonly ChatMessage[],
    private readonly tools: readonly unknown[] | undefined,
    private readonly hasHistory: boolean,
  ) {
    this.#messages = messages;
    this.greeting =
      (hasHistory ? "" : "Each line is asked anew. ") +
      "Ctrl-C ends an answer, and then the program; /help tells what else there is.";
  }

  promptFor(line: string): number[] {
    return this.#ids([...this.#messages, { role: "user", content: line }]);
  }

  promptOfLast(): number[] {
    if (this.#messages.at(-1)?.role === "assistant")
      throw new ArgumentError(
        "generate: the last of --messages is the assistant's, so there is nothing to answer; add --prompt, or --chat " +
          "to go on from there.",
      );
    return this.#ids(this.#messages);
  }

  heard(line: string, answer: string): void {
    const said = [...this.#messages, { role: "user", content: line }, { role: "assistant", content: answer }];
    if (this.hasHistory) this.#messages = said;
    else this.#over.push(said);
  }

  reset(): void {
    this.#over = [];
    this.#messages = this.#messages.filter(({ role }, i) => i === 0 && role === "system");
  }

  setSystem(text: string): void {
    this.#over = [];
    this.#messages = text === "" ? [] : [{ role: "system", content: text }];
  }

  rows(): string {
    const all = this.hasHistory ? [this.#messages] : this.#over;
    return all
      .filter((messages) => messages.some(({ role }) => role !== "system"))
      .map((messages) => `${JSON.stringify({ messages, tools: this.tools })}\n`)
      .join("");
  }

  #ids(messages: readonly ChatMessage[]): number[] {
    const { tokenizer, positions } = this.codec;
    const { date, templateArgs: kwargs } = this.settings;
    const text = tokenizer.applyChatTemplate(messages, { tools: this.tools, addGenerationPrompt: true, date, kwargs });
    // The template writes begin-of-text itself.
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    checkVocabulary(ids, this.codec, () => "generate: the conversation");
    if (ids.length < positions) return ids;
    throw new ArgumentError(
      `generate: the conversation has ${ids.length} tokens, and the model has ${positions} positions for it and the ` +
        "answer; shorten it, or begin anew (/reset).",
    );
  }
}

/** Lines that stand alone, each a prompt as in rows of prompt and completion. */
class Prompts implements Partner {
  readonly #said: { prompt: string; completion: string }[] = [];

  constructor(
    private readonly codec: TextCodec,
    /** There is a template, and it was not wanted. */
    private readonly hasTemplate: boolean,
  ) {}

  get greeting(): string {
    const why = this.hasTemplate ? "Without the chat template" : "The model has no chat template, so";
    return `${why} each line is a prompt of its own; /help tells what else there is.`;
  }

  promptFor(line: string): number[] {
    return promptIds("generate", this.codec, line);
  }

  promptOfLast(): number[] {
    throw new ArgumentError("generate: without a chat template nothing was said before; give --prompt.");
  }

  heard(prompt: string, completion: string): void {
    this.#said.push({ prompt, completion });
  }

  reset(): void {
    this.#said.length = 0;
  }

  setSystem(): void {
    throw new ArgumentError(
      "generate: /system needs a chat template; " +
        (this.hasTemplate ? "leave out --no-template." : "start again with one that you give by --template <file>."),
    );
  }

  rows(): string {
    return this.#said.map((row) => `${JSON.stringify(row)}\n`).join("");
  }
}

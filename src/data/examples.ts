/**
 * What rows say to a model that learns from them: one shape for each kind, whatever columns it came in.
 *
 * Source: the data formats of TRL (docs, "Dataset formats and types"), LLaMA-Factory (data/README.md: Alpaca and
 * ShareGPT), axolotl (weights of messages) and OpenAI's chat messages.
 */
import { asObject, show } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkOptions, nearest } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { strictJson } from "./json_rows.js";
import { IGNORED } from "./labels.js";
import type { DataRow } from "./rows.js";

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
  | {
      /** A text that is learnt as it is. */
      kind: "text";
      /** The text. */
      text: string;
    }
  | {
      /** A conversation. */
      kind: "messages";
      /** In their order. */
      messages: readonly ChatMessage[];
      /** The tools that the model may call, for the template. */
      tools?: readonly unknown[] | undefined;
    }
  | {
      /** A text and what follows it. */
      kind: "completion";
      /** Read, and not learnt. */
      prompt: string;
      /** Follows the prompt with nothing between them. */
      completion: string;
    }
  | {
      /** A conversation in two parts. */
      kind: "chatCompletion";
      /** Read, and not learnt. */
      prompt: readonly ChatMessage[];
      /** What is learnt. */
      completion: readonly ChatMessage[];
      /** The tools that the model may call, for the template. */
      tools?: readonly unknown[] | undefined;
    }
  | {
      /** Token ids. */
      kind: "tokens";
      /** The row's tokens. */
      inputIds: Int32Array;
      /** Hugging Face's labels, -100 for what is not scored; null: every token is. */
      labels: Int32Array | null;
    }
);

/** How rows lie in their columns; "auto": told by the columns that they have. */
export type RowFormat = "auto" | "text" | "messages" | "completion" | "alpaca" | "sharegpt" | "tokens";
type Format = Exclude<RowFormat, "auto">;

/** Options of `readExamples`. */
export interface ReadExamplesOptions {
  /** The rows' format. Default "auto": told by each row's columns. */
  format?: RowFormat | undefined;
  /** Columns by other names, by the names that they have here: { prompt: "question" }. */
  features?: Readonly<Record<string, string>> | undefined;
}

/** The columns without which a row is not of the format. */
const NEEDED: Readonly<Record<Format, readonly string[]>> = {
  text: ["text"],
  messages: ["messages"],
  completion: ["prompt", "completion"],
  alpaca: ["instruction", "output"],
  sharegpt: ["conversations"],
  tokens: ["input_ids"],
};
const FORMATS = Object.keys(NEEDED) as Format[];
/** Every column that is read. */
const FEATURES = [
  ...FORMATS.flatMap((format) => NEEDED[format]),
  "tools",
  "input",
  "system",
  "history",
  "labels",
  "chat_template_kwargs",
];

/** ShareGPT's speakers as roles. */
const SPEAKERS: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  assistant: "assistant",
  model: "assistant",
  system: "system",
  tool: "tool",
  observation: "tool",
};

/**
 * Reads rows as examples. The formats, told by a row's columns: "text" (text), "messages" (messages of
 * { role, content }, with tools beside them), "completion" (prompt and completion, both texts or both lists of
 * messages), "alpaca" (instruction and output, with input, system and history), "sharegpt" (conversations of
 * { from, value }) and "tokens" (input_ids, with labels of -100 where nothing is learnt); chat_template_kwargs goes
 * with each of them. A column that is null counts as absent; columns that no format knows are left alone. Lists may be
 * texts in JSON, as tables have them. A row of two formats, or one of another format than the first, is refused.
 *
 * @throws FormatError naming the row and the field; ArgumentError on an unknown option or feature
 *
 * @example
 * const rows = [{ value: { question: "2 + 2 =", completion: " 4" }, where: "sums.jsonl:1" }];
 * const [example] = data.readExamples(rows, { features: { prompt: "question" } });
 * console.log(example.kind, example.prompt); // completion 2 + 2 =
 */
export function readExamples(rows: readonly DataRow[], options: ReadExamplesOptions = {}): Example[] {
  const where = "readExamples";
  checkOptions(where, options, ["format", "features"]);
  const { format = "auto", features = {} } = options;
  if (!Array.isArray(rows)) throw new ArgumentError(`${where}: rows must be an array; got ${shown(rows)}.`);
  if (format !== "auto" && !FORMATS.includes(format))
    throw new ArgumentError(`${where}: format is ${show(format)}; expected ${["auto", ...FORMATS].join(", ")}.`);
  checkFeatures(where, features);
  let first: { format: string; where: string } | undefined;
  return rows.map((given: DataRow, i) => {
    if (asObject(given) === undefined || typeof given.where !== "string")
      throw new ArgumentError(`${where}: rows[${i}] is ${shown(given)}; expected { value, where }.`);
    const row = new RowReader(given, features);
    const its = row.format(format);
    const example = row.read(its);
    const named = example.kind === "chatCompletion" ? "completion of messages" : its;
    first ??= { format: named, where: given.where };
    if (named !== first.format) {
      throw new FormatError(
        `${given.where}: the row is one of ${named}, and ${first.where} of ${first.format}; expected one format in ` +
          `all rows. Put the others into a file of their own, or turn them into the same.`,
      );
    }
    return example;
  });
}

function checkFeatures(where: string, features: Readonly<Record<string, string>>): void {
  if (asObject(features) === undefined)
    throw new ArgumentError(`${where}: features must be an object of names; got ${shown(features)}.`);
  for (const [feature, column] of Object.entries(features)) {
    if (!FEATURES.includes(feature)) {
      const likely = nearest(feature, FEATURES);
      throw new ArgumentError(
        `${where}: there is no feature ${show(feature)}.${likely === undefined ? "" : ` Did you mean ${likely}?`} ` +
          `The features are ${FEATURES.join(", ")}.`,
      );
    }
    if (typeof column !== "string" || column === "")
      throw new ArgumentError(`${where}: features.${feature} is ${shown(column)}; expected a column's name.`);
  }
}

/** Reads one row. */
class RowReader {
  readonly #where: string;
  /** The row's columns by their own names. */
  readonly #names: readonly string[];
  /** The same by the names that they have here. */
  readonly #columns: ReadonlyMap<string, unknown>;
  readonly #features: Readonly<Record<string, string>>;

  constructor({ value, where }: DataRow, features: Readonly<Record<string, string>>) {
    this.#where = where;
    this.#features = features;
    if (asObject(value) === undefined) this.#fail(`the row is ${show(value)}; expected an object: {"text": "..."}`);
    const own = new Map(Object.entries(value).filter(([, field]) => field !== null && field !== undefined));
    this.#names = [...own.keys()];
    const columns = new Map(own);
    for (const [feature, column] of Object.entries(features)) {
      columns.delete(feature);
      columns.delete(column);
    }
    for (const [feature, column] of Object.entries(features))
      if (own.has(column)) columns.set(feature, own.get(column));
    this.#columns = columns;
  }

  #fail(message: string): never {
    throw new FormatError(`${this.#where}: ${message}.`);
  }

  /** A column's name in the file. */
  #nameOf(feature: string): string {
    return Object.hasOwn(this.#features, feature) ? this.#features[feature]! : feature;
  }

  #lacks(format: Format): string[] {
    return NEEDED[format].filter((feature) => !this.#columns.has(feature));
  }

  /** The row's format: the one asked for, or the only one whose columns it has. */
  format(asked: RowFormat): Format {
    const quoted = (features: readonly string[]): string => features.map((f) => show(this.#nameOf(f))).join(" and ");
    if (asked !== "auto") {
      const missing = this.#lacks(asked);
      if (missing.length === 0) return asked;
      return this.#fail(`the row has no ${quoted(missing)}, as one of ${asked} has; ${this.#keys()}`);
    }
    const those = FORMATS.filter((format) => this.#lacks(format).length === 0);
    if (those.length === 1) return those[0]!;
    if (those.length > 1) {
      return this.#fail(
        `the row has ${those.map((format) => quoted(NEEDED[format])).join(", and ")}; say which of them is meant by ` +
          `the format: ${those.join(" or ")}`,
      );
    }
    return this.#fail(
      `the row has no ${FORMATS.map((format) => quoted(NEEDED[format])).join(", or ")}; ${this.#keys()}. Where they ` +
        `have other names, say so by features, as in prompt=question`,
    );
  }

  #keys(): string {
    return this.#names.length === 0
      ? "its columns are empty"
      : `its columns are ${show(this.#names.slice(0, 10).join(", "))}`;
  }

  read(format: Format): Example {
    const kwargs = this.#optional("chat_template_kwargs", (value, place) => {
      return asObject(value) ?? this.#unexpected(place, value, "an object");
    });
    const common = { where: this.#where, ...(kwargs && { chatTemplateKwargs: kwargs }) };
    switch (format) {
      case "text":
        return { ...common, kind: "text", text: this.#text("text") };
      case "messages":
        return { ...common, kind: "messages", messages: this.#messages("messages"), ...this.#tools() };
      case "sharegpt": {
        const said = this.#messages("conversations");
        const system = said[0]!.role === "system" ? [] : this.#system();
        return { ...common, kind: "messages", messages: [...system, ...said], ...this.#tools() };
      }
      case "alpaca":
        return { ...common, kind: "messages", messages: this.#alpaca(), ...this.#tools() };
      case "completion":
        return { ...common, ...this.#completion() };
      case "tokens":
        return { ...common, kind: "tokens", ...this.#tokens() };
    }
  }

  #unexpected(place: string, value: unknown, expected: string): never {
    return this.#fail(`${place} is ${value === undefined ? "missing" : show(value)}; expected ${expected}`);
  }

  #checkText(value: unknown, place: string): string {
    if (typeof value !== "string") return this.#unexpected(place, value, "a text");
    const half = value.search(/\p{Surrogate}/u);
    if (half >= 0)
      this.#fail(`${place} has half a character (a lone surrogate) at position ${half}; expected a text in Unicode`);
    return value;
  }

  #text(feature: string): string {
    return this.#checkText(this.#columns.get(feature), this.#nameOf(feature));
  }

  /** A column that may be absent, and may be a text in JSON. */
  #optional<T>(feature: string, read: (value: unknown, place: string) => T): T | undefined {
    if (!this.#columns.has(feature)) return undefined;
    const place = this.#nameOf(feature);
    const value = this.#fromText(feature);
    // Tables have no absent fields, but empty ones.
    return value === "" ? undefined : read(value, place);
  }

  /** A column's list or object, which may be written as a text in JSON. */
  #fromText(feature: string): unknown {
    const value = this.#columns.get(feature);
    if (typeof value !== "string" || value.trim() === "") return value;
    const place = this.#nameOf(feature);
    return strictJson(value, (message) =>
      this.#fail(
        `${place} is the text ${show(value)}, which is not JSON (${message}); write it by Python's json.dumps, or ` +
          `the rows as JSON Lines`,
      ),
    );
  }

  #list(value: unknown, place: string): unknown[] {
    return Array.isArray(value) ? (value as unknown[]) : this.#unexpected(place, value, "a list");
  }

  #tools(): { tools?: readonly unknown[] } {
    const tools = this.#optional("tools", (value, place) => {
      const list = this.#list(value, place);
      for (const [i, tool] of list.entries())
        if (asObject(tool) === undefined) this.#unexpected(`${place}[${i}]`, tool, "an object");
      return list;
    });
    return tools === undefined ? {} : { tools };
  }

  #system(): ChatMessage[] {
    const content = this.#columns.has("system") ? this.#text("system") : "";
    return content === "" ? [] : [{ role: "system", content }];
  }

  #messages(feature: string): ChatMessage[] {
    const place = this.#nameOf(feature);
    const list = this.#list(this.#fromText(feature), place);
    if (list.length === 0) this.#fail(`${place} is an empty list; expected one message or more`);
    return list.map((message, i) => this.#message(message, `${place}[${i}]`));
  }

  #message(value: unknown, place: string): ChatMessage {
    const given = asObject(value) ?? this.#unexpected(place, value, "an object: { role, content }");
    const { train, ...fields } = given;
    // What is null is absent, as in rows that a table was between.
    const message: Record<string, unknown> = Object.fromEntries(
      Object.entries(fields).filter(([key, field]) => field !== null && !(key === "from" || key === "value")),
    );
    if (given.role === undefined && given.from !== undefined) {
      message.role = this.#speaker(given.from, `${place}.from`);
      message.content = this.#checkText(given.value, `${place}.value`);
    }
    if (typeof message.role !== "string" || message.role === "")
      this.#unexpected(`${place}.role`, given.role, 'a role: "system", "user", "assistant"');
    if (message.tool_calls !== undefined) {
      for (const [i, call] of this.#list(message.tool_calls, `${place}.tool_calls`).entries())
        if (asObject(call) === undefined) this.#unexpected(`${place}.tool_calls[${i}]`, call, "an object");
    }
    const weight = this.#weight(message.weight, train, place);
    const others = Object.keys(message).filter((key) => !["role", "content", "name", "weight"].includes(key));
    const content = this.#content(message.content, `${place}.content`, others.length > 0);
    return { ...message, role: message.role as string, content, ...(weight !== undefined && { weight }) };
  }

  #speaker(from: unknown, place: string): string {
    if (typeof from === "string" && Object.hasOwn(SPEAKERS, from)) return SPEAKERS[from]!;
    return this.#unexpected(
      place,
      from,
      `${Object.keys(SPEAKERS).join(", ")} (calls of tools are written as messages with tool_calls)`,
    );
  }

  #content(value: unknown, place: string, isMore: boolean): ChatMessage["content"] {
    if (value === undefined && isMore) return null;
    if (!Array.isArray(value)) return this.#checkText(value, place);
    return value.map((given: unknown, i) => {
      const at = `${place}[${i}]`;
      const part = asObject(given) ?? this.#unexpected(at, given, "an object: { type, text }");
      if (part.type !== "text")
        this.#unexpected(`${at}.type`, part.type, '"text", the only kind that models here read');
      for (const key of ["weight", "train"])
        if (part[key] !== undefined && part[key] !== null)
          this.#fail(`${at} has ${key} = ${show(part[key])}, which only messages have; make the part a message`);
      return { ...part, type: "text", text: this.#checkText(part.text, `${at}.text`) };
    });
  }

  /** What `weight`, or `train`, says of being learnt. */
  #weight(weight: unknown, train: unknown, place: string): 0 | 1 | undefined {
    if (weight !== undefined && weight !== 0 && weight !== 1) this.#unexpected(`${place}.weight`, weight, "0 or 1");
    if (train === undefined || train === null) return weight;
    if (typeof train !== "boolean") return this.#unexpected(`${place}.train`, train, "true or false");
    const told = train ? 1 : 0;
    if (weight !== undefined && weight !== told)
      this.#fail(`${place} has train = ${train} and weight = ${weight}; expected one of them, or both the same`);
    return told;
  }

  #alpaca(): ChatMessage[] {
    const turn = (user: string, assistant: string): ChatMessage[] => [
      { role: "user", content: user },
      { role: "assistant", content: assistant },
    ];
    const history = this.#optional("history", (value, place) =>
      this.#list(value, place).flatMap((given, i) => {
        const pair = this.#list(given, `${place}[${i}]`);
        if (pair.length !== 2) this.#unexpected(`${place}[${i}]`, pair, "a question and its answer");
        return turn(this.#checkText(pair[0], `${place}[${i}][0]`), this.#checkText(pair[1], `${place}[${i}][1]`));
      }),
    );
    const input = this.#columns.has("input") ? this.#text("input") : "";
    const asked = [this.#text("instruction"), input].filter((text) => text !== "").join("\n");
    return [...this.#system(), ...(history ?? []), ...turn(asked, this.#text("output"))];
  }

  #completion():
    | { kind: "completion"; prompt: string; completion: string }
    | { kind: "chatCompletion"; prompt: ChatMessage[]; completion: ChatMessage[]; tools?: readonly unknown[] } {
    const prompt = this.#columns.get("prompt");
    if (typeof prompt === "string")
      return { kind: "completion", prompt: this.#text("prompt"), completion: this.#text("completion") };
    if (!Array.isArray(prompt))
      return this.#unexpected(this.#nameOf("prompt"), prompt, "a text, or a list of messages");
    return {
      kind: "chatCompletion",
      prompt: this.#messages("prompt"),
      completion: this.#messages("completion"),
      ...this.#tools(),
    };
  }

  #tokens(): { inputIds: Int32Array; labels: Int32Array | null } {
    const ids = (value: unknown, place: string, valid: (id: number, i: number) => string | undefined): Int32Array => {
      const list = this.#list(value, place);
      for (const [i, id] of list.entries()) {
        const isId = typeof id === "number" && Number.isInteger(id) && id <= 2147483647;
        const expected = isId ? valid(id, i) : "a token id";
        if (expected !== undefined) this.#unexpected(`${place}[${i}]`, id, expected);
      }
      return Int32Array.from(list as number[]);
    };
    const place = this.#nameOf("input_ids");
    const inputIds = ids(this.#fromText("input_ids"), place, (id) => (id < 0 ? "a token id" : undefined));
    if (inputIds.length === 0) this.#fail(`${place} is an empty list; expected one token or more`);
    const labels = this.#optional("labels", (value, at) => {
      const list = ids(value, at, (id, i) =>
        id === IGNORED || id === inputIds[i]
          ? undefined
          : `${IGNORED}, or ${inputIds[i]} as in ${place} (labels are not shifted)`,
      );
      if (list.length !== inputIds.length)
        this.#fail(`${at} has ${list.length} entries and ${place} ${inputIds.length}; expected the same`);
      return list;
    });
    return { inputIds, labels: labels ?? null };
  }
}

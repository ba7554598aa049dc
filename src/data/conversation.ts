/** Conversations as rows of token ids: what the template writes of them, with the answers scored. */
import { show } from "../io/json.js";
import { FormatError, WasmLoraError } from "../runtime/errors.js";
import type { ChatTemplate, RenderOptions } from "./chat_template.js";
import type { ChatMessage, Example } from "./examples.js";
import { scoredRow, Unusable, type Span, type TrainingRow } from "./labels.js";
import { partOf, spanOf, TokenizedText, type Encoding, type Render } from "./masks.js";

/** What is made of conversations. */
export interface ConversationSettings {
  template: ChatTemplate;
  encoding: Encoding;
  /** Tokens that end a turn or a text. */
  ends: ReadonlySet<number>;
  /** Marks of the template that the tokenizer takes to pieces. */
  brokenMarks: readonly string[];
  /** undefined: what is usual for the example. */
  lossOn: "completion" | "assistant" | "last" | "all" | undefined;
  date: string | undefined;
  kwargs: Readonly<Record<string, unknown>>;
}

/** What a template writes to part turns, mostly as tokens of their own: "<|im_start|>". */
const MARKS = /<[|｜][^\s<>]{1,40}?[|｜]>/g;

/** Marks in a template that are more than one token. */
export function brokenMarks(source: string, { encode }: Encoding): string[] {
  return [...new Set(source.match(MARKS))].filter((mark) => encode(mark).length > 1);
}

/**
 * One row, or one for each answer where the template writes earlier answers otherwise than a last one.
 * @throws Unusable; FormatError for a template that is not made for the tokenizer
 */
export function conversationRows(
  example: Example & { kind: "messages" | "chatCompletion" },
  settings: ConversationSettings,
): TrainingRow[] {
  const { template, encoding, ends, date } = settings;
  const { where, tools } = example;
  const prompt = example.kind === "messages" ? [] : example.prompt;
  const given = example.kind === "messages" ? example.messages : [...prompt, ...example.completion];
  // The weight is for us; templates get what else there is.
  const messages = given.map(({ weight: _, ...message }) => message as ChatMessage);
  const kwargs = { ...settings.kwargs, ...example.chatTemplateKwargs };
  const options: RenderOptions = { tools, date, kwargs };
  const { text, generations } = asked(() => template.write(messages, options));
  const render: Render = (some, addGenerationPrompt) =>
    some.length === messages.length && some.at(-1) === messages.at(-1) && !addGenerationPrompt
      ? text
      : asked(() => template.render(some, { ...options, addGenerationPrompt }));
  const broken = settings.brokenMarks.find((mark) => text.includes(mark));
  if (broken !== undefined)
    throw new FormatError(
      `${where}: ${template.name} writes ${show(broken)}, which is no token of the tokenizer (it takes it to ` +
        `${encoding.encode(broken).length} pieces); give a template of tokens that the model has (--template <file>, ` +
        `or the option chatTemplate).`,
    );
  const whole = new TokenizedText(text, encoding);
  const lossOn = settings.lossOn ?? (example.kind === "messages" ? "assistant" : "completion");
  const isOut = (i: number): boolean => given[i]!.weight === 0;
  const answers = messages.flatMap(({ role }, i) => (role === "assistant" ? [i] : []));
  const spanOfMessages = (first: number, end: number): Span => {
    const span = spanOf(whole, partOf(messages, first, end, render), encoding, ends);
    if (span) return span;
    throw new Unusable(`the template writes message ${first + 1}, or what comes before it, otherwise if more follows`);
  };
  const without = (first: number): Span[] =>
    messages.flatMap((_, i) => (i >= first && isOut(i) ? [spanOfMessages(i, i + 1)] : []));
  if (lossOn === "all" || (lossOn === "completion" && example.kind === "chatCompletion")) {
    const first = lossOn === "all" ? 0 : prompt.length;
    const all: Span = lossOn === "all" ? [0, whole.ids.length] : spanOfMessages(first, messages.length);
    if (answers.some((i) => i >= first && !isOut(i))) checkEnd(whole, all, settings);
    return [scoredRow(where, whole.ids, [all], without(first))];
  }
  const wanted = answers.filter((i) => !isOut(i) && (lossOn !== "last" || i === answers.at(-1)));
  if (wanted.length === 0)
    throw new Unusable(answers.length === 0 ? "no message is the assistant's" : "the weights of its answers are 0");
  // What a template marks as the assistant's is that, if it marks each answer with its end.
  if (generations.length === answers.length) {
    const marked = wanted.map((i): Span => {
      const [start, end] = generations[answers.indexOf(i)]!;
      return [whole.firstFrom(start), whole.countUpTo(end)];
    });
    if (marked.every((span) => hasEnd(whole, span, ends))) return [scoredRow(where, whole.ids, marked)];
  }
  const spans: Span[] = [];
  for (const i of wanted) {
    const span = spanOf(whole, partOf(messages, i, i + 1, render), encoding, ends);
    if (span === null) return rowsByAnswer(where, whole, wanted, messages, render, settings);
    checkEnd(whole, span, settings);
    spans.push(span);
  }
  return [scoredRow(where, whole.ids, spans)];
}

/** Each answer at the end of what comes before it, as it is written there. */
function rowsByAnswer(
  where: string,
  whole: TokenizedText,
  wanted: readonly number[],
  messages: readonly ChatMessage[],
  render: Render,
  settings: ConversationSettings,
): TrainingRow[] {
  let before = whole;
  return wanted.map((i) => {
    const part = partOf(messages, i, i + 1, render);
    const alone = new TokenizedText(part.upto, settings.encoding, before);
    before = alone;
    const span = spanOf(alone, part, settings.encoding, settings.ends);
    if (span === null) throw new Unusable(`the template writes what comes before message ${i + 1} otherwise with it`);
    checkEnd(alone, span, settings);
    return scoredRow(where, alone.ids, [span]);
  });
}

function hasEnd({ ids }: TokenizedText, [start, end]: Span, ends: ReadonlySet<number>): boolean {
  for (let i = end - 1; i >= start; i--) if (ends.has(ids[i]!)) return true;
  return false;
}

/** An answer without its end teaches never to stop. */
function checkEnd(text: TokenizedText, span: Span, { template, encoding, ends }: ConversationSettings): void {
  if (hasEnd(text, span, ends)) return;
  const marks = brokenMarks(template.source, encoding);
  throw new Unusable(
    `${template.name} ends an answer with no token that ends a turn or a text of the model` +
      (marks.length > 0 ? ` (the tokenizer takes ${marks.map(show).join(", ")} to pieces)` : ""),
  );
}

/** What a template refuses is a fault of the row. */
function asked<T>(render: () => T): T {
  try {
    return render();
  } catch (cause) {
    if (!(cause instanceof WasmLoraError)) throw cause;
    throw new Unusable(cause.message, { cause });
  }
}

/**
 * Chat templates in Ollama's words. Ollama runs a template of .System, .Prompt and .Response once for each exchange,
 * and the last one up to .Response. What stands around the three is told from what the template in Jinja renders, and
 * the result is kept only if it renders conversations to the same texts.
 * Source: ollama/ollama, template/template.go (Execute).
 */
import type { ChatMessage } from "../data/examples.js";
import type { Tokenizer } from "../data/tokenizer.js";
import { WasmLoraError } from "../runtime/errors.js";

/** A template for a Modelfile. */
export interface GoTemplate {
  /** What TEMPLATE says. */
  text: string;
  /** What the system says where a conversation says nothing; null: nothing. */
  system: string | null;
  /** What ends an answer. */
  stops: string[];
}

/** What stands before and behind each of the three. */
interface Exchange {
  system: readonly [before: string, behind: string] | null;
  /** Whether the system's words stand in the first message of the user's. */
  isNested: boolean;
  prompt: readonly [before: string, behind: string];
  response: readonly [before: string, behind: string];
}

/** They are in no text, and no template takes them for white space. */
const [S, U, A, V] = ["\ue000s", "\ue001u", "\ue002a", "\ue003v"] as const;
const system = (content: string): ChatMessage => ({ role: "system", content });
const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: string): ChatMessage => ({ role: "assistant", content });

/** null: the tokenizer has no template, or none of Ollama's says the same. */
export function goTemplateOf(tokenizer: Tokenizer): GoTemplate | null {
  const { chatTemplate, specialTokensMap } = tokenizer;
  if (!chatTemplate) return null;
  // Ollama puts the token that begins a text there itself.
  const bos = specialTokensMap["bos_token"] ?? "";
  const render = (messages: readonly ChatMessage[], addGenerationPrompt = true): string => {
    const text = chatTemplate.render(messages, { addGenerationPrompt });
    return bos !== "" && text.startsWith(bos) ? text.slice(bos.length) : text;
  };
  try {
    const told = tell(render);
    if (!told || !isTrue(told.exchange, told.byDefault, render)) return null;
    const text = textOf(told.exchange);
    // Go's own brackets, and the end of a Modelfile's text, would have to be written otherwise.
    if (text === null || [told.byDefault ?? "", text].some((part) => part.includes('"""'))) return null;
    const end = told.exchange.response[1].trim();
    const eos = specialTokensMap["eos_token"];
    const stops = [...new Set([end, eos ?? ""])].filter((stop) => stop !== "" && !stop.includes("\n"));
    return { text, system: told.byDefault, stops };
  } catch (error) {
    if (error instanceof WasmLoraError) return null;
    throw error;
  }
}

type Render = (messages: readonly ChatMessage[], addGenerationPrompt?: boolean) => string;

/** What comes between two texts that are in it in this order. */
function between(text: string, from: string, to: string): string | null {
  const begin = text.indexOf(from);
  const end = text.indexOf(to, begin + from.length);
  return begin < 0 || end < 0 ? null : text.slice(begin + from.length, end);
}

function tell(render: Render): { exchange: Exchange; byDefault: string | null } | null {
  const prompted = render([user(U)]);
  const at = prompted.indexOf(U);
  const turn = between(render([user(U), assistant(A), user(V)]), A, V);
  if (at < 0 || turn === null) return null;
  const lead = prompted.slice(0, at);
  const answered = render([user(U), assistant(A)], false);
  // What comes before the user's words begins a conversation too, unless the system's come before it.
  const beforePrompt = turn.endsWith(lead) ? lead : startingWith(turn, answered.slice(answered.indexOf(A) + A.length));
  if (beforePrompt === null) return null;
  const asked = render([user(U)], false);
  const middle = prompted.startsWith(asked) ? asked.length : at + U.length;
  const plain = {
    prompt: [beforePrompt, prompted.slice(at + U.length, middle)] as const,
    response: [prompted.slice(middle), turn.slice(0, turn.length - beforePrompt.length)] as const,
  };
  const around = systemOf(render);
  if (around === null)
    return lead === beforePrompt ? { exchange: { ...plain, system: null, isNested: false }, byDefault: null } : null;
  const [before, behind] = around;
  if (!behind.endsWith(beforePrompt))
    return before.startsWith(beforePrompt) && lead === beforePrompt
      ? {
          exchange: { ...plain, system: [before.slice(beforePrompt.length), behind], isNested: true },
          byDefault: null,
        }
      : null;
  const system = [before, behind.slice(0, behind.length - beforePrompt.length)] as const;
  const exchange: Exchange = { ...plain, system, isNested: false };
  if (lead === beforePrompt) return { exchange, byDefault: null };
  // Words of the system's where a conversation has none.
  if (!lead.startsWith(before) || !lead.endsWith(behind)) return null;
  return { exchange, byDefault: lead.slice(before.length, lead.length - behind.length) };
}

/** What follows a text's beginning; null: it begins otherwise. */
function startingWith(text: string, beginning: string): string | null {
  return text.startsWith(beginning) ? text.slice(beginning.length) : null;
}

/** What stands before the system's words, and between them and the user's; null: the template takes none. */
function systemOf(render: Render): readonly [string, string] | null {
  try {
    const text = render([system(S), user(U)]);
    const at = text.indexOf(S);
    const middle = between(text, S, U);
    return at < 0 || middle === null ? null : [text.slice(0, at), middle];
  } catch (error) {
    if (error instanceof WasmLoraError) return null;
    throw error;
  }
}

/** Whether the exchanges, as Ollama writes them, are what the template renders. */
function isTrue(exchange: Exchange, byDefault: string | null, render: Render): boolean {
  const conversations = [
    [user("1 + 1?")],
    [user("Hello"), assistant("Hi."), user("Who?")],
    [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
  ];
  const systems = exchange.system === null ? [] : conversations.map((turns) => [system("Be brief."), ...turns]);
  return [...conversations, ...systems].every((messages) => {
    const isSaid = messages[0]!.role === "system" || byDefault === null;
    return written(exchange, isSaid ? messages : [system(byDefault), ...messages]) === render(messages);
  });
}

/** As Ollama's Execute does it. */
function written(exchange: Exchange, messages: readonly ChatMessage[]): string {
  let text = "";
  let [said, prompt] = ["", ""];
  for (const { role, content } of messages) {
    if (role === "system") said = content as string;
    else if (role === "user") prompt = content as string;
    else {
      text += one(exchange, said, prompt) + (content as string) + exchange.response[1];
      [said, prompt] = ["", ""];
    }
  }
  return text + one(exchange, said, prompt);
}

/** Up to the response. */
function one({ system: around, isNested, prompt: [before, behind], response }: Exchange, said: string, prompt: string) {
  const words = said !== "" && around ? around[0] + said + around[1] : "";
  return `${isNested ? "" : words}${before}${isNested ? words : ""}${prompt}${behind}${response[0]}`;
}

/** In Go's words; null: it has brackets of Go's. */
function textOf({ system: around, isNested, prompt: [before, behind], response }: Exchange): string | null {
  const words = around ? `{{ if .System }}${around[0]}{{ .System }}${around[1]}{{ end }}` : "";
  const parts = [...(around ?? []), before, behind, ...response];
  if (parts.some((part) => /\{\{|\}\}|\{$/.test(part))) return null;
  const prompt = `{{ if .Prompt }}${before}${isNested ? words : ""}{{ .Prompt }}${behind}{{ end }}`;
  return `${isNested ? "" : words}${prompt}${response[0]}{{ .Response }}${response[1]}`;
}

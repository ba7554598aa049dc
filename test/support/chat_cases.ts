/** Folders of chat templates with what transformers renders of them. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { data, FormatError } from "../../src/index.js";

/** rendered.json beside the templates, whose names are its keys. */
export interface ChatCases {
  /** The day that strftime_now tells; a folder that does not say was rendered on 26 November 2026. */
  date?: string;
  tools?: unknown[];
  conversations: Record<string, data.ChatMessage[]>;
  /** Variables of `blocks`. */
  values?: Record<string, unknown>;
  blocks?: ({ source: string } & Outcome)[];
  /** By template, and by conversation with flags: "system+prompt+enable_thinking". */
  rendered: Record<string, Record<string, Outcome>>;
}
/** The text, or the words that the template raises with. */
export type Outcome = { text: string; error?: undefined } | { error: string; kind?: string; text?: undefined };

export const SPECIAL_TOKENS = { bos_token: "<BOS>", eos_token: "<EOS>", pad_token: "<PAD>", unk_token: "<UNK>" };
/** What flags stand for. */
const KWARGS: Readonly<Record<string, unknown>> = { date_string: "01 Jan 2025", enable_thinking: false };
/** Errors of a template's syntax and of Python, which have other words here than those of raise_exception. */
const OTHER_WORDS = /^(Template(Syntax|Assertion)|Type|Undefined|Overflow)Error$/;

export function readChatCases(folder: URL): ChatCases {
  return JSON.parse(readFileSync(new URL("rendered.json", folder), "utf8")) as ChatCases;
}

export function readTemplate(folder: URL, name: string): data.ChatTemplate {
  const source = readFileSync(new URL(`${name}.jinja`, folder), "utf8");
  return new data.ChatTemplate(source, { name, specialTokens: SPECIAL_TOKENS });
}

/** Options of a case by its flags. */
export function optionsOf(flags: readonly string[], { date = "2026-11-26", tools }: ChatCases): data.RenderOptions {
  return {
    date,
    addGenerationPrompt: flags.includes("prompt"),
    tools: flags.includes("tools") ? tools : undefined,
    kwargs: Object.fromEntries(Object.entries(KWARGS).filter(([flag]) => flags.includes(flag))),
  };
}

/** Renders all cases of a template, each as transformers. @returns how many there were */
export function checkTemplate(folder: URL, cases: ChatCases, name: string): number {
  const template = readTemplate(folder, name);
  const all = Object.entries(cases.rendered[name]!);
  for (const [key, expected] of all) {
    const [conversation, ...flags] = key.split("+");
    checkOutcome(`${name} ${key}`, expected, () =>
      template.render(cases.conversations[conversation!]!, optionsOf(flags, cases)),
    );
  }
  return all.length;
}

export function checkOutcome(label: string, expected: Outcome, render: () => string): void {
  let text: string;
  try {
    text = render();
  } catch (error) {
    assert(error instanceof FormatError, `${label}: ${String(error)}`);
    assert(expected.error !== undefined, `${label}: ${error.message}`);
    if (!OTHER_WORDS.test(expected.kind ?? ""))
      assert(error.message.endsWith(`: ${expected.error}`), `${label}: "${error.message}" for "${expected.error}"`);
    return;
  }
  assert.equal(text, expected.text, label);
}

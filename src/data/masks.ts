/**
 * Which tokens of a conversation are scored, found by rendering its beginnings: a template says nowhere what of its
 * text an assistant wrote. What comes before message i is rendered with the beginning of an answer (head), and what
 * comes up to its end without (upto); between them, the message stands in the whole conversation's text. A token counts
 * to a message if no character of it lies outside.
 */
import type { Anchor, AnchorFinder } from "./anchors.js";
import type { ChatMessage } from "./examples.js";
import { Unusable, type Span } from "./labels.js";

/** Renders messages, with or without the beginning of an answer at the end. */
export type Render = (messages: readonly ChatMessage[], addGenerationPrompt: boolean) => string;

/** How a text becomes tokens. */
export interface Encoding {
  /** Token ids of a text, without what a post-processor adds. */
  encode(text: string): readonly number[];
  /** Tokens at which every text is cut. */
  readonly anchors: AnchorFinder;
}

/** Characters that one token may take across a border. */
const LONGEST_CROSSING = 256;

/** A text's tokens, and where in it they begin and end. */
export class TokenizedText {
  readonly ids: readonly number[];
  /** Where the text is cut, and how many tokens lie before. */
  readonly #anchors: readonly (Anchor & { readonly before: number })[];
  readonly #encoding: Encoding;

  /** @param like a text that begins alike, whose tokens up to where they part are taken over */
  constructor(
    readonly text: string,
    encoding: Encoding,
    like?: TokenizedText,
  ) {
    this.#encoding = encoding;
    const shared = like?.anchorBefore(commonLength(text, like.text) - encoding.anchors.longest);
    this.ids = shared
      ? [...like!.ids.slice(0, shared.before), ...encoding.encode(text.slice(shared.start))]
      : encoding.encode(text);
    const found = encoding.anchors.find(text);
    const kinds = new Set(found.map(({ id }) => id));
    const places = this.ids.flatMap((id, i) => (kinds.has(id) ? [i] : []));
    // Where the tokenizer goes by other rules, whole beginnings of the text are encoded.
    const agrees = places.length === found.length && found.every(({ id }, i) => this.ids[places[i]!] === id);
    this.#anchors = agrees ? found.map((anchor, i) => ({ ...anchor, before: places[i]! })) : [];
  }

  /** The last anchor that ends at a position or before it. */
  anchorBefore(position: number): (Anchor & { readonly before: number }) | undefined {
    let low = 0;
    let high = this.#anchors.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#anchors[middle]!.end <= position) low = middle + 1;
      else high = middle;
    }
    return this.#anchors[low - 1];
  }

  /** Tokens that lie before a position, if one begins there; else null. */
  #tokensBefore(position: number): number | null {
    if (position >= this.text.length) return this.ids.length;
    // Whatever follows, a text's tokens are those of its beginning wherever one of them ends there.
    const { start, before } = this.anchorBefore(position) ?? { start: 0, before: 0 };
    const ids = this.#encoding.encode(this.text.slice(start, position));
    return ids.every((id, i) => id === this.ids[before + i]) ? before + ids.length : null;
  }

  /** The first token that begins at a position or after it. */
  firstFrom(position: number): number {
    for (let at = position; at < position + LONGEST_CROSSING; at++) {
      const tokens = this.#tokensBefore(at);
      if (tokens !== null) return tokens;
    }
    throw new Unusable(`one token takes more than ${LONGEST_CROSSING} characters where an answer begins`);
  }

  /** The tokens that end at a position or before it. */
  countUpTo(position: number): number {
    for (let at = position; at > position - LONGEST_CROSSING && at > 0; at--) {
      const tokens = this.#tokensBefore(at);
      if (tokens !== null) return tokens;
    }
    if (position < LONGEST_CROSSING) return 0;
    throw new Unusable(`one token takes more than ${LONGEST_CROSSING} characters where an answer ends`);
  }
}

/** How many of two texts' first characters are equal. */
function commonLength(a: string, b: string): number {
  // Blocks are compared at once: texts of a conversation have much in common.
  const most = Math.min(a.length, b.length);
  let at = 0;
  for (let block = 4096; block >= 1; block = Math.floor(block / 8))
    while (at + block <= most && a.startsWith(b.slice(at, at + block), at)) at += block;
  return at;
}

/** How many of two lists' first elements are equal. */
function commonStart(a: readonly number[], b: readonly number[]): number {
  const most = Math.min(a.length, b.length);
  for (let i = 0; i < most; i++) if (a[i] !== b[i]) return i;
  return most;
}

/** Some messages of a conversation, one after the other, as the template writes them. */
export interface Part {
  /** What comes before them, with the beginning of an answer if they are one. */
  head: string;
  /** What comes before them without it. */
  bare(): string;
  /** The text up to their end. */
  upto: string;
  /** What it would be if the first of them said something else. */
  otherwise(): string;
}

/** What nobody says, and no template writes. */
const SOMETHING_ELSE = "\ue000";

/** Messages `first` .. `end` - 1. */
export function partOf(messages: readonly ChatMessage[], first: number, end: number, render: Render): Part {
  const before = messages.slice(0, first);
  const message = messages[first]!;
  const isAnswer = message.role === "assistant";
  // Most templates take no conversation of nothing; what they write before the first message counts to it.
  const bare = (): string => (first === 0 && !isAnswer ? "" : render(before, false));
  return {
    head: isAnswer ? render(before, true) : bare(),
    bare,
    upto: render(messages.slice(0, end), false),
    otherwise: () => render([...before, { ...message, content: SOMETHING_ELSE }], false),
  };
}

/**
 * The tokens of a part in a conversation's text, or null if they stand there otherwise than where the conversation
 * ends with them: with other words before them, or cut down, as some templates do with the thoughts of earlier turns.
 * @param ends tokens that end a turn or a text: some templates write one only where a conversation ends
 * @internal
 */
export function spanOf(
  whole: TokenizedText,
  { head, bare, upto, otherwise }: Part,
  encoding: Encoding,
  ends: ReadonlySet<number>,
): Span | null {
  const { text, ids } = whole;
  let start: number;
  if (text.startsWith(head)) start = whole.firstFrom(head.length);
  else {
    const plain = bare();
    if (!text.startsWith(plain)) return null;
    // The template begins an answer that is to be written otherwise than one that is there ("<think>"), which begins
    // where another one would differ from it.
    start = whole.firstFrom(Math.max(plain.length, commonLength(upto, otherwise())));
  }
  if (text.startsWith(upto)) return [start, Math.max(start, whole.countUpTo(upto.length))];
  const last = new TokenizedText(upto, encoding, whole);
  const end = commonStart(last.ids, ids);
  const isWhole = end > start && ids.slice(start, end).some((id) => ends.has(id));
  return isWhole && last.ids.slice(end).every((id) => ends.has(id)) ? [start, end] : null;
}

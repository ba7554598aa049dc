/**
 * A cursor over JSON text (RFC 8259) for what JSON.parse hides: duplicate keys (it keeps the last),
 * how an integer was spelt (1.0, 1e3 and -0 all look like integers afterwards) and where a fault is.
 * Every step is a loop over characters: no recursion without a bound, and no regular expression with
 * a loop, whose backtracking stack a hostile text could exhaust.
 */

import { ArgumentError } from "../runtime/errors.js";

/** Nesting beyond this is refused, so that hostile text cannot exhaust the stack. */
const MAX_DEPTH = 500;
/** 2^53 - 1, the largest exact integer, has 16 digits. */
const MAX_INTEGER_DIGITS = 16;
const NUMBER_CHARACTERS = "0123456789+-.eE";

/**
 * Reads JSON from a text piece by piece, and says where it is not what was expected. It builds nothing by itself, so
 * that the caller bounds what hostile text makes it build.
 */
export class JsonCursor {
  #position = 0;

  /**
   * @param fail throws the caller's error; the message says what was expected, what came and where
   * @param firstLine the number of the text's first line, where it is a part of a file
   */
  constructor(
    readonly text: string,
    readonly fail: (message: string) => never,
    readonly firstLine = 1,
  ) {}

  /** Number of characters that it has read. */
  get position(): number {
    return this.#position;
  }

  /** The next character that is not white space, "" at the end. */
  peek(): string {
    this.#skipSpace();
    return this.text[this.#position] ?? "";
  }

  #skipSpace(): void {
    // White space is at most U+0020, and most of what is not lies above.
    for (let code = this.text.charCodeAt(this.#position); code <= 0x20; code = this.text.charCodeAt(++this.#position)) {
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) break;
    }
  }

  /** Steps over `char` if it comes next. */
  accept(char: string): boolean {
    this.#skipSpace();
    if (this.text.charCodeAt(this.#position) !== char.charCodeAt(0)) return false;
    this.#position++;
    return true;
  }

  expect(char: string): void {
    if (!this.accept(char)) this.#expected(`"${char}"`);
  }

  string(): string {
    if (this.peek() !== '"') this.#expected("a string");
    const start = this.#position;
    let escaped = false;
    for (let i = start + 1; i < this.text.length; i++) {
      const code = this.text.charCodeAt(i);
      if (code === 0x22) {
        this.#position = i + 1;
        return escaped ? this.#unescape(start) : this.text.slice(start + 1, i);
      }
      if (code < 0x20) {
        this.#position = i;
        this.#expected("an escape sequence (control characters may not stand in strings)");
      }
      if (code === 0x5c) {
        escaped = true;
        i++;
      }
    }
    this.#position = this.text.length;
    this.#expected('a closing "');
  }

  /** An integer from 0 to 2^53 - 1 written in digits only. */
  integer(): number {
    this.peek();
    const start = this.#position;
    let value = 0;
    let end = start;
    for (
      let code = this.text.charCodeAt(end);
      code >= 0x30 && code <= 0x39 && end - start < MAX_INTEGER_DIGITS;
      code = this.text.charCodeAt(++end)
    )
      value = 10 * value + (code - 0x30);
    const leadingZero = end - start > 1 && this.text.charCodeAt(start) === 0x30;
    if (
      end === start ||
      leadingZero ||
      NUMBER_CHARACTERS.includes(this.text[end] ?? " ") ||
      !Number.isSafeInteger(value)
    ) {
      this.#expected("an integer from 0 to 2^53 - 1, in digits only", this.#numberToken());
    }
    this.#position = end;
    return value;
  }

  /**
   * Steps over any one value, failing at the first character that JSON does not allow.
   * @param unique fails at an object's second key of one name, too
   */
  skipValue(unique = false, depth = 0): void {
    if (depth > MAX_DEPTH) this.#expected(`at most ${MAX_DEPTH} levels of nesting`);
    const first = this.peek();
    if (first === '"') this.string();
    else if (this.accept("{")) {
      if (this.accept("}")) return;
      const keys = new Set<string>();
      do {
        this.peek();
        const start = this.#position;
        const key = this.string();
        if (unique && keys.has(key)) {
          this.#position = start;
          this.#expected("a key that the object does not have already", key);
        }
        keys.add(key);
        this.expect(":");
        this.skipValue(unique, depth + 1);
      } while (this.accept(","));
      this.expect("}");
    } else if (this.accept("[")) {
      if (this.accept("]")) return;
      do this.skipValue(unique, depth + 1);
      while (this.accept(","));
      this.expect("]");
    } else {
      const literal = ["true", "false", "null"].find((word) => this.text.startsWith(word, this.#position));
      const token = literal ?? this.#numberToken();
      // Such a token has only digits, signs, points and e: JSON.parse takes it if it is a number.
      if (!literal && !parses(token)) this.#expected("a value");
      this.#position += token.length;
    }
  }

  /** Fails unless nothing but `padding` characters follows. */
  end(padding: string): void {
    while (this.#position < this.text.length) {
      if (!padding.includes(this.text[this.#position]!)) this.#expected("nothing more");
      this.#position++;
    }
  }

  #numberToken(): string {
    let end = this.#position;
    while (end < this.text.length && NUMBER_CHARACTERS.includes(this.text[end]!)) end++;
    return this.text.slice(this.#position, end);
  }

  #unescape(start: number): string {
    const literal = this.text.slice(start, this.#position);
    if (!parses(literal)) {
      this.#position = start;
      this.#expected("a string with valid escapes", literal);
    }
    return JSON.parse(literal) as string;
  }

  #expected(what: string, token = this.text.slice(this.#position, this.#position + 1)): never {
    const got = token === "" && this.#position >= this.text.length ? "the end of the text" : show(token);
    let line = this.firstLine;
    let lineStart = 0;
    for (let i = this.text.indexOf("\n"); i >= 0 && i < this.#position; i = this.text.indexOf("\n", i + 1)) {
      line++;
      lineStart = i + 1;
    }
    this.fail(`line ${line}, column ${this.#position - lineStart + 1}: expected ${what}, got ${got}`);
  }
}

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** @throws ArgumentError unless it is a string */
export function checkText(where: string, name: string, value: unknown): asserts value is string {
  if (typeof value !== "string") throw new ArgumentError(`${where}: ${name} must be a string; got ${show(value)}.`);
}

/** A parsed value that is an object, no list; else undefined. */
export function asObject(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

/** How much of a value an error message shows. */
const SHOWN = 80;

/** A value for an error message: as JSON, cut after 80 characters. */
export function show(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(cut(value)) : cut(beginning(value, SHOWN + 1));
}

/**
 * JSON.stringify(value), or its beginning if that has at least `room` characters; what lies beyond is not visited.
 * JSON.stringify itself runs out of stack on what JSON.parse took, and in JavaScriptCore needs time that grows with
 * the square of the depth.
 */
function beginning(value: unknown, room: number): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, Math.max(0, room)));
  if (typeof value !== "object" || value === null) return String(value);
  const list = Array.isArray(value);
  let text = list ? "[" : "{";
  for (const key of Object.keys(value)) {
    if (text.length >= room) return text;
    if (text.length > 1) text += ",";
    if (!list) text += `${JSON.stringify(key)}:`;
    text += beginning((value as Record<string, unknown>)[key], room - text.length);
  }
  return text + (list ? "]" : "}");
}

function cut(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}...` : text;
}

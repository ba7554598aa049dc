/**
 * Which files the reference reads, decided slowly and apart from our reader: JSON character by character as serde_json
 * takes it, every count a bigint, and the rules one after the other.
 * Source: huggingface/safetensors, README "Format" and src/tensor.rs (read_metadata, HashMetadata, validate); serde's
 * derived structs (from a list too, unknown fields skipped) and units of enums; serde_json's limit of 127 levels.
 */
import { Finding } from "./target.js";

type Json =
  | { kind: "object"; members: [string, Json][] }
  | { kind: "list"; items: Json[] }
  | { kind: "string"; text: string }
  | { kind: "integer"; value: bigint }
  | { kind: "other"; text: string };

export interface ReferenceTensor {
  dtype: string;
  shape: bigint[];
  bytes: Uint8Array;
}

export type ReferenceReading =
  /** `stricter`: what in it our reader refuses on purpose. */
  { taken: true; stricter: string[]; tensors: Map<string, ReferenceTensor> } | { taken: false; why: string };

const BITS: Record<string, bigint> = {
  F4: 4n,
  F6_E2M3: 6n,
  F6_E3M2: 6n,
  BOOL: 8n,
  U8: 8n,
  I8: 8n,
  F8_E5M2: 8n,
  F8_E4M3: 8n,
  F8_E8M0: 8n,
  F8_E4M3FNUZ: 8n,
  F8_E5M2FNUZ: 8n,
  I16: 16n,
  U16: 16n,
  F16: 16n,
  BF16: 16n,
  I32: 32n,
  U32: 32n,
  F32: 32n,
  C64: 64n,
  F64: 64n,
  I64: 64n,
  U64: 64n,
};
const USIZE = 1n << 64n;
const SAFE = 1n << 53n;

class Refused extends Error {}
function refuse(why: string): never {
  throw new Refused(why);
}

export function referenceReads(file: Uint8Array): ReferenceReading {
  try {
    return read(Buffer.from(file.buffer, file.byteOffset, file.length));
  } catch (error) {
    if (error instanceof Refused) return { taken: false, why: error.message };
    throw error;
  }
}

function read(file: Buffer): ReferenceReading {
  if (file.length < 8) refuse("no room for the header's length");
  const n = file.readBigUInt64LE(0);
  if (n > 100_000_000n) refuse("header beyond 100 MB");
  if (8n + n > BigInt(file.length)) refuse("header beyond the file");
  const data = file.subarray(8 + Number(n));
  const stricter = new Set<string>();
  const root = new Reader(utf8(file.subarray(8, 8 + Number(n))), stricter).whole();
  if (root.kind !== "object") refuse("header is no object");

  const tensors = new Map<string, ReferenceTensor & { begin: bigint; end: bigint }>();
  let metadata = false;
  for (const [name, value] of (root as Extract<Json, { kind: "object" }>).members) {
    if (name !== "__metadata__") {
      if (tensors.has(name)) stricter.add("a name twice");
      tensors.set(name, { ...info(value, stricter), bytes: data });
      continue;
    }
    if (metadata) refuse("__metadata__ twice");
    metadata = true;
    if (value.kind === "other" && value.text === "null") stricter.add("metadata of null");
    else if (value.kind !== "object") refuse("metadata is no object");
    else {
      if (new Set(value.members.map(([key]) => key)).size < value.members.length) stricter.add("a key twice");
      if (value.members.some(([, v]) => v.kind !== "string")) refuse("metadata is no text");
    }
  }

  let at = 0n;
  for (const tensor of [...tensors.values()].sort((a, b) => Number(a.begin - b.begin) || Number(a.end - b.end))) {
    const { begin, end, shape, dtype } = tensor;
    if (begin !== at || end < begin) refuse("offsets with a hole, an overlap, or backwards");
    at = end;
    let bits = 1n;
    for (const size of [...shape, BITS[dtype]!]) {
      bits *= size;
      if (bits >= USIZE) refuse("size overflows");
      if (bits >= SAFE) stricter.add("2^53 bits, beside a 0");
    }
    // Ours multiplies by the element's bits first.
    shape.reduce((product, size) => {
      if (product * size >= SAFE) stricter.add("2^53 bits, beside a 0");
      return product * size;
    }, BITS[dtype]!);
    if (bits % 8n !== 0n) refuse("half a byte");
    if (end - begin !== bits / 8n) refuse("size is not that of shape and dtype");
    tensor.bytes = data.subarray(Number(begin), Number(end));
  }
  if (at !== BigInt(data.length)) refuse("tensors and file end apart");
  return { taken: true, stricter: [...stricter], tensors };
}

function utf8(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refuse("header is not UTF-8");
  }
}

const FIELDS = ["dtype", "shape", "data_offsets"];

function info(value: Json, stricter: Set<string>): { dtype: string; shape: bigint[]; begin: bigint; end: bigint } {
  const fields = new Map<string, Json>();
  if (value.kind === "list") {
    stricter.add("a tensor as a list");
    if (value.items.length !== 3) refuse("a tensor of not three items");
    value.items.forEach((item, i) => {
      fields.set(FIELDS[i]!, item);
    });
  } else if (value.kind === "object") {
    for (const [key, field] of value.members) {
      if (!FIELDS.includes(key)) stricter.add("an unknown field");
      else if (fields.has(key)) refuse(`${key} twice`);
      else fields.set(key, field);
    }
  } else refuse("a tensor is no object");
  const get = (key: string): Json => fields.get(key) ?? refuse(`no ${key}`);
  let dtype = get("dtype");
  if (dtype.kind === "object" && dtype.members.length === 1) {
    const [name, unit] = dtype.members[0]!;
    if (unit.kind !== "other" || unit.text !== "null") refuse("dtype is no unit");
    stricter.add("dtype as an object");
    dtype = { kind: "string", text: name };
  }
  if (dtype.kind !== "string" || !Object.hasOwn(BITS, dtype.text)) return refuse("dtype unknown");
  const offsets = integers(get("data_offsets"), stricter);
  if (offsets.length !== 2) refuse("not two offsets");
  return { dtype: dtype.text, shape: integers(get("shape"), stricter), begin: offsets[0]!, end: offsets[1]! };
}

function integers(value: Json, stricter: Set<string>): bigint[] {
  if (value.kind !== "list") return refuse("no list of integers");
  return value.items.map((item) => {
    if (item.kind !== "integer") return refuse("no integer");
    if (item.value >= SAFE) stricter.add("an integer of 2^53");
    return item.value;
  });
}

/** JSON as serde_json reads it. */
class Reader {
  #at = 0;

  constructor(
    readonly text: string,
    readonly stricter: Set<string>,
  ) {}

  whole(): Json {
    if (this.text[0] !== "{") this.stricter.add("white space before the header");
    const value = this.#value(127);
    const rest = this.text.slice(this.#at);
    if (/[^ \t\n\r]/.test(rest)) refuse("more after the header");
    if (/[^ ]/.test(rest)) this.stricter.add("padding of more than spaces");
    return value;
  }

  #peek(): string {
    while (" \t\n\r".includes(this.text[this.#at] ?? "x")) this.#at++;
    return this.text[this.#at] ?? "";
  }

  #expect(char: string): void {
    if (this.#peek() !== char) refuse(`no ${char}`);
    this.#at++;
  }

  #value(depth: number): Json {
    const char = this.#peek();
    if (char === "{" || char === "[") {
      if (depth === 0) refuse("more than 127 levels");
      this.#at++;
      return char === "{"
        ? {
            kind: "object",
            members: this.#series("}", () => {
              this.#peek();
              const key = this.#string();
              this.#expect(":");
              return [key, this.#value(depth - 1)] as [string, Json];
            }),
          }
        : { kind: "list", items: this.#series("]", () => this.#value(depth - 1)) };
    }
    if (char === '"') return { kind: "string", text: this.#string() };
    const token = /[-+.\w]*/y;
    token.lastIndex = this.#at;
    const text = token.exec(this.text)![0];
    this.#at += text.length;
    if (["null", "true", "false"].includes(text)) return { kind: "other", text };
    if (!/^-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?$/.test(text)) refuse("no value");
    if (!Number.isFinite(Number(text))) refuse("number out of range");
    return /^\d+$/.test(text) && BigInt(text) < USIZE
      ? { kind: "integer", value: BigInt(text) }
      : { kind: "other", text };
  }

  #series<T>(end: string, item: () => T): T[] {
    const items: T[] = [];
    if (this.#peek() === end) {
      this.#at++;
      return items;
    }
    for (;;) {
      items.push(item());
      if (this.#peek() === end) {
        this.#at++;
        return items;
      }
      this.#expect(",");
    }
  }

  #string(): string {
    const start = this.#at;
    if (this.text[this.#at++] !== '"') refuse("no string");
    for (; ; this.#at++) {
      const char = this.text[this.#at];
      if (char === undefined || char < " ") refuse("no end of a string, or a control character in it");
      if (char === '"') break;
      if (char === "\\") this.#at++;
    }
    const literal = this.text.slice(start, ++this.#at);
    let text: string;
    try {
      text = JSON.parse(literal) as string;
    } catch {
      return refuse("a wrong escape");
    }
    if (/\p{Surrogate}/u.test(text)) refuse("a lone surrogate");
    if (typeof text !== "string") throw new Finding("a string's literal is no string");
    return text;
  }
}

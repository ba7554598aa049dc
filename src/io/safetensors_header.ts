/**
 * The header of a safetensors file: what tensors it has and where they lie. It is read by itself, since the data behind
 * it may be larger than memory; safetensors.ts describes the format.
 */
import { FormatError } from "../runtime/errors.js";
import type { OpenFile } from "./open_file.js";
import { JsonCursor, show } from "./json.js";
import { beginsAsText, signatureOf } from "./signature.js";

/** The format's element types, as its header spells them. */
export type SafetensorsDtype =
  | "BOOL"
  | "F4"
  | "F6_E2M3"
  | "F6_E3M2"
  | "U8"
  | "I8"
  | "F8_E5M2"
  | "F8_E4M3"
  | "F8_E8M0"
  | "F8_E4M3FNUZ"
  | "F8_E5M2FNUZ"
  | "I16"
  | "U16"
  | "F16"
  | "BF16"
  | "I32"
  | "U32"
  | "F32"
  | "C64"
  | "F64"
  | "I64"
  | "U64";

/** Bits per element, in the reference's order of alignment, by which its writer sorts tensors. */
export const DTYPE_BITS: Readonly<Record<SafetensorsDtype, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

export const DTYPES = Object.keys(DTYPE_BITS) as SafetensorsDtype[];
export const METADATA = "__metadata__";
/** The reference's limit; it also keeps the header below the longest string of any engine. */
export const MAX_HEADER_BYTES = 100_000_000;

/** A tensor of a file by its header. */
export interface StoredTensor {
  /** Its key in the header. */
  name: string;
  /** Its element type. */
  dtype: SafetensorsDtype;
  /** Sizes of the dimensions; [] for a scalar. */
  shape: readonly number[];
  /** Where in the file its values begin. */
  begin: number;
  /** Bytes of its values. */
  length: number;
}

/** A file's header, checked. */
export interface SafetensorsHeader {
  /** Its `__metadata__`. Without a prototype, so any key is safe. */
  readonly metadata: Record<string, string>;
  /** By name, in the order of their data. */
  tensors: Map<string, StoredTensor>;
  /** Where the header ends and the data begin. */
  dataStart: number;
  /** Where the last tensor, and so the file, ends. */
  end: number;
}

interface TensorInfo {
  dtype: SafetensorsDtype;
  shape: number[];
  begin: number;
  end: number;
}

/** So much of a file's start tells how long the header is, or what the file is instead. */
export const START_BYTES = 512;

/**
 * Where the header ends.
 * @param start the file's first `START_BYTES`, or all that it has
 * @param size of the file; null where nobody knows before its end
 * @param file its name, for errors
 * @throws FormatError
 */
export function headerEnd(start: Uint8Array, size: number | null, file: string): number {
  const failAtStart = failingAtStart(start, file);
  if (start.length < 8) failAtStart(`the file has ${start.length} bytes; its header's length alone takes 8`);
  const n = new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true);
  // Compared as u64: narrowed first, 2^64 - 1 would not be what it is.
  if (n > BigInt(MAX_HEADER_BYTES))
    failAtStart(`the header's length is ${n} bytes; at most ${MAX_HEADER_BYTES} are allowed`);
  const end = 8 + Number(n);
  if (size !== null && end > size)
    failAtStart(
      `the header's length is ${n} bytes, but only ${size - 8} follow: the file is cut off, so fetch it again`,
    );
  return end;
}

/**
 * Checks all of a header.
 * @param start the file's first bytes, up to `headerEnd`
 * @param size of the file; null where nobody knows before its end
 * @param file its name, for errors
 * @throws FormatError naming the file, the tensor, what was expected and what came
 */
export function parseHeader(start: Uint8Array, size: number | null, file: string): SafetensorsHeader {
  const fail = (message: string): never => {
    throw new FormatError(`${file}: ${message}.`);
  };
  const failAtStart = failingAtStart(start, file);
  const dataStart = start.length;
  const { metadata, infos } = parseText(decodeUtf8(start.subarray(8), failAtStart), fail, failAtStart);
  // Array.sort is stable: zero-size tensors at one offset keep the header's order.
  const ordered = [...infos].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  const tensors = new Map<string, StoredTensor>();
  const dataBytes = size === null ? Infinity : size - dataStart;
  let position = 0;
  for (const [name, { dtype, shape, begin, end }] of ordered) {
    const failTensor = (message: string): never => fail(`tensor ${show(name)} ${message}`);
    if (begin !== position)
      failTensor(`begins at byte ${begin} of the data; expected ${position}, where the one before it ends`);
    const length = byteLength(dtype, shape, failTensor);
    if (end - begin !== length) {
      failTensor(
        `has data_offsets [${begin}, ${end}], ${end - begin} bytes; ${dtype} of shape ${show(shape)} takes ${length}`,
      );
    }
    if (end > dataBytes)
      failTensor(
        `ends at byte ${end} of the data, but there are only ${dataBytes}: the file is cut off, so fetch it again`,
      );
    tensors.set(name, { name, dtype, shape, begin: dataStart + begin, length });
    position = end;
  }
  if (size !== null && position !== dataBytes)
    fail(`the tensors end at byte ${position} of the data, the file at ${dataBytes}`);
  let given: Record<string, string> | undefined;
  return {
    get metadata() {
      return (given ??= Object.assign(Object.create(null) as Record<string, string>, JSON.parse(metadata ?? "{}")));
    },
    tensors,
    dataStart,
    end: dataStart + position,
  };
}

/** The header of a file, of which nothing else is read. @throws FormatError as `parseHeader`; FileError */
export function readHeader(file: OpenFile): SafetensorsHeader {
  const { path, size } = file;
  const read = (bytes: number): Uint8Array => {
    const start = new Uint8Array(bytes);
    file.read(0, start);
    return start;
  };
  return parseHeader(read(headerEnd(read(Math.min(size, START_BYTES)), size, path)), size, path);
}

/** For where the beginning is wrong: any two bytes may be those of a header's length. */
function failingAtStart(start: Uint8Array, file: string): (message: string) => never {
  return (message) => {
    const signature =
      signatureOf(start) ?? (beginsAsText(start) ? "text, such as a server's error; download it again" : undefined);
    throw new FormatError(`${file}: ${signature ? `expected a safetensors file; it is ${signature}` : message}.`);
  };
}

function decodeUtf8(bytes: Uint8Array, fail: (message: string) => never): string {
  try {
    // ignoreBOM keeps a byte order mark in the text, where it is refused as any other first character.
    // The copy is for browsers, whose TextDecoder refuses shared memory.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(new Uint8Array(bytes));
  } catch {
    return fail("the header is not valid UTF-8");
  }
}

function parseText(text: string, fail: (message: string) => never, failAtStart: (message: string) => never) {
  if (text[0] !== "{")
    failAtStart(`the header must start with "{", got ${text === "" ? "an empty header" : show(text[0]!)}`);
  const cursor = new JsonCursor(text, (message) => fail(`header ${message}`));
  const infos = new Map<string, TensorInfo>();
  let metadata: string | undefined;
  cursor.expect("{");
  if (!cursor.accept("}")) {
    do {
      const name = wellFormed(cursor.string(), fail);
      if (infos.has(name) || (name === METADATA && metadata !== undefined)) fail(`key ${show(name)} occurs twice`);
      cursor.expect(":");
      if (name === METADATA) metadata = checkMetadata(cursor, fail);
      else infos.set(name, parseInfo(cursor, name, fail));
    } while (cursor.accept(","));
    cursor.expect("}");
  }
  cursor.end(" ");
  return { metadata, infos };
}

/**
 * @returns the JSON of an object of strings by keys that occur once: it is made into one when it is asked for, since a
 * stranger's may have a million
 */
function checkMetadata(cursor: JsonCursor, fail: (message: string) => never): string {
  const seen = new Set<string>();
  const start = cursor.position;
  let keys = 0;
  cursor.expect("{");
  if (!cursor.accept("}")) {
    do {
      const key = wellFormed(cursor.string(), fail);
      if (seen.add(key).size !== ++keys) fail(`key ${show(key)} of ${METADATA} occurs twice`);
      cursor.expect(":");
      wellFormed(cursor.string(), fail);
    } while (cursor.accept(","));
    cursor.expect("}");
  }
  return cursor.text.slice(start, cursor.position);
}

function parseInfo(cursor: JsonCursor, name: string, fail: (message: string) => never): TensorInfo {
  const failTensor = (message: string): never => fail(`tensor ${show(name)} ${message}`);
  let dtype: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  cursor.expect("{");
  if (!cursor.accept("}")) {
    do {
      const field = cursor.string();
      const twice =
        (field === "dtype" && dtype !== undefined) ||
        (field === "shape" && shape !== undefined) ||
        (field === "data_offsets" && offsets !== undefined);
      if (twice) fail(`key ${show(field)} of tensor ${show(name)} occurs twice`);
      cursor.expect(":");
      if (field === "dtype") dtype = cursor.string();
      else if (field === "shape") shape = integers(cursor);
      else if (field === "data_offsets") offsets = integers(cursor);
      else failTensor(`has field ${show(field)}; expected only dtype, shape and data_offsets`);
    } while (cursor.accept(","));
    cursor.expect("}");
  }

  if (dtype === undefined) return failTensor("has no dtype");
  // The constant's string, not the header's: a million tensors would otherwise hold a million copies of "F32".
  const known = isDtype(dtype)
    ? DTYPES[DTYPES.indexOf(dtype)]!
    : failTensor(`has dtype ${show(dtype)}; known are ${DTYPES.join(", ")}`);
  if (shape === undefined) return failTensor("has no shape");
  if (offsets === undefined) return failTensor("has no data_offsets");
  const [begin, end] = offsets;
  if (begin === undefined || end === undefined || offsets.length !== 2) {
    return failTensor(`has ${offsets.length} data_offsets; expected 2, begin and end`);
  }
  if (end < begin) return failTensor(`has data_offsets [${begin}, ${end}], which end before they begin`);
  return { dtype: known, shape, begin, end };
}

function integers(cursor: JsonCursor): number[] {
  const values: number[] = [];
  cursor.expect("[");
  if (cursor.accept("]")) return values;
  do values.push(cursor.integer());
  while (cursor.accept(","));
  cursor.expect("]");
  // A list that grew by pushing has room for more; its copy has none.
  return values.slice();
}

export function isDtype(name: string): name is SafetensorsDtype {
  return Object.hasOwn(DTYPE_BITS, name);
}

/** Lone surrogates (from \uD800 escapes) have no UTF-8, so they could not be written again. */
export function isWellFormed(text: string): boolean {
  for (let i = 0; i < text.length; i++)
    if ((text.charCodeAt(i) & 0xf800) === 0xd800) return !/\p{Surrogate}/u.test(text);
  return true;
}

function wellFormed(text: string, fail: (message: string) => never): string {
  return isWellFormed(text)
    ? text
    : fail(`the header's string ${show(text)} holds a lone surrogate; expected well-formed Unicode`);
}

export function byteLength(
  dtype: SafetensorsDtype,
  shape: readonly number[],
  fail: (message: string) => never,
): number {
  let bits = DTYPE_BITS[dtype];
  for (const size of shape) {
    bits *= size;
    // Products are exact up to 2^53, and no file has so many bits.
    if (!Number.isSafeInteger(bits)) fail(`of ${dtype} and shape ${show(shape)} overflows: more than 2^53 bits`);
  }
  if (bits % 8 !== 0) fail(`of ${dtype} and shape ${show(shape)} takes ${bits} bits; expected whole bytes`);
  return bits / 8;
}

/**
 * The header of a GGUF file, read strictly: what it says of its model, what tensors it has and where they lie. The data
 * behind it may be larger than memory.
 *
 *   file  = "GGUF" | version: u32 | tensors: u64 | values: u64 | values x (key | type: u32 | value) | tensors x info
 *           | padding to the alignment | data
 *   info  = name | dimensions: u32 | dimensions x size: u64, fastest first | type: u32 | offset in the data: u64
 *   text  = length: u64 | UTF-8
 *   list  = type of its items: u32 | length: u64 | items
 *
 * All is little-endian. Nothing is believed before the bytes are there: time and memory are proportional to those.
 * Source: ggml-org/ggml, docs/gguf.md and src/gguf.cpp.
 */
import { FormatError } from "../../runtime/errors.js";
import { show } from "../json.js";
import type { OpenFile } from "../open_file.js";
import { beginsAsText, signatureOf } from "../signature.js";
import type { StreamReader } from "../streamed_file.js";
import {
  GGML_TYPES,
  GGUF_ALIGNMENT,
  GGUF_MAGIC,
  GGUF_TYPES,
  type GgmlType,
  type GgufMetadata,
  type GgufScalar,
  type GgufScalarType,
  type GgufType,
  type GgufValue,
} from "./types.js";

/** Says the alignment where it is not GGUF_ALIGNMENT. */
const ALIGNMENT_KEY = "general.alignment";
/** ggml's GGML_MAX_DIMS. */
const MAX_DIMENSIONS = 4;
/** ggml's GGML_MAX_NAME, with its closing zero. */
const MAX_NAME_BYTES = 63;
/** A vocabulary of a million tokens with as many merges takes half of it. */
const MAX_HEADER_BYTES = 100_000_000;
/** The magic, the version and two counts. */
const FIXED_BYTES = 24;
/** So much is asked for at a time. */
const PIECE_BYTES = 1 << 18;
/** The format allows no longer key. */
const MAX_KEY_LENGTH = 65535;

/** A tensor of a GGUF file by its header. */
export interface GgufTensor {
  /** Its name in llama.cpp's words. */
  name: string;
  /** What its values are stored in. */
  dtype: GgmlType;
  /** Sizes of the dimensions, slowest first: torch's order, the reverse of ggml's. */
  shape: readonly number[];
  /** Where in the file its values begin. */
  begin: number;
  /** Bytes of its values. */
  length: number;
}

/** A file's header, checked. */
export interface GgufHeader {
  /** 2 or 3, which differ in nothing but that 3 may be big-endian. */
  version: number;
  /** By key, in the file's order. */
  metadata: GgufMetadata;
  /** By name, in the order of their data. */
  tensors: Map<string, GgufTensor>;
  /** Each tensor begins at a multiple of it, counted from `dataStart`. */
  alignment: number;
  /** Where the data begin. */
  dataStart: number;
  /** Where the last tensor ends; the file may have padding behind it. */
  end: number;
}

/** The header of a file, of which nothing else is read. @throws FormatError naming the place; FileError @internal */
export function readGgufHeader(file: OpenFile): GgufHeader {
  const parser = parseHeader(file.path, file.size);
  let step = parser.next();
  while (!step.done) {
    const [at, length] = step.value;
    const bytes = new Uint8Array(length);
    file.read(at, bytes);
    step = parser.next(bytes);
  }
  return step.value.header;
}

/**
 * As `readGgufHeader`, from the start of a stream, in which the data come next then.
 * @param size of the file; null where nobody knows before its end
 * @internal
 */
export async function readStreamedGgufHeader(
  path: string,
  size: number | null,
  reader: StreamReader,
): Promise<GgufHeader> {
  const parser = parseHeader(path, size);
  let step = parser.next();
  while (!step.done) step = parser.next(await reader.take(step.value[1]));
  reader.giveBack(step.value.rest);
  return step.value.header;
}

/** A place and how many bytes are wanted from there on. At a stream's end fewer may come. */
type Request = readonly [at: number, length: number];

interface Parsed {
  header: GgufHeader;
  /** What has come of the data. */
  rest: Uint8Array;
}

/** Asks for the file's bytes in order, as it needs them. */
function* parseHeader(path: string, size: number | null): Generator<Request, Parsed, Uint8Array> {
  let held = new Uint8Array(0);
  let view = new DataView(held.buffer);
  /** Where in the file `held` begins, and what of it comes next. */
  let base = 0;
  let next = 0;
  let reading = "";

  const fail = (message: string): never => {
    throw new FormatError(`${path}: ${message}.`);
  };
  const cutOff = (): never => fail(`it ends within ${reading}: it is cut off, so fetch it again`);
  const isShort = (length: number): boolean => held.length - next < length;
  /** Brings the next bytes, so many at least. */
  function* need(length: number): Generator<Request, void, Uint8Array> {
    base += next;
    held = held.subarray(next);
    next = 0;
    if (size !== null && base + length > size) cutOff();
    if (base + length > MAX_HEADER_BYTES)
      fail(`${reading} ends behind byte ${MAX_HEADER_BYTES}; no header may be longer`);
    const at = base + held.length;
    const more = yield [
      at,
      Math.min(Math.max(length - held.length, PIECE_BYTES), size === null ? Infinity : size - at),
    ];
    const joined = new Uint8Array(held.length + more.length);
    joined.set(held);
    joined.set(more, held.length);
    held = joined;
    view = new DataView(held.buffer);
    if (isShort(length)) cutOff();
  }
  function* uint32(): Generator<Request, number, Uint8Array> {
    if (isShort(4)) yield* need(4);
    next += 4;
    return view.getUint32(next - 4, true);
  }
  /** Compared as it is: narrowed first, 2^64 - 1 would be another number. */
  function* count(what: string): Generator<Request, number, Uint8Array> {
    if (isShort(8)) yield* need(8);
    const value = view.getUint32(next, true) + 0x1_0000_0000 * view.getUint32(next + 4, true);
    if (!Number.isSafeInteger(value)) fail(`${what} is ${view.getBigUint64(next, true)}; no file has so many`);
    next += 8;
    return value;
  }
  function* text(): Generator<Request, string, Uint8Array> {
    const length = yield* count(`the length of ${reading}`);
    if (isShort(length)) yield* need(length);
    return taken(length);
  }
  function taken(length: number): string {
    next += length;
    return decode(held, next - length, next, () => fail(`${reading} is not valid UTF-8`));
  }
  /** The next text, if all of it has come: most of a vocabulary's do not wait, and steps of generators take time. */
  function textAtHand(): string | undefined {
    if (isShort(8) || view.getUint32(next + 4, true) !== 0) return undefined;
    const length = view.getUint32(next, true);
    if (isShort(8 + length)) return undefined;
    next += 8;
    return taken(length);
  }
  function* scalar(type: GgufScalarType): Generator<Request, GgufScalar, Uint8Array> {
    if (type === "string") return yield* text();
    const bytes = SCALAR_BYTES[type];
    if (isShort(bytes)) yield* need(bytes);
    next += bytes;
    return readScalar(view, next - bytes, type) ?? fail(`${reading} is ${view.getUint8(next - 1)}; expected 0 or 1`);
  }
  function* value(): Generator<Request, GgufValue, Uint8Array> {
    const type = typeOf(yield* uint32());
    if (type !== "array") return { type, value: yield* scalar(type) };
    const of = typeOf(yield* uint32());
    if (of === "array") return fail(`${reading} is a list of lists, which no GGUF file may have`);
    const length = yield* count(`the length of ${reading}`);
    // Lists of numbers are there whole before they are read, and then take no step that may wait.
    if (of !== "string" && isShort(length * SCALAR_BYTES[of])) yield* need(length * SCALAR_BYTES[of]);
    const items: GgufScalar[] = [];
    for (let i = 0; i < length; i++) items.push((of === "string" ? textAtHand() : undefined) ?? (yield* scalar(of)));
    return { type, of, value: items };
  }
  function typeOf(code: number): GgufType {
    return GGUF_TYPES[code] ?? fail(`${reading} has type ${code}; known are 0 to ${GGUF_TYPES.length - 1}`);
  }

  held = new Uint8Array(yield [0, Math.min(size ?? PIECE_BYTES, PIECE_BYTES)]);
  view = new DataView(held.buffer);
  if (held.length < FIXED_BYTES || String.fromCharCode(...held.subarray(0, 4)) !== GGUF_MAGIC) failAtStart(path, held);
  next = 4;
  const version = yield* uint32();
  if (version === 0x02000000 || version === 0x03000000)
    fail("it is big-endian; convert the model again for this machine");
  if (version !== 2 && version !== 3)
    fail(`its GGUF version is ${version}; 2 and 3 are supported, so convert the model again`);
  const tensorCount = yield* count("the number of tensors");
  const valueCount = yield* count("the number of metadata values");

  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < valueCount; i++) {
    reading = `key ${i + 1} of ${valueCount} of the metadata`;
    const key = yield* text();
    if (key === "" || key.length > MAX_KEY_LENGTH) fail(`${reading} has ${key.length} characters`);
    if (metadata.has(key)) fail(`key ${show(key)} of the metadata occurs twice`);
    reading = `the value of ${show(key)}`;
    metadata.set(key, yield* value());
  }
  const alignment = alignmentOf(metadata, fail);

  const infos: Omit<GgufTensor, "begin">[] = [];
  const offsets: number[] = [];
  const names = new Set<string>();
  let position = 0;
  for (let i = 0; i < tensorCount; i++) {
    reading = `tensor ${i + 1} of ${tensorCount}`;
    const before = base + next;
    const name = yield* text();
    const nameBytes = base + next - before - 8;
    if (nameBytes < 1 || nameBytes > MAX_NAME_BYTES)
      fail(`the name of ${reading} has ${nameBytes} bytes; expected 1 to ${MAX_NAME_BYTES}`);
    if (names.has(name)) fail(`tensor ${show(name)} occurs twice`);
    names.add(name);
    reading = `tensor ${show(name)}`;
    const dimensions = yield* uint32();
    if (dimensions < 1 || dimensions > MAX_DIMENSIONS)
      fail(`${reading} has ${dimensions} dimensions; expected 1 to ${MAX_DIMENSIONS}`);
    const shape: number[] = new Array(dimensions);
    for (let d = dimensions - 1; d >= 0; d--) shape[d] = yield* count(`a size of ${reading}`);
    const code = yield* uint32();
    const dtype = DTYPE_OF.get(code) ?? fail(`${reading} has type ${code}, which this library does not know`);
    const offset = yield* count(`the offset of ${reading}`);
    if (offset !== position)
      fail(`${reading} begins at byte ${offset} of the data; expected ${position}, behind the one before it`);
    const length = byteLength(dtype, shape, (message) => fail(`${reading} ${message}`));
    infos.push({ name, dtype, shape, length });
    offsets.push(offset);
    position = padded(offset + length, alignment);
  }
  const dataStart = padded(base + next, alignment);
  const last = infos.at(-1);
  const end = last ? dataStart + offsets.at(-1)! + last.length : base + next;
  if (size !== null && end > size)
    fail(`its last tensor ends at byte ${end}, but it has ${size} bytes: it is cut off, so fetch it again`);
  if (size !== null && size - end >= alignment)
    fail(`its last tensor ends at byte ${end}, and the file goes on to byte ${size}`);
  if (last) {
    reading = "the padding before its data";
    const padding = dataStart - base - next;
    if (isShort(padding)) yield* need(padding);
    next += padding;
  }
  const tensors = new Map(infos.map((info, i) => [info.name, { ...info, begin: dataStart + offsets[i]! }]));
  return { header: { version, metadata, tensors, alignment, dataStart, end }, rest: held.subarray(next) };
}

const SCALAR_BYTES: Readonly<Record<Exclude<GgufScalarType, "string">, number>> = {
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  bool: 1,
  uint64: 8,
  int64: 8,
  float64: 8,
};

const DTYPE_OF = new Map(Object.entries(GGML_TYPES).map(([name, { code }]) => [code as number, name as GgmlType]));

/** @returns undefined for a bool that is none */
function readScalar(view: DataView, at: number, type: GgufScalarType): GgufScalar | undefined {
  switch (type) {
    case "uint8":
      return view.getUint8(at);
    case "int8":
      return view.getInt8(at);
    case "uint16":
      return view.getUint16(at, true);
    case "int16":
      return view.getInt16(at, true);
    case "uint32":
      return view.getUint32(at, true);
    case "int32":
      return view.getInt32(at, true);
    case "float32":
      return view.getFloat32(at, true);
    case "float64":
      return view.getFloat64(at, true);
    case "uint64":
      return narrowed(view.getBigUint64(at, true));
    case "int64":
      return narrowed(view.getBigInt64(at, true));
    default: {
      const byte = view.getUint8(at);
      return byte > 1 ? undefined : byte === 1;
    }
  }
}

function narrowed(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** Made when it is needed: some hosts that only import this module have none (Jest's jsdom). */
let decoder: TextDecoder | undefined;

function decode(bytes: Uint8Array, from: number, to: number, fail: () => never): string {
  try {
    decoder ??= new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return decoder.decode(bytes.subarray(from, to));
  } catch {
    return fail();
  }
}

function alignmentOf(metadata: GgufMetadata, fail: (message: string) => never): number {
  const given = metadata.get(ALIGNMENT_KEY);
  if (!given) return GGUF_ALIGNMENT;
  const { type, value } = given;
  const isPower = type === "uint32" && value !== 0 && ((value as number) & ((value as number) - 1)) === 0;
  return isPower
    ? (value as number)
    : fail(`${ALIGNMENT_KEY} is ${shownValue(given)}; expected a power of two (uint32)`);
}

/** A value for messages. */
export function shownValue(value: GgufValue | undefined): string {
  if (value === undefined) return "missing";
  if (value.type === "array") return `a list of ${value.value.length} (${value.of})`;
  return `${typeof value.value === "string" ? show(value.value) : value.value} (${value.type})`;
}

function padded(length: number, alignment: number): number {
  return Math.ceil(length / alignment) * alignment;
}

function byteLength(dtype: GgmlType, shape: readonly number[], fail: (message: string) => never): number {
  const { values, bytes } = GGML_TYPES[dtype];
  const row = shape.at(-1)!;
  if (row % values !== 0) fail(`has shape ${show(shape)}; rows of ${dtype} are multiples of ${values} values`);
  let length = (row / values) * bytes;
  for (const size of shape.slice(0, -1)) length *= size;
  // Products are exact up to 2^53, and no file has so many bytes.
  return Number.isSafeInteger(length) ? length : fail(`has shape ${show(shape)}, more than 2^53 bytes`);
}

function failAtStart(path: string, start: Uint8Array): never {
  if (start.length >= 4 && String.fromCharCode(...start.subarray(0, 4)) === GGUF_MAGIC)
    throw new FormatError(`${path}: it has ${start.length} bytes: it is cut off, so fetch it again.`);
  const is = signatureOf(start) ?? (beginsAsText(start) ? "text, such as a server's error; download it again" : null);
  throw new FormatError(`${path}: expected a GGUF file; it ${is === null ? "does not begin with GGUF" : `is ${is}`}.`);
}

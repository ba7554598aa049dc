/**
 * Safetensors, read strictly and written as the reference writer does.
 *
 *   file = N: u64 | header: N bytes of UTF-8 JSON | data
 *   header = {"__metadata__": {string: string}, name: {"dtype", "shape", "data_offsets": [begin, end]}, ...}
 *
 * Values are little-endian, in C order; offsets count from the start of the data, which the tensors
 * fill without holes or overlaps. Source: huggingface/safetensors, README "Format" and src/tensor.rs
 * (read_metadata, validate, prepare). Stricter than the reference in three points: the header's
 * padding is spaces only, a tensor has exactly its three fields, and names are well-formed Unicode.
 * Like WebAssembly memory, typed arrays are taken to be little-endian.
 */
import { ArgumentError, DTypeError, FormatError, ShapeError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { className } from "../runtime/shown.js";
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
const DTYPE_BITS: Readonly<Record<SafetensorsDtype, number>> = {
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

const DTYPES = Object.keys(DTYPE_BITS) as SafetensorsDtype[];
const METADATA = "__metadata__";
/** The reference's limit; it also keeps the header below the longest string of any engine. */
const MAX_HEADER_BYTES = 100_000_000;
/** The writer pads the header so that the data start at a multiple of this. */
const HEADER_ALIGNMENT = 8;

/** A tensor of a file, not copied. */
export interface TensorView {
  /** Its key in the header. */
  name: string;
  /** Its element type. */
  dtype: SafetensorsDtype;
  /** Sizes of the dimensions; [] for a scalar. */
  shape: readonly number[];
  /** A view of the file's bytes; it may start at any address. */
  bytes: Uint8Array;
}

/** What `parseSafetensors` finds. */
export interface SafetensorsFile {
  /** The header's `__metadata__`. Without a prototype, so any key is safe. */
  readonly metadata: Record<string, string>;
  /** By name, in the order of their data. */
  tensors: Map<string, TensorView>;
}

interface TensorInfo {
  dtype: SafetensorsDtype;
  shape: number[];
  begin: number;
  end: number;
}

/**
 * Reads a file's header and checks all of it; tensors are views of `bytes`. Time and memory are
 * proportional to the length of `bytes`, whatever they say.
 *
 * @param options `name` of the file, for errors
 * @throws FormatError naming the file, the tensor, what was expected and what came; ArgumentError
 *
 * @example
 * const bytes = io.serializeSafetensors([{ name: "w", dtype: "F32", shape: [2], data: Float32Array.of(1, 2) }]);
 * const { tensors } = io.parseSafetensors(bytes, { name: "w.safetensors" });
 * console.log(io.toFloat32(tensors.get("w"))); // Float32Array(2) [ 1, 2 ]
 */
export function parseSafetensors(bytes: Uint8Array, options?: { name?: string | undefined }): SafetensorsFile {
  checkOptions("parseSafetensors", options, ["name"]);
  const { name: file = "safetensors" } = options ?? {};
  if (!(bytes instanceof Uint8Array))
    throw new ArgumentError(`parseSafetensors: bytes must be a Uint8Array; got ${typeName(bytes)}.`);
  const fail = (message: string): never => {
    throw new FormatError(`${file}: ${message}.`);
  };
  // Only where the beginning is wrong: any two bytes may be those of a header's length.
  const failAtStart = (message: string): never => {
    const signature =
      signatureOf(bytes) ?? (beginsAsText(bytes) ? "text, such as a server's error; download it again" : undefined);
    return fail(signature ? `expected a safetensors file; it is ${signature}` : message);
  };
  if (bytes.length < 8) failAtStart(`the file has ${bytes.length} bytes; its header's length alone takes 8`);
  const n = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  // Compared as u64: narrowed first, 2^64 - 1 would not be what it is.
  if (n > BigInt(MAX_HEADER_BYTES))
    failAtStart(`the header's length is ${n} bytes; at most ${MAX_HEADER_BYTES} are allowed`);
  const dataStart = 8 + Number(n);
  if (dataStart > bytes.length)
    failAtStart(
      `the header's length is ${n} bytes, but only ${bytes.length - 8} follow: the file is cut off, so fetch it again`,
    );

  const { metadata, infos } = parseHeader(decodeUtf8(bytes.subarray(8, dataStart), failAtStart), fail, failAtStart);
  // Array.sort is stable: zero-size tensors at one offset keep the header's order.
  const ordered = [...infos].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  const tensors = new Map<string, TensorView>();
  const dataBytes = bytes.length - dataStart;
  let position = 0;
  for (const [name, { dtype, shape, begin, end }] of ordered) {
    const failTensor = (message: string): never => fail(`tensor ${show(name)} ${message}`);
    if (begin !== position)
      failTensor(`begins at byte ${begin} of the data; expected ${position}, where the one before it ends`);
    const expected = byteLength(dtype, shape, failTensor);
    if (end - begin !== expected) {
      failTensor(
        `has data_offsets [${begin}, ${end}], ${end - begin} bytes; ${dtype} of shape ${show(shape)} takes ${expected}`,
      );
    }
    if (end > dataBytes)
      failTensor(
        `ends at byte ${end} of the data, but there are only ${dataBytes}: the file is cut off, so fetch it again`,
      );
    tensors.set(name, {
      name,
      dtype,
      shape,
      bytes: new Uint8Array(bytes.buffer, bytes.byteOffset + dataStart + begin, expected),
    });
    position = end;
  }
  if (position !== dataBytes) fail(`the tensors end at byte ${position} of the data, the file at ${dataBytes}`);
  let given: Record<string, string> | undefined;
  return {
    get metadata() {
      return (given ??= Object.assign(Object.create(null) as Record<string, string>, JSON.parse(metadata ?? "{}")));
    },
    tensors,
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

function parseHeader(text: string, fail: (message: string) => never, failAtStart: (message: string) => never) {
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

function isDtype(name: string): name is SafetensorsDtype {
  return Object.hasOwn(DTYPE_BITS, name);
}

/** Lone surrogates (from \uD800 escapes) have no UTF-8, so they could not be written again. */
function isWellFormed(text: string): boolean {
  for (let i = 0; i < text.length; i++)
    if ((text.charCodeAt(i) & 0xf800) === 0xd800) return !/\p{Surrogate}/u.test(text);
  return true;
}

function wellFormed(text: string, fail: (message: string) => never): string {
  return isWellFormed(text)
    ? text
    : fail(`the header's string ${show(text)} holds a lone surrogate; expected well-formed Unicode`);
}

function byteLength(dtype: SafetensorsDtype, shape: readonly number[], fail: (message: string) => never): number {
  let bits = DTYPE_BITS[dtype];
  for (const size of shape) {
    bits *= size;
    // Products are exact up to 2^53, and no file has so many bits.
    if (!Number.isSafeInteger(bits)) fail(`of ${dtype} and shape ${show(shape)} overflows: more than 2^53 bits`);
  }
  if (bits % 8 !== 0) fail(`of ${dtype} and shape ${show(shape)} takes ${bits} bits; expected whole bytes`);
  return bits / 8;
}

/**
 * A copy as float32. F16 and BF16 are exact, F64 rounds to nearest.
 * @throws FormatError for an F64 value beyond float32's range, and for every other dtype
 *
 * @example
 * const view = { name: "w", dtype: "BF16", shape: [2], bytes: Uint8Array.of(0x80, 0x3f, 0x00, 0xc0) };
 * console.log(io.toFloat32(view)); // Float32Array(2) [ 1, -2 ]
 */
export function toFloat32(view: TensorView): Float32Array {
  const result = new Float32Array(Math.floor((8 * view.bytes.length) / DTYPE_BITS[view.dtype]));
  copyFloat32(view, result);
  return result;
}

/**
 * What `toFloat32` gives, into `out`, which has as many elements and may be linear memory.
 * @throws FormatError as `toFloat32`; a part may be written then
 * @internal
 */
export function copyFloat32({ name, dtype, bytes }: TensorView, out: Float32Array): void {
  if (dtype === "F32") new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes);
  else if (dtype === "F64") {
    const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i < out.length; i++) {
      const value = data.getFloat64(8 * i, true);
      out[i] = value;
      if (!Number.isFinite(out[i]) && Number.isFinite(value)) {
        throw new FormatError(
          `tensor ${show(name)}: element ${i} is ${value}, beyond float32; expected at most 3.4e38 in magnitude.`,
        );
      }
    }
  } else if (dtype === "F16" || dtype === "BF16") {
    // Written as bits, so that NaN payloads survive.
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    const { buffer, byteOffset } = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
    const halves = new Uint16Array(buffer, byteOffset, out.length);
    if (dtype === "BF16") for (let i = 0; i < bits.length; i++) bits[i] = halves[i]! << 16;
    else for (let i = 0; i < bits.length; i++) bits[i] = float16Bits(halves[i]!);
  } else throw new FormatError(`tensor ${show(name)} has dtype ${dtype}; expected F32, F16, BF16 or F64.`);
}

/**
 * The float32 bits of a float16: sign 1, exponent 5 (bias 15), fraction 10 to sign 1, exponent 8 (bias 127), fraction
 * 23.
 */
function float16Bits(half: number): number {
  const sign = (half & 0x8000) << 16;
  let exponent = (half >> 10) & 0x1f;
  let fraction = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f800000 | (fraction << 13);
  if (exponent === 0) {
    if (fraction === 0) return sign;
    // Subnormal: shift the leading one out of the fraction; float32's exponent has room for it.
    const shift = Math.clz32(fraction) - 21;
    fraction = (fraction << shift) & 0x3ff;
    exponent = 1 - shift;
  }
  return sign | ((exponent + 127 - 15) << 23) | (fraction << 13);
}

/**
 * A copy as int32.
 * @throws FormatError for an I64 value beyond 32 bits, and for every dtype but I32, I64 and U8
 *
 * @example
 * const ids = { name: "ids", dtype: "U8", shape: [2], bytes: Uint8Array.of(1, 2) };
 * console.log(io.toInt32(ids)); // Int32Array(2) [ 1, 2 ]
 */
export function toInt32({ name, dtype, bytes }: TensorView): Int32Array {
  if (dtype === "U8") return Int32Array.from(bytes);
  if (dtype === "I32") {
    const result = new Int32Array(bytes.length / 4);
    new Uint8Array(result.buffer).set(bytes);
    return result;
  }
  if (dtype === "I64") {
    const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const result = new Int32Array(bytes.length / 8);
    for (let i = 0; i < result.length; i++) {
      const low = data.getInt32(8 * i, true);
      if (data.getInt32(8 * i + 4, true) !== low >> 31) {
        throw new FormatError(
          `tensor ${show(name)}: element ${i} is ${data.getBigInt64(8 * i, true)}; expected a value of 32 bits.`,
        );
      }
      result[i] = low;
    }
    return result;
  }
  throw new FormatError(`tensor ${show(name)} has dtype ${dtype}; expected I32, I64 or U8.`);
}

/** A tensor for `serializeSafetensors`. */
export interface TensorToWrite {
  /** Its key in the header, unique. */
  name: string;
  /** Its element type in the file. */
  dtype: SafetensorsDtype;
  /** Sizes of the dimensions; [] for a scalar. */
  shape: readonly number[];
  /**
   * Float32Array for F32 and BF16 (rounded to nearest even), Int32Array for I32, Uint8Array for any dtype's raw bytes.
   */
  data: Float32Array | Int32Array | Uint8Array;
}

/**
 * The bytes of a file, the same for the same tensors in any order: tensors by descending alignment of
 * their dtype, then by name; metadata by key; the header padded with spaces to a multiple of 8.
 *
 * @param metadata strings by key; PyTorch's readers look for `{ format: "pt" }`
 * @throws ArgumentError, DTypeError, ShapeError for what a strict reader would refuse
 *
 * @example
 * const w = { name: "w", dtype: "BF16", shape: [2, 1], data: Float32Array.of(1, 2) };
 * const bytes = io.serializeSafetensors([w], { format: "pt" });
 * console.log(io.parseSafetensors(bytes).metadata.format); // pt
 */
export function serializeSafetensors(
  tensors: Iterable<TensorToWrite>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const encoder = new TextEncoder();
  if (typeof tensors !== "object" || tensors === null || !(Symbol.iterator in tensors))
    throw new ArgumentError(`serializeSafetensors: tensors must be a list; got ${typeName(tensors)}.`);
  const ordered = [...tensors].map((tensor) => ({
    ...checkTensor(tensor),
    key: encoder.encode(checkName(tensor.name)),
    bytes: rawBytes(tensor),
  }));
  ordered.sort((a, b) => DTYPES.indexOf(b.dtype) - DTYPES.indexOf(a.dtype) || compareBytes(a.key, b.key));

  const fields: string[] = [];
  if (metadata) fields.push(`"${METADATA}":${metadataText(metadata)}`);
  const names = new Set<string>();
  let position = 0;
  for (const { name, dtype, shape, bytes } of ordered) {
    if (names.has(name))
      throw new ArgumentError(`serializeSafetensors: tensor ${show(name)} is given twice; expected unique names.`);
    names.add(name);
    const end = position + bytes.length;
    fields.push(
      `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":[${position},${end}]}`,
    );
    position = end;
  }
  const text = encoder.encode(`{${fields.join(",")}}`);
  const headerBytes = Math.ceil(text.length / HEADER_ALIGNMENT) * HEADER_ALIGNMENT;
  if (headerBytes > MAX_HEADER_BYTES) {
    throw new ArgumentError(
      `serializeSafetensors: the header takes ${headerBytes} bytes; at most ${MAX_HEADER_BYTES} are allowed.`,
    );
  }

  const file = new Uint8Array(8 + headerBytes + position);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true);
  file.set(text, 8);
  file.fill(0x20, 8 + text.length, 8 + headerBytes);
  let offset = 8 + headerBytes;
  for (const { bytes } of ordered) {
    file.set(bytes, offset);
    offset += bytes.length;
  }
  return file;
}

function checkTensor(tensor: TensorToWrite): TensorToWrite {
  if (typeof tensor !== "object" || tensor === null || !Array.isArray(tensor.shape)) {
    throw new ArgumentError(
      `serializeSafetensors: a tensor is ${typeName(tensor)}${tensor ? " without a list as its shape" : ""}; ` +
        `expected { name, dtype, shape, data }.`,
    );
  }
  return tensor;
}

/** What a value is that is not what it should be. */
function typeName(value: unknown): string {
  return value === null ? "null" : typeof value === "object" ? className(value) || "an object" : typeof value;
}

function checkName(name: string): string {
  if (typeof name !== "string" || !isWellFormed(name) || name === METADATA) {
    throw new ArgumentError(
      `serializeSafetensors: tensor name is ${show(name)}; expected well-formed Unicode other than ${METADATA}.`,
    );
  }
  return name;
}

function metadataText(metadata: Readonly<Record<string, string>>): string {
  if (typeof metadata !== "object" || Array.isArray(metadata))
    throw new ArgumentError(`serializeSafetensors: metadata must be an object of strings; got ${typeName(metadata)}.`);
  const entries = Object.entries(metadata).map(([key, value]) => {
    if (typeof value !== "string" || !isWellFormed(key) || !isWellFormed(value)) {
      throw new ArgumentError(
        `serializeSafetensors: metadata ${show(key)} is ${show(value)}; expected a string of well-formed Unicode.`,
      );
    }
    return `${JSON.stringify(key)}:${JSON.stringify(value)}`;
  });
  return `{${entries.sort().join(",")}}`;
}

function rawBytes({ name, dtype, shape, data }: TensorToWrite): Uint8Array {
  const where = `serializeSafetensors: tensor ${show(name)}`;
  if (!isDtype(dtype)) throw new DTypeError(`${where} has dtype ${show(dtype)}; expected one of ${DTYPES.join(", ")}.`);
  const fail = (message: string): never => {
    throw new ShapeError(`${where} ${message}.`);
  };
  for (const size of shape)
    if (!Number.isSafeInteger(size) || size < 0) fail(`has shape ${show(shape)}; expected integers of at least 0`);
  const expected = byteLength(dtype, shape, fail);
  const bytes = encodeData(where, dtype, data);
  if (bytes.length !== expected)
    fail(`has ${bytes.length} bytes of data; ${dtype} of shape ${show(shape)} takes ${expected}`);
  return bytes;
}

function encodeData(where: string, dtype: SafetensorsDtype, data: TensorToWrite["data"]): Uint8Array {
  if (data instanceof Uint8Array) return data;
  if (data instanceof Float32Array && dtype === "BF16") return toBfloat16(data);
  if ((data instanceof Float32Array && dtype === "F32") || (data instanceof Int32Array && dtype === "I32")) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  throw new DTypeError(
    `${where} of dtype ${dtype} has data of type ${typeName(data)}; ` +
      `expected Float32Array for F32 and BF16, Int32Array for I32, or Uint8Array.`,
  );
}

/** The upper half of each float32, rounded to nearest, ties to even; a NaN stays one by setting its quiet bit. */
function toBfloat16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!;
    const isNaN = (x & 0x7fffffff) > 0x7f800000;
    halves[i] = isNaN ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return new Uint8Array(halves.buffer);
}

/** UTF-8 order, the reference's; JavaScript's own `<` compares UTF-16 units and differs beyond U+FFFF. */
function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}

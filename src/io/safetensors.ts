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
import { show } from "./json.js";
import { toBfloat16, toFloat16 } from "./narrow.js";
import {
  byteLength,
  DTYPE_BITS,
  DTYPES,
  headerEnd,
  isDtype,
  isWellFormed,
  MAX_HEADER_BYTES,
  METADATA,
  parseHeader,
  type SafetensorsDtype,
  type StoredTensor,
} from "./safetensors_header.js";

export type { SafetensorsDtype } from "./safetensors_header.js";

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
  const start = bytes.subarray(0, headerEnd(bytes, bytes.length, file));
  const header = parseHeader(start, bytes.length, file);
  const view = ({ name, dtype, shape, begin, length }: StoredTensor): TensorView => ({
    name,
    dtype,
    shape,
    bytes: new Uint8Array(bytes.buffer, bytes.byteOffset + begin, length),
  });
  return {
    get metadata() {
      return header.metadata;
    },
    tensors: new Map(Array.from(header.tensors, ([name, tensor]) => [name, view(tensor)])),
  };
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
 * @param first of a tensor that comes in parts, the number of the part's first element
 * @throws FormatError as `toFloat32`; a part may be written then
 * @internal
 */
export function copyFloat32({ name, dtype, bytes }: TensorView, out: Float32Array, first = 0): void {
  if (dtype === "F32") new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes);
  else if (dtype === "F64") {
    const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i < out.length; i++) {
      const value = data.getFloat64(8 * i, true);
      out[i] = value;
      if (!Number.isFinite(out[i]) && Number.isFinite(value)) {
        throw new FormatError(
          `tensor ${show(name)}: element ${first + i} is ${value}, beyond float32; expected at most 3.4e38 in ` +
            `magnitude.`,
        );
      }
    }
  } else if (dtype === "F16" || dtype === "BF16") {
    // Written as bits, so that NaN payloads survive.
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    const { buffer, byteOffset } = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
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
   * Float32Array for F32, and for BF16 and F16 (rounded to nearest even); Int32Array for I32; Uint8Array for any
   * dtype's raw bytes.
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
  if (data instanceof Float32Array && dtype === "F16") return toFloat16(data);
  if ((data instanceof Float32Array && dtype === "F32") || (data instanceof Int32Array && dtype === "I32")) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  throw new DTypeError(
    `${where} of dtype ${dtype} has data of type ${typeName(data)}; ` +
      `expected Float32Array for F32, F16 and BF16, Int32Array for I32, or Uint8Array.`,
  );
}

/** UTF-8 order, the reference's; JavaScript's own `<` compares UTF-16 units and differs beyond U+FFFF. */
function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}

/**
 * GGUF files, written: version 3, little-endian. Everything is known beforehand but the values, so the header comes
 * first, and tensors may be written in any order to their places.
 * Source: ggml-org/ggml, docs/gguf.md.
 */
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import { show } from "../json.js";
import {
  GGML_TYPES,
  GGUF_ALIGNMENT,
  GGUF_MAGIC,
  GGUF_TYPES,
  GGUF_VERSION,
  type GgmlType,
  type GgufMetadata,
  type GgufScalar,
  type GgufScalarType,
  type GgufValue,
} from "./types.js";

/** A tensor that is to be written. */
export interface GgufEntry {
  name: string;
  dtype: GgmlType;
  /** Row-major, slowest first: the reverse of ggml's own order. */
  shape: readonly number[];
}

/** A tensor with its bytes. */
export interface GgufTensorToWrite extends GgufEntry {
  bytes: Uint8Array;
}

/** Where everything comes to lie; what is between is zeros. */
export interface GgufLayout {
  /** From the file's first byte up to the first tensor. */
  header: Uint8Array;
  /** Of each tensor, from the file's first byte, by name. */
  places: ReadonlyMap<string, { begin: number; end: number }>;
  /** Of the whole file. */
  size: number;
}

/** llama.cpp's GGML_MAX_NAME, with the zero at its end. */
const MAX_NAME_BYTES = 63;
/** GGML_MAX_DIMS. */
const MAX_DIMENSIONS = 4;

/**
 * The header of a file and the places of its tensors.
 * @throws ArgumentError for a name that is there twice or too long for llama.cpp; ShapeError for a shape that its type
 * cannot have
 */
export function layOutGguf(metadata: GgufMetadata, entries: readonly GgufEntry[]): GgufLayout {
  const out = new ByteWriter();
  out.raw(new TextEncoder().encode(GGUF_MAGIC));
  out.scalar("uint32", GGUF_VERSION);
  out.scalar("uint64", entries.length);
  out.scalar("uint64", metadata.size);
  for (const [key, value] of metadata) {
    out.scalar("string", key);
    out.value(value);
  }
  const offsets = new Map<string, { begin: number; end: number }>();
  let offset = 0;
  for (const { name, dtype, shape } of entries) {
    const length = byteLength({ name, dtype, shape });
    if (offsets.has(name)) throw new ArgumentError(`writeGguf: tensor ${show(name)} is there twice.`);
    offsets.set(name, { begin: offset, end: offset + length });
    out.scalar("string", name);
    out.scalar("uint32", shape.length);
    for (const size of [...shape].reverse()) out.scalar("uint64", size);
    out.scalar("uint32", GGML_TYPES[dtype].code);
    out.scalar("uint64", offset);
    offset = aligned(offset + length);
  }
  const header = out.padded(GGUF_ALIGNMENT);
  const start = header.length;
  const places = new Map(
    Array.from(offsets, ([name, { begin, end }]) => [name, { begin: start + begin, end: start + end }]),
  );
  return { header, places, size: start + offset };
}

/** A whole file in memory. @throws as `layOutGguf`; ShapeError for bytes that do not fill the shape */
export function serializeGguf(metadata: GgufMetadata, tensors: readonly GgufTensorToWrite[]): Uint8Array {
  const { header, places, size } = layOutGguf(metadata, tensors);
  const file = new Uint8Array(size);
  file.set(header);
  for (const { name, bytes } of tensors) {
    const { begin, end } = places.get(name)!;
    if (bytes.length !== end - begin)
      throw new ShapeError(`writeGguf: tensor ${show(name)} has ${bytes.length} bytes; expected ${end - begin}.`);
    file.set(bytes, begin);
  }
  return file;
}

function byteLength({ name, dtype, shape }: GgufEntry): number {
  const where = `writeGguf: tensor ${show(name)}`;
  if (new TextEncoder().encode(name).length > MAX_NAME_BYTES)
    throw new ArgumentError(`${where}: llama.cpp takes names of at most ${MAX_NAME_BYTES} bytes.`);
  const { values, bytes } = GGML_TYPES[dtype];
  const row = shape.at(-1) ?? 0;
  if (shape.length < 1 || shape.length > MAX_DIMENSIONS || row % values !== 0)
    throw new ShapeError(
      `${where} has shape ${show(shape)}; expected 1 to ${MAX_DIMENSIONS} dimensions, the last of which is a ` +
        `multiple of ${values} in ${dtype}.`,
    );
  return (shape.reduce((product, size) => product * size, 1) / values) * bytes;
}

function aligned(offset: number): number {
  return Math.ceil(offset / GGUF_ALIGNMENT) * GGUF_ALIGNMENT;
}

/** Bytes one after the other. */
class ByteWriter {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  #room(bytes: number): number {
    const at = this.#length;
    this.#length += bytes;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(2 * this.#length);
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }

  raw(bytes: Uint8Array): void {
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
  }

  value(value: GgufValue): void {
    this.scalar("uint32", GGUF_TYPES.indexOf(value.type));
    if (value.type !== "array") return this.scalar(value.type, value.value);
    this.scalar("uint32", GGUF_TYPES.indexOf(value.of));
    this.scalar("uint64", value.value.length);
    for (const item of value.value) this.scalar(value.of, item);
  }

  scalar(type: GgufScalarType, value: GgufScalar): void {
    if (type === "string") {
      const bytes = new TextEncoder().encode(value as string);
      this.scalar("uint64", bytes.length);
      this.raw(bytes);
      return;
    }
    const at = this.#room(type === "bool" ? 1 : Number(/\d+/.exec(type)![0]) / 8);
    const n = Number(value);
    switch (type) {
      case "uint8":
      case "bool":
        return this.#view.setUint8(at, n);
      case "int8":
        return this.#view.setInt8(at, n);
      case "uint16":
        return this.#view.setUint16(at, n, true);
      case "int16":
        return this.#view.setInt16(at, n, true);
      case "uint32":
        return this.#view.setUint32(at, n, true);
      case "int32":
        return this.#view.setInt32(at, n, true);
      case "float32":
        return this.#view.setFloat32(at, n, true);
      case "float64":
        return this.#view.setFloat64(at, n, true);
      case "uint64":
        return this.#view.setBigUint64(at, BigInt(value as number | bigint), true);
      case "int64":
        return this.#view.setBigInt64(at, BigInt(value as number | bigint), true);
    }
  }

  /** All so far, and zeros up to a multiple. */
  padded(multiple: number): Uint8Array {
    const length = Math.ceil(this.#length / multiple) * multiple;
    const out = new Uint8Array(length);
    out.set(this.#bytes.subarray(0, this.#length));
    return out;
  }
}

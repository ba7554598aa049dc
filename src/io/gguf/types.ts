/**
 * The words of GGUF: the types of its metadata and of its tensors.
 * Source: ggml-org/ggml, docs/gguf.md; ggml.h (ggml_type).
 */

/** The types of values, each at its code. */
export const GGUF_TYPES = [
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "float32",
  "bool",
  "string",
  "array",
  "uint64",
  "int64",
  "float64",
] as const;

/** The type of a value. */
export type GgufType = (typeof GGUF_TYPES)[number];
/** The type of a value that is no array. */
export type GgufScalarType = Exclude<GgufType, "array">;
/** Integers of 64 bits that no number holds exactly are bigints. */
export type GgufScalar = number | bigint | boolean | string;

/** A value of the metadata, with the type that the file stores it in. */
export type GgufValue =
  | { type: GgufScalarType; value: GgufScalar }
  | { type: "array"; of: GgufScalarType; value: readonly GgufScalar[] };

/** A file's metadata, by key, in its order. */
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** How a type of tensors lies in a file. */
export interface GgmlLayout {
  /** Its number in the file. */
  code: number;
  /** Values of a block: rows are whole blocks. */
  values: number;
  /** Bytes of a block. */
  bytes: number;
}

/** The types of tensors, in the words of `Tensor.dtype` where a tensor can have them. */
export const GGML_TYPES = {
  float32: { code: 0, values: 1, bytes: 4 },
  float16: { code: 1, values: 1, bytes: 2 },
  q4_0: { code: 2, values: 32, bytes: 18 },
  q4_1: { code: 3, values: 32, bytes: 20 },
  q5_0: { code: 6, values: 32, bytes: 22 },
  q5_1: { code: 7, values: 32, bytes: 24 },
  q8_0: { code: 8, values: 32, bytes: 34 },
  q8_1: { code: 9, values: 32, bytes: 40 },
  q2_k: { code: 10, values: 256, bytes: 84 },
  q3_k: { code: 11, values: 256, bytes: 110 },
  q4_k: { code: 12, values: 256, bytes: 144 },
  q5_k: { code: 13, values: 256, bytes: 176 },
  q6_k: { code: 14, values: 256, bytes: 210 },
  q8_k: { code: 15, values: 256, bytes: 292 },
  iq2_xxs: { code: 16, values: 256, bytes: 66 },
  iq2_xs: { code: 17, values: 256, bytes: 74 },
  iq3_xxs: { code: 18, values: 256, bytes: 98 },
  iq1_s: { code: 19, values: 256, bytes: 50 },
  iq4_nl: { code: 20, values: 32, bytes: 18 },
  iq3_s: { code: 21, values: 256, bytes: 110 },
  iq2_s: { code: 22, values: 256, bytes: 82 },
  iq4_xs: { code: 23, values: 256, bytes: 136 },
  int8: { code: 24, values: 1, bytes: 1 },
  int16: { code: 25, values: 1, bytes: 2 },
  int32: { code: 26, values: 1, bytes: 4 },
  int64: { code: 27, values: 1, bytes: 8 },
  float64: { code: 28, values: 1, bytes: 8 },
  iq1_m: { code: 29, values: 256, bytes: 56 },
  bfloat16: { code: 30, values: 1, bytes: 2 },
  tq1_0: { code: 34, values: 256, bytes: 54 },
  tq2_0: { code: 35, values: 256, bytes: 66 },
  mxfp4: { code: 39, values: 32, bytes: 17 },
} as const satisfies Readonly<Record<string, GgmlLayout>>;

/** The type of a tensor in a file. */
export type GgmlType = keyof typeof GGML_TYPES;

/** What a file begins with. */
export const GGUF_MAGIC = "GGUF";
/** The version that is written. */
export const GGUF_VERSION = 3;
/** What offsets of tensors are multiples of, unless general.alignment says otherwise. */
export const GGUF_ALIGNMENT = 32;

/**
 * Weights in NF4 as bitsandbytes saves them. `<weight>` has two codes in a byte, the first in its upper half, 64 values
 * a block in the order of the rows; beside it lie
 *
 *   .absmax            F32, one for each block, or, where these are quantised too, U8
 *   .nested_absmax     F32, one for 256 of these, with .nested_quant_map, F32 [256]:
 *                      absmax = nested_quant_map[code] * nested_absmax + nested_offset
 *   .quant_map         F32 [16], the table of NF4
 *   .quant_state.bitsandbytes__nf4   U8, JSON: quant_type, blocksize, shape, nested_blocksize, nested_offset, ...
 *
 * In memory a block is its absmax as float32 and its 32 bytes (tensor/blocks.ts). Parts come in any order.
 */
import type { PlacedTensor } from "../io/huggingface.js";
import { show } from "../io/json.js";
import { FormatError } from "../runtime/errors.js";
import { BLOCKS } from "../tensor/blocks.js";
import type { Tensor } from "../tensor/tensor.js";

const STATE = ".quant_state.bitsandbytes__nf4";
const PARTS = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", STATE] as const;
type Part = (typeof PARTS)[number];

/** A weight's parts in a file, beside its codes. @internal */
export type Nf4Parts = ReadonlyMap<Part, PlacedTensor>;

/** Values and bytes of a block, its codes in the file, and scales that share one. */
const { values: BLOCK, bytes: BLOCK_BYTES } = BLOCKS.nf4;
const CODES = BLOCK / 2;
const NESTED = 256;
/** More than any state has. */
const MOST_STATE_BYTES = 4096;

const TABLE = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/** The weights of files that are NF4, with their parts, by the weights' names; and the names of all parts. @internal */
export function findNf4(tensors: ReadonlyMap<string, PlacedTensor>): {
  weights: ReadonlyMap<string, Nf4Parts>;
  parts: ReadonlySet<string>;
} {
  const weights = new Map<string, Nf4Parts>();
  const parts = new Set<string>();
  for (const name of tensors.keys()) {
    if (!name.endsWith(STATE)) continue;
    const weight = name.slice(0, -STATE.length);
    if (!tensors.has(weight)) continue;
    const own = new Map<Part, PlacedTensor>();
    for (const part of PARTS) {
      const tensor = tensors.get(weight + part);
      if (!tensor) continue;
      own.set(part, tensor);
      parts.add(weight + part);
    }
    weights.set(weight, own);
  }
  return { weights, parts };
}

/**
 * Compares a weight's parts by the header.
 * @param shape what the model has
 * @throws FormatError
 * @internal
 */
export function checkNf4(
  where: string,
  name: string,
  codes: PlacedTensor,
  parts: Nf4Parts,
  shape: readonly number[],
): void {
  const size = shape.reduce((a, b) => a * b, 1);
  const fail = (what: string): never => {
    throw new FormatError(`${where}: ${name}, which is bitsandbytes' NF4, ${what}.`);
  };
  if (shape.length !== 2 || shape[1]! % BLOCK !== 0)
    fail(`has shape ${show([...shape])}; only matrices whose rows are a multiple of ${BLOCK} values are supported`);
  if (codes.dtype !== "U8" || codes.length * 2 !== size)
    fail(
      `has ${codes.length} bytes of ${codes.dtype}; by its config.json it is ${show([...shape])}, ${size / 2} of U8`,
    );
  const blocks = size / BLOCK;
  const isNested = parts.has(".nested_absmax");
  const expected: readonly (readonly [Part, string, number])[] = [
    [".absmax", isNested ? "U8" : "F32", isNested ? blocks : 4 * blocks],
    [".quant_map", "F32", 4 * TABLE.length],
    ...(isNested
      ? ([
          [".nested_absmax", "F32", 4 * Math.ceil(blocks / NESTED)],
          [".nested_quant_map", "F32", 4 * 256],
        ] as const)
      : []),
  ];
  for (const [part, dtype, length] of expected) {
    const got = parts.get(part);
    if (got?.dtype !== dtype || got.length !== length)
      fail(`has ${got ? `${got.length} bytes of ${got.dtype}` : "nothing"} in ${part}; expected ${length} of ${dtype}`);
  }
  if (!isNested && parts.has(".nested_quant_map"))
    fail("has a .nested_quant_map and no .nested_absmax; expected both or neither");
  if (parts.get(STATE)!.length > MOST_STATE_BYTES)
    fail(`has a ${STATE} of ${parts.get(STATE)!.length} bytes; expected JSON of at most ${MOST_STATE_BYTES}`);
}

/** Takes the bytes of a weight's codes and parts, in any order; when all have come, the tensor is whole. @internal */
export class Nf4Join {
  readonly #name: string;
  readonly #tensor: Tensor;
  readonly #held = new Map<Part, Uint8Array>();
  /** Bytes that have not come. */
  #missing: number;

  constructor(name: string, tensor: Tensor, codes: PlacedTensor, parts: Nf4Parts) {
    this.#name = name;
    this.#tensor = tensor;
    this.#missing = codes.length;
    for (const [part, { length }] of parts) {
      this.#held.set(part, new Uint8Array(length));
      this.#missing += length;
    }
  }

  /** What takes the codes. */
  codes(): { write(bytes: Uint8Array): void } {
    let done = 0;
    return {
      write: (bytes) => {
        const to = this.#tensor.bytes;
        for (let from = 0; from < bytes.length; ) {
          const within = done % CODES;
          const part = bytes.subarray(from, from + CODES - within);
          to.set(part, ((done - within) / CODES) * BLOCK_BYTES + BLOCK_BYTES - CODES + within);
          from += part.length;
          done += part.length;
        }
        this.#came(bytes.length);
      },
    };
  }

  /** What takes a part. */
  part(part: Part): { write(bytes: Uint8Array): void } {
    let done = 0;
    return {
      write: (bytes) => {
        this.#held.get(part)!.set(bytes, done);
        done += bytes.length;
        this.#came(bytes.length);
      },
    };
  }

  #came(bytes: number): void {
    this.#missing -= bytes;
    if (this.#missing === 0) this.#finish();
  }

  #floats(part: Part): Float32Array {
    const { buffer } = this.#held.get(part)!;
    return new Float32Array(buffer as ArrayBuffer);
  }

  #finish(): void {
    const offset = this.#checkState();
    if (this.#floats(".quant_map").some((level, i) => level !== TABLE[i])) this.#fail("has another table than NF4's");
    const absmax = this.#held.get(".absmax")!;
    const bytes = this.#tensor.bytes;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (!this.#held.has(".nested_absmax")) {
      this.#floats(".absmax").forEach((value, block) => view.setFloat32(block * BLOCK_BYTES, value, true));
      return;
    }
    const [scales, levels] = [this.#floats(".nested_absmax"), this.#floats(".nested_quant_map")];
    absmax.forEach((code, block) => {
      const value = Math.fround(levels[code]! * scales[Math.floor(block / NESTED)]!) + offset;
      view.setFloat32(block * BLOCK_BYTES, value, true);
    });
  }

  /** Returns nested_offset, rounded to float32. */
  #checkState(): number {
    let state: Record<string, unknown> | null = null;
    try {
      state = JSON.parse(new TextDecoder().decode(this.#held.get(STATE)));
    } catch {
      this.#fail(`has a ${STATE} that is no JSON`);
    }
    const isNested = this.#held.has(".nested_absmax");
    const is = (key: string, value: unknown): void => {
      if (JSON.stringify(state?.[key]) !== JSON.stringify(value))
        this.#fail(`says ${key}: ${show(state?.[key] ?? null)}; only ${show(value)} is supported`);
    };
    is("quant_type", "nf4");
    is("blocksize", BLOCK);
    is("shape", [...this.#tensor.shape]);
    if (!isNested) return 0;
    is("nested_blocksize", NESTED);
    const offset = state!["nested_offset"];
    const isNumber = typeof offset === "number" && Number.isFinite(Math.fround(offset));
    return isNumber
      ? Math.fround(offset)
      : this.#fail(`says nested_offset: ${show(offset ?? null)}; expected a number of float32`);
  }

  #fail(what: string): never {
    throw new FormatError(`tensor ${show(this.#name)}, which is bitsandbytes' NF4, ${what}.`);
  }
}

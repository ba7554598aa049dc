/**
 * Formats of blocks: some values of a row that share scales. Those of ggml, by their names in lower case, and nf4,
 * bitsandbytes' codes and, for 64 of them, a float32 before them. What lies where: assembly/gemm/blocks.ts.
 */

/** A format in which weights are stored in blocks. */
export type BlockType =
  | "q8_0"
  | "q4_0"
  | "q4_1"
  | "q5_0"
  | "q5_1"
  | "iq4_nl"
  | "nf4"
  | "q2_k"
  | "q3_k"
  | "q4_k"
  | "q5_k"
  | "q6_k"
  | "iq4_xs";

/** A format that weights can be turned into when they are loaded. */
export type QuantizedType = "q8_0" | "nf4";
/** All of them, which `quantise` makes of float32. */
export const QUANTISED: readonly QuantizedType[] = ["q8_0", "nf4"];

/** A format: values and bytes of a block, and the kernels' number of it (assembly/gemm/half.ts). @internal */
export interface BlockFormat {
  /** Values of a block. */
  readonly values: number;
  /** Its bytes. */
  readonly bytes: number;
  /** The kernels' number. */
  readonly format: number;
}

/** @internal */
export const BLOCKS: Readonly<Record<BlockType, BlockFormat>> = {
  q8_0: { values: 32, bytes: 34, format: 8 },
  q4_0: { values: 32, bytes: 18, format: 9 },
  q4_1: { values: 32, bytes: 20, format: 10 },
  q5_0: { values: 32, bytes: 22, format: 11 },
  q5_1: { values: 32, bytes: 24, format: 12 },
  iq4_nl: { values: 32, bytes: 18, format: 13 },
  nf4: { values: 64, bytes: 36, format: 14 },
  q2_k: { values: 256, bytes: 84, format: 15 },
  q3_k: { values: 256, bytes: 110, format: 16 },
  q4_k: { values: 256, bytes: 144, format: 17 },
  q5_k: { values: 256, bytes: 176, format: 18 },
  q6_k: { values: 256, bytes: 210, format: 19 },
  iq4_xs: { values: 256, bytes: 136, format: 20 },
};

/** Bytes of a row of so many values, a multiple of the block. @internal */
export function bytesOfRow(values: number, dtype: BlockType): number {
  const block = BLOCKS[dtype];
  return (values / block.values) * block.bytes;
}

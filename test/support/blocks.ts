/** Weights in blocks for tests: each format's reference blocks (test/fixtures/README.md), and weights made of them. */
import { readFileSync } from "node:fs";
import { io, nn } from "../../src/index.js";
import { skipInit } from "../../src/nn/skip_init.js";
import { BLOCKS, type BlockType } from "../../src/tensor/blocks.js";
import { storedBytes } from "../../src/tensor/dtype.js";
import { ROOT } from "./root.js";

export const BLOCK_TYPES = Object.keys(BLOCKS) as BlockType[];

const fixture = io.parseSafetensors(readFileSync(new URL("test/fixtures/ggml_blocks.safetensors", ROOT)));

/** A tensor of the fixture. */
export function blocksFixture(name: string): { bytes: Uint8Array; shape: readonly number[]; floats(): Float32Array } {
  const view = fixture.tensors.get(name)!;
  return { bytes: view.bytes.slice(), shape: view.shape, floats: () => io.toFloat32(view) };
}

/** Reference blocks, one after another, and what they stand for. */
export function referenceBlocks(dtype: BlockType): { blocks: Uint8Array; values: Float32Array } {
  if (dtype !== "nf4") {
    const name = dtype.toUpperCase();
    return { blocks: blocksFixture(`${name}.blocks`).bytes, values: blocksFixture(`${name}.values`).floats() };
  }
  // bitsandbytes keeps codes and scales apart, the first of two values in the upper half of a byte.
  const index = blocksFixture("NF4.index").bytes;
  const absmax = blocksFixture("NF4.absmax").bytes;
  const blocks = new Uint8Array((index.length / 64) * 36);
  for (let block = 0; block < index.length / 64; block++) {
    blocks.set(absmax.subarray(4 * block, 4 * block + 4), 36 * block);
    for (let i = 0; i < 32; i++)
      blocks[36 * block + 4 + i] = (index[64 * block + 2 * i]! << 4) | index[64 * block + 2 * i + 1]!;
  }
  return { blocks, values: blocksFixture("NF4.values").floats() };
}

/** Where the f16 scales of a block stand, which random bits would make huge. */
const SCALES: Readonly<Record<BlockType, readonly number[]>> = {
  q8_0: [0],
  q4_0: [0],
  q4_1: [0, 2],
  q5_0: [0],
  q5_1: [0, 2],
  iq4_nl: [0],
  nf4: [],
  q2_k: [80, 82],
  q3_k: [108],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
  iq4_xs: [0],
};

/** Random blocks for so many values, about as large as weights are. */
export function randomBlocks(size: number, dtype: BlockType, seed: number): Uint8Array {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const bits = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) >>> 0;
  };
  const result = Uint8Array.from({ length: storedBytes(size, dtype) }, () => bits() >>> 24);
  const { bytes } = BLOCKS[dtype];
  const view = new DataView(result.buffer);
  for (let at = 0; at < result.length; at += bytes) {
    // 2^-10 to 2^-8, of either sign.
    for (const place of SCALES[dtype]) view.setUint16(at + place, 0x1400 + (bits() & 0x87ff), true);
    if (dtype === "nf4") view.setFloat32(at, 0.02 + (bits() % 1000) / 1e4, true);
  }
  return result;
}

/** A parameter that is stored so, frozen, of random blocks. */
export function blockParameter(shape: readonly number[], dtype: BlockType, seed: number): nn.Parameter {
  const p = skipInit(() => new nn.Parameter(shape, false)).materialize(dtype);
  p.bytes.set(randomBlocks(p.size, dtype, seed));
  return p;
}

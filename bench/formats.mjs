/**
 * One linear layer on weights of float32, of 16 bits and in blocks, beside each other: rounds in turn, the fastest of
 * each. Shapes are rows x inputs x outputs; formats by their names: node formats.mjs [1x576x49152 ... q4_k ...]
 */
import { cpus } from "node:os";
import { init } from "../dist/src/index.js";
import { BLOCKS } from "../dist/src/tensor/blocks.js";

const SHAPES = "1x768x768 1x2048x2048 1x512x49152 8x768x768 128x768x768 256x2048x2048";
const FORMATS = "float32 bfloat16 float16 q8_0 q4_k nf4";
const ROUNDS = 60;
/** Multiply-adds between two looks at the clock. */
const BATCH = 4e6;

const { kernels, memory, scratch } = await init();

/** Bytes of so many values, and the kernels' number: float16 is finite here, as weights are. */
function layoutOf(format, size) {
  if (format === "float32") return [4 * size, 0];
  if (format === "bfloat16" || format === "float16") return [2 * size, format === "bfloat16" ? 1 : 3];
  const { values, bytes, format: number } = BLOCKS[format];
  return [(size / values) * bytes, number];
}

/** A layer in linear memory with values of a pattern; its two passes. */
function layer(n, d, k, format) {
  const [x, y, dx] = [n * d, n * k, n * d].map((size) => memory.alloc(4 * size));
  memory.f32(x, n * d).forEach((_, i, values) => {
    values[i] = ((i * 37) % 101) / 50 - 1;
  });
  memory.f32(y, n * k).fill(0.5);
  const [bytes, number] = layoutOf(format, d * k);
  const weight = memory.alloc(bytes);
  if (format === "float32")
    memory.f32(weight, d * k).forEach((_, i, values) => {
      values[i] = ((i * 53) % 97) / 970;
    });
  else if (number < 8)
    new Uint16Array(memory.wasm.buffer, weight, d * k).forEach((_, i, bits) => {
      bits[i] = (format === "bfloat16" ? 0x3c00 : 0x2800) + ((i * 53) % 0x180);
    });
  // No float16 of these bytes, wherever one begins, is huge or subnormal; nor is a float32.
  else
    memory.u8(weight, bytes).forEach((_, i, all) => {
      all[i] = 0x28 + ((i * 7) % 8);
    });
  const call = {
    n,
    d,
    k,
    r: 0,
    s: 0,
    xDropped: x,
    weight,
    fanInFanOut: false,
    format: number,
    bias: 0,
    a: 0,
    b: 0,
    hs: 0,
  };
  const none = { x: 0, dxDropped: 0, dWeight: 0, dBias: 0, da: 0, db: 0, zs: 0 };
  return {
    forward: () => kernels.loraLinearForward({ ...call, x, y, scratch }),
    backward: () => kernels.loraLinearBackward({ ...call, ...none, dx, dy: y, scratch }),
    free: () => [x, y, dx, weight].forEach((address) => memory.free(address)),
  };
}

const asked = process.argv.slice(2);
const shapes = asked.filter((word) => /^\d+x\d+x\d+$/.test(word));
const named = asked.filter((word) => !shapes.includes(word));
const formats = named.length > 0 ? ["float32", ...named] : FORMATS.split(" ");
console.log(`Node ${process.version}, ${cpus()[0].model}; ms, and of float32's time`);
for (const shape of shapes.length > 0 ? shapes : SHAPES.split(" ")) {
  const [n, d, k] = shape.split("x").map(Number);
  const layers = formats.map((format) => layer(n, d, k, format));
  const repeats = Math.max(1, Math.round(BATCH / (n * d * k)));
  for (const pass of ["forward", "backward"]) {
    const best = formats.map(() => Infinity);
    for (let round = 0; round < ROUNDS; round++)
      layers.forEach((one, format) => {
        const start = performance.now();
        for (let i = 0; i < repeats; i++) one[pass]();
        best[format] = Math.min(best[format], (performance.now() - start) / repeats);
      });
    const shown = best.map((ms, format) => `${formats[format]} ${ms.toFixed(3)} (${(ms / best[0]).toFixed(2)})`);
    console.log(`${shape} ${pass}: ${shown.join(", ")}`);
  }
  for (const one of layers) one.free();
}

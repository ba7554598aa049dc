/**
 * One linear layer on weights of float32, bfloat16 and float16, beside each other: rounds in turn, the fastest of each.
 * Shapes are rows x inputs x outputs: node half.mjs [1x576x49152 ...]
 */
import { cpus } from "node:os";
import { init } from "../dist/src/index.js";

const SHAPES = "1x768x768 1x2048x2048 1x576x49152 8x768x768 128x768x768";
const FORMATS = ["float32", "bfloat16", "float16"];
const ROUNDS = 60;
/** The kernels' numbers: float16 is finite here, as weights are. */
const NUMBERS = [0, 1, 3];
/** Multiply-adds between two looks at the clock. */
const BATCH = 4e6;

const { kernels, memory, scratch } = await init();

/** A layer in linear memory with values of a pattern; its two passes. */
function layer(n, d, k, format) {
  const [x, y, dx] = [n * d, n * k, n * d].map((size) => memory.alloc(4 * size));
  memory.f32(x, n * d).forEach((_, i, values) => {
    values[i] = ((i * 37) % 101) / 50 - 1;
  });
  memory.f32(y, n * k).fill(0.5);
  const weight = memory.alloc(d * k * (format === 0 ? 4 : 2));
  if (format === 0)
    memory.f32(weight, d * k).forEach((_, i, values) => {
      values[i] = ((i * 53) % 97) / 970;
    });
  else
    new Uint16Array(memory.wasm.buffer, weight, d * k).forEach((_, i, bits) => {
      bits[i] = (format === 1 ? 0x3c00 : 0x2800) + ((i * 53) % 0x180);
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
    format: NUMBERS[format],
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

const [, , ...asked] = process.argv;
console.log(`Node ${process.version}, ${cpus()[0].model}; ms, and of float32's time`);
for (const shape of asked.length > 0 ? asked : SHAPES.split(" ")) {
  const [n, d, k] = shape.split("x").map(Number);
  const layers = FORMATS.map((_, format) => layer(n, d, k, format));
  const repeats = Math.max(1, Math.round(BATCH / (n * d * k)));
  for (const pass of ["forward", "backward"]) {
    const best = FORMATS.map(() => Infinity);
    for (let round = 0; round < ROUNDS; round++)
      layers.forEach((one, format) => {
        const start = performance.now();
        for (let i = 0; i < repeats; i++) one[pass]();
        best[format] = Math.min(best[format], (performance.now() - start) / repeats);
      });
    const shown = best.map((ms, format) => `${FORMATS[format]} ${ms.toFixed(3)} (${(ms / best[0]).toFixed(2)})`);
    console.log(`${shape} ${pass}: ${shown.join(", ")}`);
  }
  for (const one of layers) one.free();
}

/** What differs between Node and browsers, for Node; platform.web.mjs has the same exports. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, cpus, loadavg } from "node:os";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const file = (path) => readFileSync(new URL(path, import.meta.url));

/**
 * CPU time of this process in milliseconds, all its threads: what other processes take is not counted, and an engine
 * that used a second thread would pay for it. On an idle machine it equals wall time.
 */
export function clock() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
const clockName = "CPU time of the process";

/** Read when asked for: build.mjs makes them. */
export const wallBytes = {
  get plain() {
    return file("../dist/bench/wall.wasm");
  },
  get fma() {
    return file("../dist/bench/wall_fma.wasm");
  },
};
/** The library's builds, which engines besides that of init() are made of. */
export const kernelBytes = {
  separate: file("../build/wasm-lora.wasm"),
  fused: file("../build/wasm-lora.fused.wasm"),
};
/** models/base, the embedded Llama. */
export const baseFiles = {
  "config.json": file("../models/base/config.json"),
  "model.safetensors": file("../models/base/model.safetensors"),
};

const versions = Object.fromEntries(
  ["@tensorflow/tfjs-backend-wasm", "onnxruntime-web", "@jax-js/jax"].map((name) => [
    name,
    JSON.parse(file(`node_modules/${name}/package.json`)).version,
  ]),
);

export async function loadTensorFlow() {
  const { tf, wasm } = require("../dist/bench/tfjs.cjs");
  wasm.setWasmPaths(fileURLToPath(new URL("node_modules/@tensorflow/tfjs-backend-wasm/dist/", import.meta.url)));
  return { tf, wasm };
}
export async function loadOnnxRuntime() {
  return import("onnxruntime-web");
}

export async function environment() {
  return {
    engine: process.versions.bun
      ? `Bun ${process.versions.bun}`
      : `Node ${process.versions.node} (V8 ${process.versions.v8})`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    logicalCpus: availableParallelism(),
    platform: `${process.platform} ${process.arch}`,
    clock: clockName,
    // About 1 if nothing else ran in the last minute.
    load: loadavg()[0],
    peers: versions,
  };
}

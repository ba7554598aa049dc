/** What differs between Node and browsers, for browsers; bundled in place of platform.node.mjs. */
import { tf, wasm } from "./engines/tfjs_package.mjs";
import * as ort from "onnxruntime-web/wasm";
import tfSimd from "./node_modules/@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm";
import ortWasm from "./node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm";
import jaxPackage from "./node_modules/@jax-js/jax/package.json";
import ortPackage from "./node_modules/onnxruntime-web/package.json";
import tfPackage from "./node_modules/@tensorflow/tfjs-backend-wasm/package.json";
import plain from "../dist/bench/wall.wasm";
import fma from "../dist/bench/wall_fma.wasm";
import separate from "../build/wasm-lora.wasm";
import fused from "../build/wasm-lora.fused.wasm";
import config from "../models/base/config.json";
import model from "../models/base/model.safetensors";

// jax-js takes a thread a core where it sees workers, as it does when it is loaded: that comes later.
delete globalThis.Worker;

export const clock = () => performance.now();
export const wallBytes = { plain, fma };
export const kernelBytes = { separate, fused };
export const baseFiles = {
  "config.json": new TextEncoder().encode(JSON.stringify(config)),
  "model.safetensors": model,
};
const versions = {
  "@tensorflow/tfjs-backend-wasm": tfPackage.version,
  "onnxruntime-web": ortPackage.version,
  "@jax-js/jax": jaxPackage.version,
};

export async function loadTensorFlow() {
  const url = URL.createObjectURL(new Blob([tfSimd], { type: "application/wasm" }));
  // It asks for all three, and would choose the threaded one.
  wasm.setWasmPaths(
    Object.fromEntries(["", "-simd", "-threaded-simd"].map((kind) => [`tfjs-backend-wasm${kind}.wasm`, url])),
  );
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  return { tf, wasm };
}
export async function loadOnnxRuntime() {
  ort.env.wasm.wasmBinary = ortWasm;
  return ort;
}

export async function environment() {
  return {
    engine: navigator.userAgent,
    cpu: "unknown to a page",
    logicalCpus: navigator.hardwareConcurrency,
    platform: navigator.platform,
    clock: "wall time",
    peers: versions,
  };
}

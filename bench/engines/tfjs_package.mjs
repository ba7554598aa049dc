/**
 * tfjs with its gradients, which the package registers in a file that only bundlers can load (build.mjs does for Node).
 */
import "@tensorflow/tfjs-core/dist/register_all_gradients";
export * as tf from "@tensorflow/tfjs-core";
export * as wasm from "@tensorflow/tfjs-backend-wasm";

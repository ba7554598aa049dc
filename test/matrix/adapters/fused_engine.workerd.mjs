/** test/support/fused_engine.ts for workerd, where the fused build is an imported module. */
import module from "../../../build/wasm-lora.fused.wasm";
import { init, supportsFused } from "../../../dist/src/index.js";

export const runs = await supportsFused(module);
export const askFused = (threads = 1) => init({ module, threads });
export const initFused = () => askFused();

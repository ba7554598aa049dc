/** test/support/relaxed.ts for workerd, where the relaxed build is an imported module. */
import module from "../../../build/wasm-lora.relaxed.wasm";
import { init } from "../../../dist/src/index.js";

export const runs = true,
  byOption = false;
export const initRelaxed = () => init({ module });

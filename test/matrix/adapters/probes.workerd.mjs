/** test/support/probes_module.ts in workerd. */
import module from "../../../build/wasm-lora.probes.wasm";

export function probesModule() {
  return Promise.resolve(module);
}

import { inlineModule } from "wasm-lora/inline";
import { train } from "./train.js";
inlineModule()
  .then((module) => train({ module }))
  .then(console.log);

import { inlineModule } from "wasm-lora/inline";
import { count } from "./threads.js";
inlineModule({ shared: true })
  .then((module) => count({ module }))
  .then(console.log);

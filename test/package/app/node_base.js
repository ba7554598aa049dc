import { inlineModule } from "wasm-lora/inline";
import { say } from "./base.js";
inlineModule()
  .then((module) => say({ module }))
  .then(console.log, (error) => console.log(`${error.name}: ${error.message}`));

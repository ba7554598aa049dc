import { inlineModule } from "wasm-lora/inline";
import { train } from "./train.js";
console.log(await train({ module: await inlineModule() }));

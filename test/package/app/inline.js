import { inlineModule } from "wasm-lora/inline";
import { show } from "./page.js";
import { train } from "./train.js";
show(inlineModule().then((module) => train({ module })));

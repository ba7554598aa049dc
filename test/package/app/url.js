// What the bundler makes of the file is its URL.
import url from "wasm-lora/wasm-lora.wasm";
import { show } from "./page.js";
import { train } from "./train.js";
show(WebAssembly.compileStreaming(fetch(url)).then((module) => train({ module })));

/**
 * dist/src/ -> dist/wasm-lora.browser.js: the whole library in one file, kernels and tokenizer inside, for pages without a bundler
 * (`wasm-lora/browser`, CDNs).
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = fileURLToPath(new URL("..", import.meta.url));
/** What package.json's "imports" would choose by conditions. */
const INSIDE = { "#load": "runtime/load.inline.js", "#disk": "io/disk.none.js" };
const { version, dependencies } = JSON.parse(readFileSync(`${root}/package.json`, "utf8"));
const others = ["@assemblyscript/loader", "@huggingface/tokenizers"].map((name) => `${name} ${dependencies[name].slice(1)} (Apache-2.0)`);

const bundle = await rolldown({
  input: `${root}/dist/src/index.js`,
  platform: "browser",
  plugins: [{
    name: "inside",
    resolveId: (id) => id in INSIDE ? `${root}/dist/src/${INSIDE[id]}` : null,
    // The embedded model's folder, as seen from dist/.
    transform: (code, id) => id.endsWith("/models/base_url.js") ? code.replaceAll("../../../models/base", "../models/base") : null,
  }],
  onLog(level, { message }) { if (level === "warn") throw new Error(message); },
});
await bundle.write({ file: `${root}/dist/wasm-lora.browser.js`, format: "es", minify: true, codeSplitting: false,
  banner: `/*! wasm-lora ${version} (MIT), with ${others.join(" and ")}. */`,
});
await bundle.close();

/**
 * dist/src/ -> dist/wasm-lora.browser.js: the whole library in one file, kernels and tokenizer inside, for pages without a bundler
 * (`wasm-lora/browser`, CDNs).
 */
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = fileURLToPath(new URL("..", import.meta.url));
/** What package.json's "imports" would choose by conditions. */
const INSIDE = { "#load": "runtime/load.inline.js", "#disk": "io/disk.none.js" };

const bundle = await rolldown({
  input: `${root}/dist/src/index.js`,
  platform: "browser",
  plugins: [{ name: "inside", resolveId: (id) => id in INSIDE ? `${root}/dist/src/${INSIDE[id]}` : null }],
  onLog(level, { message }) { if (level === "warn") throw new Error(message); },
});
await bundle.write({ file: `${root}/dist/wasm-lora.browser.js`, format: "es", minify: true, codeSplitting: false, comments: { legal: true } });
await bundle.close();

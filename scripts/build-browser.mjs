/**
 * dist/src/ -> dist/wasm-lora.browser.js: the whole library in one file, kernels and tokenizer inside, for pages
 * without a bundler (`wasm-lora/browser`, CDNs).
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = fileURLToPath(new URL("..", import.meta.url));
/** What package.json's "imports" would choose by conditions. */
const INSIDE = {
  "#load": "runtime/load.inline.js",
  "#spawn": "runtime/spawn.web.js",
  "#disk": "io/disk.none.js",
};

const bundle = await rolldown({
  input: `${root}/dist/src/index.js`,
  platform: "browser",
  // A warning is an error here, and a slow machine is none.
  checks: { pluginTimings: false },
  plugins: [
    {
      name: "inside",
      resolveId: (id) => (id in INSIDE ? `${root}/dist/src/${INSIDE[id]}` : null),
      // The embedded model's folder, as seen from dist/.
      transform: (code, id) =>
        id.endsWith("/models/base_url.js") ? code.replaceAll("../../../models/base", "../models/base") : null,
    },
  ],
  onLog(level, { message }) {
    if (level === "warn") throw new Error(message);
  },
});
const {
  output: [{ code, moduleIds }],
} = await bundle.generate({ format: "es", minify: true, codeSplitting: false });
await bundle.close();

/** A package's name, version and licence, as the file owes them to those it holds. */
function credit(folder) {
  const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  return `${name} ${version} (${license})`;
}
const others = new Set(moduleIds.map((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0]).filter(Boolean));
writeFileSync(`${root}/dist/wasm-lora.browser.js`, `/*! ${[root, ...others].map(credit).join(", with ")} */\n${code}`);

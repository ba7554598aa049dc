/** What the package may hold: a file that is missing here or there fails the test. */
import { readdirSync } from "node:fs";

const FILES = [
  "LICENSE",
  "README.md",
  "SECURITY.md",
  "build/wasm-lora.fused.wasm",
  "build/wasm-lora.wasm",
  "dist/wasm-lora.browser.js",
  "models/base/config.json",
  "models/base/model.safetensors",
  "models/base/tokenizer.json",
  "models/base/tokenizer_config.json",
  "package.json",
];

/** Made by the build from no file of version control. */
const GENERATED = ["runtime/abi", "runtime/wasm_base64"];

/** The list above, and of each module of src/ its JavaScript, types and source map. */
export function expectedContents(root) {
  const modules = readdirSync(`${root}/src`, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"))
    .map((file) => file.slice(0, -3));
  const all = new Set([...modules, ...GENERATED]);
  return [
    ...FILES,
    ...[...all].flatMap((name) => [".js", ".d.ts", ".js.map"].map((end) => `dist/src/${name}${end}`)),
  ].sort();
}

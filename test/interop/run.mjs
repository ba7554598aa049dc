/**
 * What others make of the files that are written here: llama.cpp, in Node (node-llama-cpp) and in Chromium (wllama),
 * gets a base and an adapter, and its logits and likeliest tokens are compared with this library's.
 *
 *   npm run test:interop
 *   CHROMIUM=/usr/bin/chromium npm run test:interop
 *
 * In float32 llama.cpp differs by its order of sums and its exp; a base of blocks it multiplies in 8 bits, activations
 * too, which is where its logits move.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportAdapter, exportModel, init } from "../../dist/src/index.js";
import { computeByLlama, release } from "./llama.mjs";
import { FAMILIES, makeModel } from "./models.mjs";
import { compute } from "./ours.mjs";
import { asQ4 } from "./q4_0.mjs";
import { openWllama } from "./wllama.mjs";

/** How far logits may be apart, of the largest. Gemma's GELU is a table of float16 in llama.cpp. */
const tolerance = (family, base) => (base !== "f32" ? 0.04 : family === "gemma3" ? 1e-3 : 1e-5);
const TEXT = "The whale was near.";
/** Tokens are characters: <s>, then the text's. */
const PROMPT = [1, ...Array.from(TEXT, (one) => (one === " " ? 4 : one.charCodeAt(0) - 28))];
const NEW_TOKENS = 16;
const SEEDS = { llama: 30, qwen2: 41, qwen3: 42, gemma3: 43 };

await init();
const work = mkdtempSync(join(tmpdir(), "wasm-lora-interop-"));
process.on("exit", () => rmSync(work, { recursive: true, force: true }));
let failed = 0;

/**
 * Compares. Tokens must be equal up to the first that was ahead of the next likeliest by no more than logits are apart:
 * that one, and all that follow it, may be others.
 */
function judge(family, base, what, ours, theirs) {
  let [apart, largest] = [0, 0];
  for (const [i, value] of ours.values.entries()) {
    apart = Math.max(apart, Math.abs(value - theirs.values[i]));
    largest = Math.max(largest, Math.abs(value));
  }
  const allowed = tolerance(family, base) * largest;
  const [close, other] = [
    ours.margins.findIndex((margin) => margin <= 2 * apart),
    ours.tokens.findIndex((token, i) => token !== theirs.tokens[i]),
  ].map((at) => (at < 0 ? NEW_TOKENS : at));
  const isGood = apart <= allowed && other >= close && theirs.values.length === ours.values.length;
  if (!isGood) failed++;
  const tokens = `${other} of ${NEW_TOKENS} tokens equal${close < NEW_TOKENS ? `, ${close} of them for sure` : ""}`;
  say(isGood, family, base, what, `logits apart by ${(apart / largest).toExponential(1)} of the largest; ${tokens}`);
}

function say(isGood, family, base, what, text) {
  console.log(`${isGood ? "ok  " : "FAIL"} ${family.padEnd(7)} ${base.padEnd(5)} ${what.padEnd(17)} ${text}`);
}

const chromium = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const files = {};
const browser = existsSync(chromium) ? await openWllama(chromium, files) : null;
console.log(`llama.cpp ${release} by node-llama-cpp; ${browser ? `wllama in ${browser.version}` : "no Chromium"}`);

for (const family of Object.keys(FAMILIES)) {
  const folder = join(work, family);
  makeModel(folder, family, SEEDS[family]);
  const path = (name) => join(folder, name);
  const lora = path("adapter");
  const put = (name, bytes) => writeFileSync(path(name), bytes);
  put("f32.gguf", exportModel(folder, { to: "gguf" }).files.get("model.gguf"));
  put("q8_0.gguf", exportModel(folder, { to: "gguf", dtype: "q8_0" }).files.get("model.gguf"));
  put("q4_0.gguf", asQ4(new Uint8Array(readFileSync(path("f32.gguf")))));
  put("merged.gguf", exportModel(folder, { to: "gguf", adapter: lora }).files.get("model.gguf"));
  put("adapter.gguf", exportAdapter(lora, { to: "gguf", base: folder }).files.get("adapter.gguf"));
  for (const base of ["f32", "q8_0", "q4_0"]) {
    const file = path(`${base}.gguf`);
    for (const adapter of [null, lora]) {
      // The library reads the base's own file, so that both have the same blocks.
      const ours = compute(base === "f32" ? folder : file, adapter, PROMPT, NEW_TOKENS);
      const theirs = await computeByLlama(file, adapter && path("adapter.gguf"), PROMPT, NEW_TOKENS);
      judge(family, base, adapter ? "base and adapter" : "base", ours, theirs);
      if (base === "f32" && adapter)
        judge(family, base, "merged", ours, await computeByLlama(path("merged.gguf"), null, PROMPT, NEW_TOKENS));
    }
  }
  for (const name of browser ? ["f32.gguf", "adapter.gguf"] : []) files[`${family}-${name}`] = path(name);
  for (const adapter of browser ? [null, lora] : []) {
    const { tokens, margins, values } = compute(folder, adapter, PROMPT, NEW_TOKENS);
    // It ends with the token that ends texts.
    const end = tokens.includes(2) ? tokens.indexOf(2) : NEW_TOKENS;
    const characters = tokens
      .slice(0, end)
      .map((id) => (id === 4 ? " " : id === 3 ? "\n" : id < 3 ? "" : String.fromCharCode(id + 28)));
    // Its attention is in float16: what was ahead by next to nothing may be another.
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const close = margins.findIndex((margin) => margin <= 2 * tolerance("gemma3", "f32") * largest);
    const sure = characters.slice(0, close < 0 ? NEW_TOKENS : close).join("");
    const text = await browser.complete(`${family}-f32.gguf`, adapter && `${family}-adapter.gguf`, TEXT, NEW_TOKENS);
    const isGood = text.startsWith(sure);
    if (!isGood) failed++;
    const whole = JSON.stringify(characters.join(""));
    const shown = `in Chromium ${JSON.stringify(text)}${JSON.stringify(text) === whole ? "" : `; ours ${whole}`}`;
    say(isGood, family, "f32", adapter ? "base and adapter" : "base", shown);
  }
}
await browser?.close();
console.log(failed === 0 ? "All agree." : `${failed} failed.`);
process.exit(failed === 0 ? 0 : 1);

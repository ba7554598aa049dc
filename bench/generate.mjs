/**
 * Tokens a second of `models.generate` and, of several prompts at once, of `models.generateBatch`: generate.mjs
 * [--against <folder of another build>] [--rounds <number>]. Two models: the embedded one, 480 tokens after 16, and
 * SmolLM2-135M's shape with random weights in bf16, 32 tokens after 16. Builds take turns in one process, the embedded
 * base's first; the exit code is 1 if they have not the same tokens. The first token, which waits for the prompt, is
 * given apart.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { median } from "./median.mjs";
import { SMOLLM2_135M, writeModelFolder } from "./model_folder.mjs";

const PROMPT = 16;
const ROWS = [2, 4, 8, 16];

const { values } = parseArgs({
  options: { against: { type: "string" }, rounds: { type: "string", default: "7" } },
});
const root = fileURLToPath(new URL("..", import.meta.url));
const builds = [values.against, root].filter((folder) => folder !== undefined).map((folder) => resolve(folder));

const promptOf = (row) => Array.from({ length: PROMPT }, (_, i) => (i * 389 + 17 * (row + 1)) % 1000);

/** One text: when the first token came, and how fast the others. */
function write({ models }, model, count) {
  const start = performance.now();
  const tokens = models.generate(model, promptOf(0), { maxNewTokens: count, temperature: 0 });
  const text = [tokens.next().value];
  const first = performance.now();
  for (const token of tokens) text.push(token);
  return { first: first - start, rate: ((count - 1) / (performance.now() - first)) * 1000, text: text.join() };
}

/** So many texts at once: how fast all tokens but the first of each. */
function writeBatch({ models }, model, rows, count) {
  const prompts = Array.from({ length: rows }, (_, row) => promptOf(row));
  const tokens = models.generateBatch(model, prompts, { maxNewTokens: count, temperature: 0 });
  for (let row = 0; row < rows; row++) tokens.next();
  const first = performance.now();
  let drawn = 0;
  for (const _ of tokens) drawn++;
  return (drawn / (performance.now() - first)) * 1000;
}

const libraries = [];
for (const build of builds) {
  const library = await import(pathToFileURL(join(build, "dist/src/index.js")).href);
  await library.init();
  libraries.push(library);
}
const folder = mkdtempSync(join(tmpdir(), "wasm-lora-generate-"));
try {
  writeModelFolder(folder, SMOLLM2_135M);
  console.log(`${cpus()[0]?.model}, ${process.version}, medians of ${values.rounds} rounds (the fastest in brackets)`);
  for (const [name, path, count] of [
    ["embedded base", join(root, "models/base"), 480],
    ["SmolLM2-135M's shape", folder, 32],
  ]) {
    const loaded = libraries.map((library) => library.models.loadModel(path).model.eval());
    const runs = libraries.map(() => []);
    const batches = new Map(ROWS.map((rows) => [rows, []]));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const [i, library] of libraries.entries()) runs[i].push(write(library, loaded[i], count));
      for (const [rows, rates] of batches) rates.push(writeBatch(libraries.at(-1), loaded.at(-1), rows, count));
    }
    const told = (rates) => `${median(rates).toFixed(1)} (${Math.max(...rates).toFixed(1)})`;
    for (const [i, build] of builds.entries()) {
      const first = median(runs[i].map((run) => run.first)).toFixed(0);
      console.log(`${name}, ${build}: ${told(runs[i].map((run) => run.rate))} tokens/s; first after ${first} ms`);
      if (runs[i][0].text !== runs[0][0].text) {
        console.log("The two builds write different tokens.");
        process.exitCode = 1;
      }
    }
    for (const [rows, rates] of batches) console.log(`${name}, ${rows} prompts at once: ${told(rates)} tokens/s`);
    for (const model of loaded) model.dispose();
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

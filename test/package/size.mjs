/**
 * Sizes of what users download, against their budgets. Prints a table, writes it to results/size.json and
 * results/size.md, and fails over budget.
 *
 *   npm run size
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { rolldown } from "rolldown";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = fileURLToPath(new URL("../../", import.meta.url));
const KB = 1024;
const alias = { "wasm-lora": `${root}/dist/src/index.js`, "wasm-lora/inline": `${root}/dist/src/inline.js` };

/** An ES module, bundled for a page and minified, as Vite's users get it (Rollup's and webpack's within 1 %). */
async function byRolldown(contents) {
  const entry = "\0entry";
  const bundle = await rolldown({
    input: entry,
    platform: "browser",
    resolve: { alias },
    plugins: [
      {
        name: "entry",
        resolveId: (id) => (id === entry ? id : null),
        load: (id) => (id === entry ? { code: contents, moduleSideEffects: true } : null),
      },
    ],
    onLog: () => {},
  });
  const { output } = await bundle.generate({ format: "es", minify: true, codeSplitting: false });
  await bundle.close();
  return Buffer.from(output[0].code);
}

/** The same with esbuild (Wrangler's), which takes all of a namespace of which one member is used. */
async function byEsbuild(contents) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: here },
    alias,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    write: false,
    logLevel: "silent",
  });
  return outputFiles[0].contents;
}

/** All of what a bundle of layers, ops and optimisers can be made of. */
const CORE =
  "export { init, memoryStats, tensor, Tensor, zeros, ones, full, clone, scope, noGrad, manualSeed, Generator, ops, " +
  'nn, lora, optim } from "wasm-lora";';
const FILES = 'import { io } from "wasm-lora"; export const files = [io.loadStateDict, io.saveStateDict];';
const APP = readFileSync(`${here}/app/train.js`, "utf8");

const script = async (name, code, budget, bundled = byRolldown) => {
  const bytes = await bundled(code);
  return { name, bytes: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, budget, measured: "gzip" };
};

const kernels = (name) => {
  const wasm = readFileSync(`${root}/build/${name}`);
  return { name, bytes: wasm.length, gzip: gzipSync(wasm, { level: 9 }).length, budget: 95 * KB, measured: "bytes" };
};

const rows = [
  kernels("wasm-lora.wasm"),
  kernels("wasm-lora.fused.wasm"),
  await script("core: all of tensor, ops, nn, lora, optim", CORE, 34 * KB),
  await script("core, and state dicts in files", CORE + FILES, 41 * KB),
  await script("core and peft", `${CORE} export { peft } from "wasm-lora";`, 68 * KB),
  await script("everything", 'export * from "wasm-lora";'),
  await script("an app that trains one layer", APP, 25 * KB),
  await script("the same, and keeps it in a file", `${APP}${FILES}`, 31 * KB),
  await script("an app that trains one layer, by esbuild", APP, 35 * KB, byEsbuild),
  await script("wasm-lora/inline", 'export { inlineModule } from "wasm-lora/inline";'),
];

const number = (value) => value.toLocaleString("en");
const limit = ({ budget, measured }) =>
  budget === undefined ? "" : `${number(budget)} ${measured === "gzip" ? "gzipped" : "plain"}`;
const table = [
  ["", "minified", "gzipped", "budget"],
  ["---", "---:", "---:", "---:"],
  ...rows.map((row) => [row.name, number(row.bytes), number(row.gzip), limit(row)]),
];
const widths = table[0].map((_, column) => Math.max(...table.map((line) => line[column].length)));
const padded = (cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column]));
const markdown = table.map((line) => `| ${line.map(padded).join(" | ")} |`).join("\n");
console.log(markdown);

mkdirSync(`${here}/results`, { recursive: true });
writeFileSync(`${here}/results/size.json`, `${JSON.stringify(rows, null, 2)}\n`);
writeFileSync(`${here}/results/size.md`, `${markdown}\n`);

const over = rows.filter(({ budget, measured, ...row }) => row[measured] > budget);
for (const row of over)
  console.error(`${row.name}: ${number(row[row.measured])} bytes are over the budget of ${number(row.budget)}`);
process.exitCode = over.length === 0 ? 0 : 1;

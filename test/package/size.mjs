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

const here = fileURLToPath(new URL(".", import.meta.url));
const root = fileURLToPath(new URL("../../", import.meta.url));
const KB = 1024;

/** Bytes of an ES module, bundled for a page and minified. */
async function minified(contents) {
  const {
    outputFiles: [{ contents: bytes }],
  } = await build({
    stdin: { contents, resolveDir: here },
    alias: { "wasm-lora": `${root}/dist/src/index.js`, "wasm-lora/inline": `${root}/dist/src/inline.js` },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    write: false,
    logLevel: "silent",
  });
  return bytes;
}

const CORE =
  "init, memoryStats, tensor, Tensor, zeros, ones, full, clone, scope, noGrad, manualSeed, Generator, ops, nn, " +
  "lora, optim, io";
const script = async (name, code, budget) => {
  const bytes = await minified(code);
  return { name, bytes: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, budget, measured: "gzip" };
};

const kernels = (name) => {
  const wasm = readFileSync(`${root}/build/${name}`);
  return { name, bytes: wasm.length, gzip: gzipSync(wasm, { level: 9 }).length, budget: 64 * KB, measured: "bytes" };
};

const rows = [
  kernels("wasm-lora.wasm"),
  kernels("wasm-lora.relaxed.wasm"),
  await script("core: tensor, ops, nn, lora, optim, io", `export { ${CORE} } from "wasm-lora"`, 48 * KB),
  await script("core and peft", `export { ${CORE}, peft } from "wasm-lora"`, 60 * KB),
  await script("an app that trains one layer", readFileSync(`${here}/app/train.js`, "utf8")),
  await script("wasm-lora/inline", 'export { inlineModule } from "wasm-lora/inline"'),
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

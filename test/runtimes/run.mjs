/**
 * Runs every block of docs/runtimes.md where it says it runs; the numbers must be equal.
 *
 *   npm ci && npm run build && npm --prefix test/runtimes ci && node test/runtimes/run.mjs
 *
 * Pages open in Chromium: the one that $CHROMIUM names, by default `chromium`.
 */
import { execFile, spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as esbuild from "esbuild";
import workerd from "workerd";

const here = fileURLToPath(new URL(".", import.meta.url)), root = join(here, "../..");
// Below this package, so that imports find what it has installed.
const scratch = join(here, "runs");
const text = readFileSync(join(root, "docs/runtimes.md"), "utf8");
const run = promisify(execFile);

function block(info) {
  const found = text.split(`\`\`\`${info}\n`);
  if (found.length !== 2) throw new Error(`docs/runtimes.md has ${found.length - 1} blocks "${info}"; expected one.`);
  return found[1].split("```")[0];
}

function write(name, contents) {
  const path = join(scratch, name);
  writeFileSync(path, contents);
  return path;
}

const printed = async (info, command, ...args) => (await run(command, [...args, write("train.mjs", block(info))], { cwd: scratch })).stdout.trim();
const installed = (name) => join(here, "node_modules/.bin", name);

const config = (wasm) => `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (services = [(name = "app", worker = .app)], sockets = [(name = "http", http = (), service = "app")]);
const app :Workerd.Worker = (
  compatibilityDate = "2026-06-01",
  modules = [(name = "worker.js", esModule = embed "dist/worker.js"), ${wasm.map((file) => `(name = "${file}", wasm = embed "dist/${file}")`)}],
);`;

async function inWorkerd(info, ...wasm) {
  const entryPoints = [write("worker.mjs", block(info))], outfile = join(scratch, "dist/worker.js");
  await esbuild.build({ entryPoints, bundle: true, format: "esm", outfile, conditions: ["workerd"], loader: { ".wasm": "copy" }, assetNames: "[name]" });
  const child = spawn(workerd.default, ["serve", write("workerd.capnp", config(wasm)), "--socket-addr=http=127.0.0.1:0", "--control-fd=3"],
    { stdio: ["ignore", "inherit", "inherit", "pipe"] });
  try {
    for await (const line of createInterface({ input: child.stdio[3] })) return await (await fetch(`http://127.0.0.1:${JSON.parse(line).port}`)).text();
    throw new Error("workerd did not listen");
  } finally {
    child.kill();
  }
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };

/** What the page shows in its <output>. */
async function inPage() {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const path = pathname.replace(/^\/node_modules\/wasm-lora\//, "/").replace(/\.\.\//g, "");
    for (const folder of [scratch, root]) {
      try {
        const bytes = readFileSync(join(folder, path));
        response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" });
        return response.end(bytes);
      } catch { /* the next folder */ }
    }
    response.writeHead(404);
    response.end();
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  try {
    const { stdout } = await run(process.env.CHROMIUM ?? "chromium",
      ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom", `http://127.0.0.1:${server.address().port}/index.html`]);
    return /<output>([^<]*)<\/output>/.exec(stdout)?.[1] ?? stdout;
  } finally {
    server.close();
  }
}

function page(html) {
  write("index.html", html);
  return inPage();
}

async function bundled(info) {
  const entryPoints = [write("app.js", block(info))];
  await esbuild.build({ entryPoints, bundle: true, format: "esm", outdir: join(scratch, "dist"), publicPath: "/dist", loader: { ".wasm": "file" } });
  return page("<!doctype html><title>app</title><output></output><script type=module src=/dist/app.js></script>");
}

const runtimes = [
  ["Node", () => printed("js", process.execPath)],
  ["Deno", () => printed("js", installed("deno"), "run", "--allow-read")],
  ["Bun", () => printed("js", installed("bun"))],
  ["workerd", () => inWorkerd("js worker", "wasm-lora.wasm")],
  ["a page in Chromium", () => page(block("html page"))],
];
const bundles = [["esbuild", () => bundled("js esbuild")], ["esbuild, kernels inside", () => bundled("js inline")]];
const relaxed = [
  ["Node, relaxed", () => printed("js relaxed", process.execPath), Number(process.versions.node.split(".")[0]) > 20],
  ["Deno, relaxed", () => printed("js relaxed", installed("deno"), "run", "--allow-read"), true],
  ["Bun, relaxed", () => printed("js relaxed", installed("bun")), true],
  ["workerd, relaxed", () => inWorkerd("js relaxed worker", "wasm-lora.wasm", "wasm-lora.relaxed.wasm"), true],
];

rmSync(scratch, { recursive: true, force: true });
mkdirSync(scratch);
let failed = 0;
async function check(name, start, expected) {
  let got;
  try {
    got = await start();
  } catch (error) {
    got = error.message;
  }
  const passed = expected === undefined ? /^\d\.\d+$/.test(got) : got === expected;
  if (!passed) failed++;
  console.log(`${passed ? "ok    " : "failed"} ${name.padEnd(24)} ${got}${passed || expected === undefined ? "" : ` (expected ${expected})`}`);
  return got;
}
const number = await check(...runtimes[0]);
for (const [name, start] of runtimes.slice(1)) await check(name, start, number);
for (const [name, start] of bundles) await check(name, start, "3");
for (const [name, start, runs] of relaxed) await check(name, start, String(runs));
console.log(`${runtimes.length + bundles.length + relaxed.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

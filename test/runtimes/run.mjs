/**
 * Runs every block of docs/runtimes.md, and of docs/guides those that are for pages and workers, where they say they
 * run; the numbers of docs/runtimes.md must be equal.
 *
 *   npm ci && npm run build && npm --prefix test/runtimes ci && node test/runtimes/run.mjs
 *
 * Pages open in Chromium: the one that $CHROMIUM names, by default `chromium`.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { availableParallelism, tmpdir } from "node:os";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as esbuild from "esbuild";
import workerd from "workerd";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "../..");
// Below this package, so that imports find what it has installed.
const scratch = join(here, "runs");
const run = promisify(execFile);

function block(info, document = "docs/runtimes.md") {
  const found = readFileSync(join(root, document), "utf8").split(`\`\`\`${info}\n`);
  if (found.length !== 2) throw new Error(`${document} has ${found.length - 1} blocks "${info}"; expected one.`);
  return found[1].split("```")[0];
}

function write(name, contents) {
  const path = join(scratch, name);
  writeFileSync(path, contents);
  return path;
}

const printed = async (info, command, ...args) =>
  (await run(command, [...args, write("train.mjs", block(info))], { cwd: scratch })).stdout.trim();
const installed = (name) => join(here, "node_modules/.bin", name);

const config = (wasm) =>
  `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (services = [(name = "app", worker = .app)], sockets = [(name = "http", http = (), ` +
  `service = "app")]);
const app :Workerd.Worker = (
  compatibilityDate = "2026-04-01",
  modules = [(name = "worker.js", esModule = embed "dist/worker.js"), ${wasm.map(
    (file) => `(name = "${file}", ` + `wasm = embed "dist/${file}")`,
  )}],
);`;

async function inWorkerd(code, ...wasm) {
  const entryPoints = [write("worker.mjs", code)];
  const outfile = join(scratch, "dist/worker.js");
  await esbuild.build({
    entryPoints,
    bundle: true,
    format: "esm",
    outfile,
    conditions: ["workerd"],
    loader: { ".wasm": "copy" },
    assetNames: "[name]",
  });
  const child = spawn(
    workerd.default,
    ["serve", write("workerd.capnp", config(wasm)), "--socket-addr=http=127.0.0.1:0", "--control-fd=3"],
    { stdio: ["ignore", "inherit", "inherit", "pipe"] },
  );
  try {
    for await (const line of createInterface({ input: child.stdio[3] }))
      return await (await fetch(`http://127.0.0.1:${JSON.parse(line).port}`)).text();
    throw new Error("workerd did not listen");
  } finally {
    child.kill();
  }
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };

/** Sent along with the page: tells the server what its <output> shows once it shows something. */
const REPORT =
  `<script>
setInterval(() => { const text = document.querySelector("output")?.textContent; if (text) fetch("/shown", { ` +
  `method: "POST", body: text }); }, 200);
addEventListener("error", ({ message }) => fetch("/shown", { method: "POST", body: message }));
addEventListener("unhandledrejection", ({ reason }) => fetch("/shown", { method: "POST", body: String(reason) }));
</script>`;

/** What isolates a page, so that it may have threads. */
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** What the page shows in its <output>, or fails with. */
async function inPage(headers) {
  let shown;
  const result = new Promise((resolve) => {
    shown = resolve;
  });
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/shown") {
      shown(Buffer.concat(await request.toArray()).toString());
      return response.end();
    }
    const path = pathname.replace(/^\/node_modules\/wasm-lora\//, "/").replace(/\.\.\//g, "");
    for (const folder of [scratch, root]) {
      try {
        const bytes = readFileSync(join(folder, path));
        response.writeHead(200, { ...headers, "content-type": TYPES[extname(path)] ?? "application/octet-stream" });
        return response.end(pathname === "/index.html" ? REPORT + bytes : bytes);
      } catch {
        /* the next folder */
      }
    }
    response.writeHead(404);
    response.end();
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const profile = mkdtempSync(join(tmpdir(), "wasm-lora-chromium-"));
  const browser = spawn(
    process.env.CHROMIUM ?? "chromium",
    [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      `--user-data-dir=${profile}`,
      `http://127.0.0.1:${server.address().port}/index.html`,
    ],
    { stdio: "ignore", detached: true },
  );
  const ended = once(browser, "exit");
  try {
    return await Promise.race([
      result,
      once(browser, "error").then(([error]) => error.message),
      new Promise((resolve) => setTimeout(resolve, 60_000, "nothing was shown in a minute")),
    ]);
  } finally {
    // The browser and its helpers are one group.
    if (browser.pid !== undefined) {
      process.kill(-browser.pid, "SIGKILL");
      await ended;
    }
    server.close();
    server.closeAllConnections();
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

function page(html, headers = {}) {
  write("index.html", html);
  return inPage(headers);
}

const BUNDLED = {
  bundle: true,
  format: "esm",
  outdir: join(scratch, "dist"),
  publicPath: "/dist",
  loader: { ".wasm": "file" },
};

async function bundled(code, worker) {
  const entryPoints = [write("app.js", code), ...(worker ? [write("worker.js", worker)] : [])];
  await esbuild.build({ ...BUNDLED, entryPoints });
  return page("<!doctype html><title>app</title><output></output><script type=module src=/dist/app.js></script>");
}

/** With the single file for the library. */
const inOneFile = (code) => code.replaceAll('"wasm-lora"', '"/node_modules/wasm-lora/dist/wasm-lora.browser.js"');

/** What a script prints, as a page that shows it. */
function threadsPage() {
  const code = inOneFile(block("js threads")).replace(
    /console\.log\((.*?)\)/,
    "document.querySelector('output').value = $1",
  );
  return `<!doctype html><title>threads</title><output></output><script type=module>${code}</script>`;
}

/** The page's script and its worker. */
function withWorker() {
  write("worker.js", inOneFile(block("js worker-of-page", PAGE)));
  write(
    "app.js",
    `${block("js page", PAGE).replace(
      "console.log(data)",
      "document.querySelector('output').value = " + "data.text ?? ''",
    )}`,
  );
  return page(
    "<!doctype html><title>app</title><textarea>Thank you for writing. Thank you for " +
      "reading.</textarea><output></output><script type=module src=/app.js></script>",
  );
}

const PAGE = "docs/guides/page.md";
const MODELS = "docs/guides/models.md";
const EDGE = "docs/guides/edge.md";
const BUNDLING = "docs/guides/bundling.md";
const single = (html) => html.replace(/https:\/\/cdn[^"]*\/npm\/wasm-lora\//, "/node_modules/wasm-lora/");
const runtimes = [
  ["Node", () => printed("js", process.execPath)],
  ["Deno", () => printed("js", installed("deno"), "run", "--allow-read")],
  ["Bun", () => printed("js", installed("bun"))],
  ["workerd", () => inWorkerd(block("js worker"), "wasm-lora.wasm")],
  ["a page in Chromium", () => page(block("html page"))],
];
const guides = [
  ["one line in a page", () => page(single(block("html page", PAGE))), "0 2"],
  ["a page and its Web Worker", withWorker, /^Thank you\b/],
  ["a model from a server", () => bundled(block("js page", MODELS)), "3"],
  ["workerd, guide", () => inWorkerd(block("js worker", EDGE), "wasm-lora.wasm"), '{"fell":true}'],
  ["esbuild", () => bundled(block("js esbuild", BUNDLING)), "3"],
];
const fused = [
  [
    "Node, fused",
    () => printed("js fused", process.execPath),
    Number(process.versions.node.split(".")[0]) > 20 ? "fused" : "separate",
  ],
  ["Deno, fused", () => printed("js fused", installed("deno"), "run", "--allow-read"), "fused"],
  ["Bun, fused", () => printed("js fused", installed("bun")), "separate"],
  ["esbuild, fused", () => bundled(block("js fused esbuild")), "fused"],
  ["workerd, fused", () => inWorkerd(block("js fused worker"), "wasm-lora.wasm", "wasm-lora.fused.wasm"), "fused"],
];

const cores = String(availableParallelism());
const threads = [
  ["Node, threads", () => printed("js threads", process.execPath), cores],
  ["Deno, threads", () => printed("js threads", installed("deno"), "run", "--allow-read"), cores],
  ["Bun, threads", () => printed("js threads", installed("bun")), cores],
  ["an isolated page, threads", () => page(threadsPage(), ISOLATED), cores],
  ["another page, threads", () => page(threadsPage()), "1"],
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
  const passed = expected instanceof RegExp ? expected.test(got) : got === expected;
  if (!passed) failed++;
  console.log(`${passed ? "ok    " : "failed"} ${name.padEnd(24)} ${got}${passed ? "" : ` (expected ${expected})`}`);
  return got;
}
const number = await check(...runtimes[0], /^\d\.\d+$/);
for (const [name, start] of runtimes.slice(1)) await check(name, start, number);
const others = [...guides, ...fused, ...threads];
for (const [name, start, expected] of others) await check(name, start, expected);
console.log(`${runtimes.length + others.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

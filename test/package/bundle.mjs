/**
 * The app through each bundler, as its users set it up. Each fills `out` with a page or a program, and throws on a
 * warning.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import commonjs from "@rollup/plugin-commonjs";
import { nodeResolve } from "@rollup/plugin-node-resolve";
import { importMetaAssets } from "@web/rollup-plugin-import-meta-assets";
import * as esbuild from "esbuild";
import { rollup } from "rollup";
import * as vite from "vite";
import webpack from "webpack";

const here = fileURLToPath(new URL(".", import.meta.url));
const page = (out, script) =>
  writeFileSync(
    join(out, "index.html"),
    `<!doctype html><html lang="en"><meta charset="utf-8"><title>wasm-lora</title><body><script type="module" ` +
      `src="./${script}"></script></body></html>\n`,
  );

/** A block of docs/guides/bundling.md, by what stands behind its backticks. */
const guide = (info) =>
  readFileSync(join(here, "../../docs/guides/bundling.md"), "utf8").split(`\`\`\`${info}\n`)[1].split("```")[0];

function refuse(warnings) {
  if (warnings.length > 0) throw new Error(warnings.join("\n"));
}

/** Vite logs what other bundlers return. */
function viteConfig(app) {
  const warnings = [];
  const customLogger = vite.createLogger("silent");
  customLogger.warn = customLogger.warnOnce = (message) => warnings.push(message);
  return { warnings, config: { root: app, configFile: false, logLevel: "silent", customLogger } };
}

export async function withVite(app, out) {
  const { warnings, config } = viteConfig(app);
  await vite.build({ ...config, build: { outDir: out, emptyOutDir: true } });
  refuse(warnings);
}

/** With the development server, as the guide configures it. */
export async function withViteServer(app, use) {
  const { warnings, config } = viteConfig(app);
  const configFile = join(here, "results/vite.config.mjs");
  mkdirSync(join(here, "results"), { recursive: true });
  writeFileSync(configFile, guide("js vite.config.js"));
  const server = await vite.createServer({ ...config, configFile, server: { port: 0 } });
  try {
    await server.listen();
    await use(server.resolvedUrls.local[0]);
    refuse(warnings);
  } finally {
    await server.close();
  }
}

export async function withWebpack(app, out) {
  // It hints at the size of the embedded model.
  const performance = { hints: false };
  const compiler = webpack({
    context: app,
    mode: "production",
    entry: "./default.js",
    performance,
    output: { path: out, filename: "main.js", module: true },
    experiments: { outputModule: true },
  });
  const stats = await new Promise((resolve, reject) =>
    compiler.run((error, result) => (error ? reject(error) : resolve(result))),
  );
  await new Promise((resolve) => compiler.close(resolve));
  if (stats.hasErrors() || stats.hasWarnings())
    throw new Error(stats.toString({ all: false, errors: true, warnings: true }));
  page(out, "main.js");
}

/** For a server: the kernels and the embedded model become files beside the program. */
export async function withWebpackForNode(app, out) {
  const compiler = webpack({
    context: app,
    mode: "production",
    target: "node20",
    entry: "./server.js",
    performance: { hints: false },
    output: { path: out, filename: "main.cjs" },
  });
  const stats = await new Promise((resolve, reject) =>
    compiler.run((error, result) => (error ? reject(error) : resolve(result))),
  );
  await new Promise((resolve) => compiler.close(resolve));
  if (stats.hasErrors() || stats.hasWarnings())
    throw new Error(stats.toString({ all: false, errors: true, warnings: true }));
  return join(out, "main.cjs");
}

export async function withRollup(app, out) {
  const warnings = [];
  const bundle = await rollup({
    input: join(app, "default.js"),
    plugins: [nodeResolve({ browser: true }), commonjs(), importMetaAssets()],
    onwarn: (warning) => warnings.push(warning.message),
  });
  await bundle.write({ dir: out, entryFileNames: "main.js", format: "es" });
  await bundle.close();
  refuse(warnings);
  page(out, "main.js");
}

async function esbuildTo(app, out, entry, options) {
  const { warnings } = await esbuild.build({
    absWorkingDir: app,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    outfile: join(out, "main.js"),
    logLevel: "silent",
    ...options,
  });
  refuse(warnings.map((warning) => warning.text));
}

/** esbuild leaves `new URL(file, import.meta.url)` alone, so the page imports the wasm's URL. */
export async function withEsbuild(app, out) {
  await esbuildTo(app, out, "url.js", { loader: { ".wasm": "file" } });
  page(out, "main.js");
}

export async function withEsbuildInline(app, out) {
  await esbuildTo(app, out, "inline.js", {});
  page(out, "main.js");
}

/** No bundler: a page's own script beside the single file. */
export function withNothing(app, out) {
  for (const path of ["dist/wasm-lora.browser.js", "models"])
    cpSync(join(app, "node_modules/wasm-lora", path), join(out, path), { recursive: true });
  for (const file of ["page.js", "train.js", "base.js", "threads.js", "default.js"]) {
    writeFileSync(
      join(out, file),
      readFileSync(join(app, file), "utf8").replace('"wasm-lora"', '"./dist/wasm-lora.browser.js"'),
    );
  }
  page(out, "default.js");
}

/** @param entry the kernels are inside the program, or, of "node.js", left where they cannot be found */
export async function withEsbuildForNode(app, out, format, entry) {
  const outfile = join(out, format === "cjs" ? "main.cjs" : "main.mjs");
  const empty = "empty-import-meta";
  await esbuildTo(app, out, entry, { platform: "node", format, outfile, logOverride: { [empty]: "silent" } });
  return outfile;
}

/** Parcel as it comes, which does not read "exports", and with its option to. */
export function withParcel(app, out, packageExports) {
  const file = join(app, "package.json");
  const before = readFileSync(file, "utf8");
  writeFileSync(file, JSON.stringify({ ...JSON.parse(before), "@parcel/resolver-default": { packageExports } }));
  try {
    return execFileSync(
      join(here, "node_modules/.bin/parcel"),
      ["build", "index.html", "--dist-dir", out, "--no-cache", "--no-source-maps"],
      { cwd: app, encoding: "utf8", stdio: "pipe" },
    );
  } finally {
    writeFileSync(file, before);
  }
}

/** workerd's modules: the script, and the wasm that it imports. */
export async function withEsbuildForWorkerd(app, out) {
  await esbuildTo(app, out, "worker.js", {
    conditions: ["workerd"],
    loader: { ".wasm": "copy" },
    assetNames: "kernels",
  });
  copyFileSync(join(app, "workerd.capnp"), join(out, "workerd.capnp"));
}

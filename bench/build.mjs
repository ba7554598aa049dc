/**
 * What the benchmark needs beside the library's build: the walls as modules, tfjs for Node, and a bundle a section for
 * browsers.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../", import.meta.url));

export function buildWalls() {
  mkdirSync(join(root, "dist/bench"), { recursive: true });
  const asc = (out, ...options) =>
    execFileSync(
      process.execPath,
      [
        join(root, "node_modules/assemblyscript/bin/asc.js"),
        "bench/wall.ts",
        "--config",
        "none",
        "-o",
        `dist/bench/${out}`,
        "-O3",
        "--noAssert",
        "--runtime",
        "stub",
        "--initialMemory",
        "1040",
        "--enable",
        "simd",
        ...options,
      ],
      { cwd: root, stdio: "inherit" },
    );
  asc("wall.wasm");
  asc("wall_fma.wasm", "--enable", "relaxed-simd", "--use", "FMA=1");
}

/** dist/bench/tfjs.cjs: engines/tfjs_package.mjs for Node. */
export async function bundleTensorFlow() {
  const { build } = await import("esbuild");
  await build({
    entryPoints: [join(root, "bench/engines/tfjs_package.mjs")],
    outfile: join(root, "dist/bench/tfjs.cjs"),
    bundle: true,
    format: "cjs",
    platform: "node",
    mainFields: ["module", "main"],
    logLevel: "error",
  });
}

/** dist/matrix/web/bench-<section>.js, where the matrix's server looks for them; each exports run(). */
export async function bundleSections(sections, options) {
  const { build } = await import("esbuild");
  for (const section of sections) {
    await build({
      stdin: {
        resolveDir: join(root, "bench"),
        contents:
          `import { SECTIONS } from "./sections.mjs"; import { environment } from "./platform.web.mjs";
          export const run = async () => ({ environment: await environment(), ...(await ` +
          `SECTIONS.${section}(${JSON.stringify(options)}, () => {})) });`,
      },
      bundle: true,
      format: "esm",
      target: "es2022",
      outfile: join(root, `dist/matrix/web/bench-${section}.js`),
      logLevel: "error",
      platform: "browser",
      alias: { "#platform": join(root, "bench/platform.web.mjs") },
      loader: { ".wasm": "binary", ".safetensors": "binary" },
      define: { global: "globalThis" },
    });
  }
}

// assembly/ -> build/wasm-lora.wasm, build/wasm-lora.relaxed.wasm and, for tests alone, build/wasm-lora.probes.wasm (asc,
// then wasm-opt); src/runtime/kernels.ts (the exports' types) and src/runtime/wasm_base64.ts (the bytes of the first for
// wasm-lora/inline).
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const target = process.argv.includes("--debug") ? "debug" : "release";
const build = join(root, "build");
mkdirSync(build, { recursive: true });

const run = (script, ...args) => execFileSync(process.execPath, [script, ...args], { cwd: root, stdio: "inherit" });
const asc = join(dirname(require.resolve("assemblyscript/package.json")), "bin", "asc.js");
const wasmOpt = join(dirname(require.resolve("binaryen/package.json")), "bin", "wasm-opt");

const optimise = (name, ...options) => run(wasmOpt, `build/${name}.asc.wasm`, "-o", `build/${name}.wasm`, "-O4", "--converge", "--enable-simd",
  "--enable-bulk-memory", "--enable-sign-ext", "--enable-nontrapping-float-to-int", "--enable-mutable-globals", ...options);

run(asc, "assembly/index.ts", "--target", target, "--bindings", "raw");
if (target === "release") {
  optimise("wasm-lora");
  run(asc, "assembly/index.ts", "assembly/relaxed.ts", "--target", target, "--outFile", "build/wasm-lora.relaxed.asc.wasm", "--use", "RELAXED=1", "--enable", "relaxed-simd");
  optimise("wasm-lora.relaxed", "--enable-relaxed-simd");
  run(asc, "assembly/probes.ts", "--target", target, "--outFile", "build/wasm-lora.probes.asc.wasm");
  optimise("wasm-lora.probes");
  writeFileSync(join(root, "src/runtime/wasm_base64.ts"),
    "// Generated from build/wasm-lora.wasm by scripts/build-wasm.mjs; not in version control.\n" +
    `export const base64: string = "${readFileSync(join(build, "wasm-lora.wasm"), "base64")}";\n`);
  const declarations = readFileSync(join(build, "wasm-lora.asc.d.ts"), "utf8");
  writeFileSync(join(root, "src/runtime/kernels.ts"),
    "// Generated from assembly/ by scripts/build-wasm.mjs; not in version control.\n" +
    declarations.replace(/\/\*\* Instantiates[^]*/, "export type Kernels = typeof __AdaptedExports;\n"));
}

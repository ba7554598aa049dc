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
const tool = (name) => join(dirname(require.resolve("binaryen/package.json")), "bin", name);
const FEATURES = ["simd", "bulk-memory", "sign-ext", "nontrapping-float-to-int", "mutable-globals"].map((feature) => `--enable-${feature}`);

/** build/<name>.asc.wasm optimised, as text: build/<name>.wat. */
function optimise(name, ...options) {
  run(tool("wasm-opt"), `build/${name}.asc.wasm`, "-S", "-o", `build/${name}.wat`, "-O4", "--converge", ...FEATURES, ...options);
  rewrite(`build/${name}.wat`, (text) => text.replace(/\(v128\.const i32x4 (0x[0-9a-f]{8}) \1 \1 \1\)/g, splat));
}

/**
 * Four equal lanes, 18 bytes as a constant, take 4 to 8 as the splat of one: of a float, or of an integer where the bits are no
 * normal float. Engines make the same code of it or faster code (measured).
 */
function splat(_, bits) {
  const [float] = new Float32Array(Uint32Array.of(bits).buffer);
  return Number.isFinite(float) && Math.abs(float) >= 2 ** -126 ? `(f32x4.splat (f32.const ${float}))` : `(i32x4.splat (i32.const ${bits}))`;
}

function rewrite(file, change) {
  writeFileSync(join(root, file), change(readFileSync(join(root, file), "utf8")));
}

const assemble = (name, ...options) => run(tool("wasm-as"), `build/${name}.wat`, "-o", `build/${name}.wasm`, ...FEATURES, ...options);

run(asc, "assembly/index.ts", "--target", target, "--bindings", "raw");
if (target === "release") {
  optimise("wasm-lora");
  assemble("wasm-lora");
  run(asc, "assembly/index.ts", "assembly/relaxed.ts", "--target", target, "--outFile", "build/wasm-lora.relaxed.asc.wasm", "--use", "RELAXED=1", "--enable", "relaxed-simd");
  optimise("wasm-lora.relaxed", "--enable-relaxed-simd");
  assemble("wasm-lora.relaxed", "--enable-relaxed-simd");
  run(asc, "assembly/probes.ts", "--target", target, "--outFile", "build/wasm-lora.probes.asc.wasm");
  optimise("wasm-lora.probes");
  assemble("wasm-lora.probes");
  writeFileSync(join(root, "src/runtime/wasm_base64.ts"),
    "// Generated from build/wasm-lora.wasm by scripts/build-wasm.mjs; not in version control.\n" +
    `export const base64: string = "${readFileSync(join(build, "wasm-lora.wasm"), "base64")}";\n`);
  const declarations = readFileSync(join(build, "wasm-lora.asc.d.ts"), "utf8");
  writeFileSync(join(root, "src/runtime/kernels.ts"),
    "// Generated from assembly/ by scripts/build-wasm.mjs; not in version control.\n" +
    declarations.replace(/\/\*\* Instantiates[^]*/, "export type Kernels = typeof __AdaptedExports;\n"));
}

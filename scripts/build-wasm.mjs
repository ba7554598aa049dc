/**
 * assembly/ -> build/wasm-lora.wasm, build/wasm-lora.relaxed.wasm and, for tests alone, build/wasm-lora.probes.wasm;
 * src/runtime/kernels.ts (the exports' types) and src/runtime/wasm_base64.ts (the bytes of the first for
 * wasm-lora/inline). Nothing is done where all of them were made of the same sources by the same compilers before.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);

/** SHA-256 of what the kernels are made of. */
function digestOfSources() {
  const hash = createHash("sha256");
  const folders = ["assembly", "scripts"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((name) => join(folder, name)),
  );
  const sources = folders.filter((name) => /\.ts$|build-wasm\.mjs$|asc-unrolled\.mjs$/.test(name)).sort();
  for (const name of [...sources, "asconfig.json"]) hash.update(`${name}\0`).update(readFileSync(join(root, name)));
  for (const name of ["assemblyscript", "binaryen"]) hash.update(require(`${name}/package.json`).version);
  return hash.digest("hex");
}

const MADE = [
  "build/wasm-lora.wasm",
  "build/wasm-lora.relaxed.wasm",
  "build/wasm-lora.probes.wasm",
  "src/runtime/kernels.ts",
  "src/runtime/wasm_base64.ts",
];
const stamp = join(root, "build/sources.sha256");
const digest = digestOfSources();
if (MADE.every((name) => existsSync(join(root, name))) && existsSync(stamp) && readFileSync(stamp, "utf8") === digest)
  process.exit();
console.log("Building the kernels, once: half a minute of one core.");
mkdirSync(join(root, "build"), { recursive: true });
// A build that is cut off must not pass for one.
rmSync(stamp, { force: true });

const execute = promisify(execFile);
const run = (script, ...args) => execute(process.execPath, [script, ...args], { cwd: root });
const asc = join(dirname(require.resolve("assemblyscript/package.json")), "bin", "asc.js");
const tool = (name) => join(dirname(require.resolve("binaryen/package.json")), "bin", name);
const FEATURES = ["simd", "bulk-memory", "sign-ext", "nontrapping-float-to-int", "mutable-globals"].map(
  (feature) => `--enable-${feature}`,
);
const NO_OPTIONS = { asc: [], binaryen: [] };
const RELAXED = { asc: ["--use", "RELAXED=1", "--enable", "relaxed-simd"], binaryen: ["--enable-relaxed-simd"] };

/** The kernels but for the register tiles: build/<name>.wat. */
async function compile(name, entries, options = NO_OPTIONS) {
  await run(
    asc,
    ...entries,
    "--target",
    "release",
    "--bindings",
    "raw",
    "--outFile",
    `build/${name}.asc.wasm`,
    ...options.asc,
  );
  await run(
    tool("wasm-opt"),
    `build/${name}.asc.wasm`,
    "-S",
    "-o",
    `build/${name}.wat`,
    "-O4",
    "--converge",
    ...FEATURES,
    ...options.binaryen,
  );
  rewrite(`build/${name}.wat`, shorten);
}

/**
 * Four equal lanes, 18 bytes as a constant, take 4 to 8 as the splat of one: of a float, or of an integer where the
 * bits are no normal float. Engines make the same code of it or faster code (measured).
 */
function shorten(text) {
  return text.replace(/\(v128\.const i32x4 (0x[0-9a-f]{8}) \1 \1 \1\)/g, splat);
}

function splat(_, bits) {
  const [float] = new Float32Array(Uint32Array.of(bits).buffer);
  return Number.isFinite(float) && Math.abs(float) >= 2 ** -126
    ? `(f32x4.splat (f32.const ${float}))`
    : `(i32x4.splat (i32.const ${bits}))`;
}

function rewrite(file, change) {
  writeFileSync(join(root, file), change(readFileSync(join(root, file), "utf8")));
}

/** The register tiles, in the order in which they are written (see assembly/gemm/micro.ts): build/<name>.micro.wat. */
async function compileTiles(name, bigTile, options) {
  const sources = ["micro", "rank4", "gemv", bigTile].map((file) => `assembly/gemm/${file}.ts`);
  await run(
    "scripts/asc-unrolled.mjs",
    ...sources,
    "--config",
    "none",
    "-O0",
    "--noAssert",
    "--runtime",
    "stub",
    "--importMemory",
    "--noExportMemory",
    "--enable",
    "simd",
    "--outFile",
    `build/${name}.micro.asc.wasm`,
    ...options.asc,
  );
  await run(
    tool("wasm-opt"),
    `build/${name}.micro.asc.wasm`,
    "-S",
    "-o",
    `build/${name}.micro.wat`,
    ...TIDY,
    ...FEATURES,
    ...options.binaryen,
  );
  // The one memory is that of the other kernels, which import it.
  rewrite(`build/${name}.micro.wat`, (text) => shorten(text.replace('"env" "memory"', '"main" "memory"')));
}

/**
 * Compile-time choices made, fewer locals and blocks. No pass that nests one expression in another: that would change
 * the order.
 */
const TIDY = [
  "--precompute-propagate",
  "--remove-unused-brs",
  "--merge-blocks",
  "--simplify-locals-nonesting",
  "--optimize-instructions",
  "--coalesce-locals",
  "--simplify-locals-nonesting",
  "--vacuum",
  "--coalesce-locals",
  "--reorder-locals",
  "--vacuum",
];

async function build(name, entries, bigTile, options = NO_OPTIONS) {
  await Promise.all([compile(name, entries, options), compileTiles(name, bigTile, options)]);
  await run(
    tool("wasm-merge"),
    `build/${name}.wat`,
    "main",
    `build/${name}.micro.wat`,
    "micro",
    "-o",
    `build/${name}.wasm`,
    ...FEATURES,
    ...options.binaryen,
  );
}

await Promise.all([
  build("wasm-lora", ["assembly/index.ts"], "micro2x16by8"),
  build("wasm-lora.relaxed", ["assembly/index.ts", "assembly/relaxed.ts"], "micro6x8", RELAXED),
  compile("wasm-lora.probes", ["assembly/probes.ts"]).then(() =>
    run(tool("wasm-as"), "build/wasm-lora.probes.wat", "-o", "build/wasm-lora.probes.wasm", ...FEATURES),
  ),
]);

writeFileSync(
  join(root, "src/runtime/wasm_base64.ts"),
  "// Generated from build/wasm-lora.wasm by scripts/build-wasm.mjs; not in version control.\n" +
    `export const base64: string = "${readFileSync(join(root, "build/wasm-lora.wasm"), "base64")}";\n`,
);
const declarations = readFileSync(join(root, "build/wasm-lora.asc.d.ts"), "utf8");
writeFileSync(
  join(root, "src/runtime/kernels.ts"),
  "// Generated from assembly/ by scripts/build-wasm.mjs; not in version control.\n" +
    declarations.replace(/\/\*\* Instantiates[^]*/, "export type Kernels = typeof __AdaptedExports;\n"),
);
writeFileSync(stamp, digest);

/**
 * assembly/ -> three modules in build/, and what TypeScript knows of them in src/runtime/. Nothing is done where all of
 * it was made of the same sources by the same compilers before.
 *
 *   module              asc                          wasm-opt            text               then
 *   wasm-lora           index.ts                     -O4                 shorten            |
 *     its tiles         micro, rank4, gemv,          TIDY: order kept    memory of main,    | wasm-merge -> .wasm
 *                       micro2x16by8; unrolled, -O0                      shorten            |
 *   wasm-lora.fused     the same, FUSED=1, with fused.ts and micro6x8
 *   wasm-lora.traced    the first, TRACE=1; only with --traced, and nothing else then
 *   wasm-lora.probes    probes.ts (for tests)        -O4                 shorten            wasm-as -> .wasm
 *
 *   src/runtime/abi.ts          of the first, while asc compiles it: the kernels' types and call blocks (asc-abi.mjs)
 *   src/runtime/wasm_base64.ts  the bytes of the first, for wasm-lora/inline
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
  const sources = folders.filter((name) => /\.ts$|build-wasm\.mjs$|asc-\w+\.mjs$/.test(name)).sort();
  for (const name of [...sources, "asconfig.json"]) hash.update(`${name}\0`).update(readFileSync(join(root, name)));
  for (const name of ["assemblyscript", "binaryen"]) hash.update(require(`${name}/package.json`).version);
  return hash.digest("hex");
}

/** For bench/balance.mjs, instead: a module that tells of each part of the kernels' loops (assembly/threads.ts). */
const isTraced = process.argv.includes("--traced");
const USUAL = [
  "build/wasm-lora.wasm",
  "build/wasm-lora.fused.wasm",
  "build/wasm-lora.probes.wasm",
  "src/runtime/abi.ts",
  "src/runtime/wasm_base64.ts",
];
const MADE = isTraced ? ["build/wasm-lora.traced.wasm"] : USUAL;
const stamp = join(root, isTraced ? "build/traced.sha256" : "build/sources.sha256");
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
const FEATURES = ["simd", "threads", "bulk-memory", "sign-ext", "nontrapping-float-to-int", "mutable-globals"].map(
  (feature) => `--enable-${feature}`,
);
const DEFAULT = { asc: ["--transform", "./scripts/asc-abi.mjs"], tiles: [], binaryen: [] };
const FUSE = ["--use", "FUSED=1", "--enable", "relaxed-simd"];
const FUSED = { asc: FUSE, tiles: FUSE, binaryen: ["--enable-relaxed-simd"] };
const TRACED = { asc: ["--use", "TRACE=1"], tiles: [], binaryen: [] };
const PROBES = { asc: [], binaryen: [] };

/** For tiles: alone, in text order, on the other kernels' memory. */
const ALONE = "--config none -O0 --noAssert --runtime stub --importMemory --noExportMemory --enable simd".split(" ");
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

/** A module in text form, by the passes given: build/<name>.wat. */
function optimise(name, passes, options) {
  const [from, to] = [`build/${name}.asc.wasm`, `build/${name}.wat`];
  return run(tool("wasm-opt"), from, "-S", "-o", to, ...passes, ...FEATURES, ...options.binaryen);
}

/** The kernels but for the register tiles. */
async function compile(name, entries, options) {
  await run(asc, ...entries, "--target", "release", "--outFile", `build/${name}.asc.wasm`, ...options.asc);
  await optimise(name, ["-O4", "--converge"], options);
  replace(`build/${name}.wat`, SAME_LANES, splat);
}

/** The register tiles, in the order in which they are written (see assembly/gemm/micro.ts). */
async function compileTiles(name, bigTile, options) {
  const sources = ["micro", "rank4", "gemv", bigTile].map((file) => `assembly/gemm/${file}.ts`);
  await run("scripts/asc-unrolled.mjs", ...sources, ...ALONE, "--outFile", `build/${name}.asc.wasm`, ...options.tiles);
  await optimise(name, TIDY, options);
  // The one memory is that of the other kernels, which import it.
  replace(`build/${name}.wat`, '"env" "memory"', '"main" "memory"');
  replace(`build/${name}.wat`, SAME_LANES, splat);
}

/** @throws if there is nothing to replace: then a compiler writes something else than this script was made for */
function replace(file, what, by) {
  const before = readFileSync(join(root, file), "utf8");
  const after = before.replace(what, by);
  if (after === before) throw new Error(`${file} has nothing like ${what} any more; look at what the compilers write.`);
  writeFileSync(join(root, file), after);
}

/**
 * Four equal lanes, 18 bytes as a constant, take 4 to 8 as the splat of one: of a float, or of an integer where the
 * bits are no normal float. Engines make the same code of it or faster code (measured).
 */
const SAME_LANES = /\(v128\.const i32x4 (0x[0-9a-f]{8}) \1 \1 \1\)/g;
function splat(_, bits) {
  const [float] = new Float32Array(Uint32Array.of(bits).buffer);
  return Number.isFinite(float) && Math.abs(float) >= 2 ** -126
    ? `(f32x4.splat (f32.const ${float}))`
    : `(i32x4.splat (i32.const ${bits}))`;
}

async function build(name, entries, bigTile, options) {
  await Promise.all([compile(name, entries, options), compileTiles(`${name}.micro`, bigTile, options)]);
  const parts = [`build/${name}.wat`, "main", `build/${name}.micro.wat`, "micro"];
  await run(tool("wasm-merge"), ...parts, "-o", `build/${name}.wasm`, ...FEATURES, ...options.binaryen);
}

async function buildProbes(name) {
  await compile(name, ["assembly/probes.ts"], PROBES);
  await run(tool("wasm-as"), `build/${name}.wat`, "-o", `build/${name}.wasm`, ...FEATURES);
}

if (isTraced) {
  await build("wasm-lora.traced", ["assembly/index.ts"], "micro2x16by8", TRACED);
  writeFileSync(stamp, digest);
  process.exit();
}
await Promise.all([
  build("wasm-lora", ["assembly/index.ts"], "micro2x16by8", DEFAULT),
  build("wasm-lora.fused", ["assembly/index.ts", "assembly/fused.ts"], "micro6x8", FUSED),
  buildProbes("wasm-lora.probes"),
]);

writeFileSync(
  join(root, "src/runtime/wasm_base64.ts"),
  "// Generated from build/wasm-lora.wasm by scripts/build-wasm.mjs; not in version control.\n" +
    `export const base64: string = "${readFileSync(join(root, "build/wasm-lora.wasm"), "base64")}";\n`,
);
writeFileSync(stamp, digest);

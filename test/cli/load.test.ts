/** The kernels' file where it cannot be had: from a disk, and from a server. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { EngineError } from "../../src/index.js";
import { loadModule as fetchModule } from "../../src/runtime/load.web.js";
import { ROOT } from "../support/root.js";

const root = fileURLToPath(ROOT);
const INIT = "init().then(() => console.log('loaded'), ({ name, message }) => console.log(`${name}: ${message}`));";

async function initIn(folder: string, ...flags: string[]): Promise<string> {
  const code = `import { init } from ${JSON.stringify(`${folder}/dist/src/index.js`)};\n${INIT}`;
  return (await promisify(execFile)(process.execPath, [...flags, "--input-type=module", "-e", code], { cwd: folder }))
    .stdout;
}

test("a file that may not be read is not called missing", async () => {
  const flag = process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
  const said = await initIn(
    root,
    flag,
    ...["dist/*", "node_modules/*", "package.json"].map((path) => `--allow-fs-read=${root}${path}`),
  );
  assert.match(
    said,
    /^EngineError: init: the kernels at .*wasm-lora\.wasm may not be read: allow it .*--allow-read.*--allow-fs-read/,
  );
  assert.doesNotMatch(said, /missing|npm run build/);
});

test("nor is a model, or a place to write to, where that is not permitted", async () => {
  const flag = process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
  const flags = [
    flag,
    ...["dist/*", "build/*", "node_modules/*", "package.json"].map((path) => `--allow-fs-read=${root}${path}`),
  ];
  const code =
    `import { init, io, models } from ${JSON.stringify(`${root}dist/src/index.js`)};\nawait init();\n` +
    `const said = async (use) => { try { await use(); } catch ({ name, message }) { console.log(name + ": " + ` +
    `message); } };\n` +
    'await said(() => models.loadBase()); await said(() => models.loadModel("models/base"));\n' +
    'await said(() => io.saveStateDict("a.safetensors", new Map([["a", { shape: [1], data: new Float32Array(1) }]])));';
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, "--input-type=module", "-e", code], {
    cwd: root,
  });
  const lines = stdout.trim().split("\n");
  assert.equal(lines.length, 3);
  for (const line of lines)
    assert.match(
      line,
      /^FileError: cannot .*the runtime does not permit it; allow it .*--allow-read.*--allow-fs-write/,
    );
});

test("a file that is not there, and one that is something else", async () => {
  const folder = mkdtempSync(join(tmpdir(), "wasm-lora-load-"));
  try {
    cpSync(join(root, "dist/src"), join(folder, "dist/src"), { recursive: true });
    cpSync(join(root, "package.json"), join(folder, "package.json"));
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    assert.match(
      await initIn(folder),
      /^EngineError: init: the kernels at .*wasm-lora\.wasm are missing: .*npm run build.*wasm-lora\/inline/,
    );
    cpSync(join(root, "build/wasm-lora.wasm"), join(folder, "build/wasm-lora.wasm"));
    assert.equal(await initIn(folder), "loaded\n");
    writeFileSync(join(folder, "build/wasm-lora.wasm"), "version https://git-lfs.github.com/spec/v1\n");
    assert.match(
      await initIn(folder),
      /^EngineError: init: .*wasm-lora\.wasm is something else instead of the kernels/,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a server's answers", async () => {
  const original = globalThis.fetch;
  const answer = (make: () => Response): void => {
    globalThis.fetch = async () => make();
  };
  const refused = (...words: string[]) =>
    assert.rejects(
      fetchModule({ fused: false, shared: false }),
      (e: unknown) =>
        e instanceof EngineError &&
        ["build/wasm-lora.wasm", "init({ module })", ...words].every((word) => e.message.includes(word)),
    );
  try {
    answer(() => new Response("Not found", { status: 404 }));
    await refused("the server answered 404");
    answer(() => new Response("<!doctype html><title>My app</title>"));
    await refused("an HTML page");
    answer(() => {
      throw new TypeError("Failed to fetch");
    });
    await refused("Failed to fetch");
    answer(() => new Response(readFileSync(`${root}build/wasm-lora.wasm`)));
    assert((await fetchModule({ fused: false, shared: false })) instanceof WebAssembly.Module);
  } finally {
    globalThis.fetch = original;
  }
});

test.run();

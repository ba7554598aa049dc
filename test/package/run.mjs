/**
 * The package as its users get it: packed, installed from the tarball, linted, bundled and run. The digest of a short
 * training must be the same everywhere.
 *
 *   npm run test:package
 */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { digestAt, digestOfPage } from "./browser.mjs";
import * as bundle from "./bundle.mjs";
import { expectedContents } from "./contents.mjs";

const here = fileURLToPath(new URL(".", import.meta.url)), root = join(here, "../.."), bin = join(here, "node_modules/.bin");
const work = mkdtempSync(join(tmpdir(), "wasm-lora-package-")), app = join(work, "app");
process.on("exit", () => rmSync(work, { recursive: true, force: true }));

const run = async (command, args, cwd = work) => {
  try {
    return (await promisify(execFile)(command, args, { cwd, maxBuffer: 1 << 26 })).stdout;
  } catch (error) {
    throw new Error(`${command} ${args.join(" ")}\n${error.stdout}${error.stderr}`);
  }
};

let passed = 0, failed = 0;
async function check(name, body) {
  const start = performance.now();
  process.stdout.write(`${name} ... `);
  try {
    await body();
    passed++;
    console.log(`ok (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed++;
    console.log(`FAILED\n  ${String(error.message).trim().replaceAll("\n", "\n  ")}`);
  }
}

let tarball = "", digest = "";

await check("pack", async () => {
  const [{ filename, files }] = JSON.parse(await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", work], root));
  tarball = join(work, filename);
  assert.deepEqual(files.map(({ path }) => path).sort(), expectedContents(root));
});

await check("install the tarball", async () => {
  cpSync(join(here, "app"), app, { recursive: true });
  writeFileSync(join(app, "package.json"), JSON.stringify({ name: "app", private: true, type: "module" }));
  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", tarball], app);
});

const installed = join(app, "node_modules/wasm-lora");

await check("nothing runs on installation", () => {
  const { scripts } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  for (const script of ["preinstall", "install", "postinstall", "prepare"]) assert.equal(scripts[script], undefined);
});

await check("no code is generated at run time", () => {
  for (const file of readdirSync(join(installed, "dist"), { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".js"))) {
    assert.doesNotMatch(readFileSync(join(installed, "dist", file), "utf8"), /(?<![.\w])eval\((?!\))|\bnew Function\b/, file);
  }
});

await check("publint", () => run(join(bin, "publint"), ["run", tarball, "--strict"]));

// What importing the wasm gives is the bundler's affair (a URL, bytes, a module), so it has no types.
await check("Are the types wrong?", () => run(join(bin, "attw"), [tarball, "--profile", "esm-only", "--exclude-entrypoints", "./wasm-lora.wasm", "./wasm-lora.relaxed.wasm", "./models/base/*"]));

for (const [module, resolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
  await check(`TypeScript, moduleResolution ${resolution}`, () => run(process.execPath, [createRequire(join(root, "package.json")).resolve("typescript/lib/tsc.js"),
    "--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,esnext.disposable,dom", "--module", module, "--moduleResolution", resolution, join(app, "types.ts")], app));
}

await check("Node", async () => {
  digest = (await run(process.execPath, ["--disallow-code-generation-from-strings", join(app, "node.js")])).trim();
  assert.match(digest, /^[0-9a-f]{64}$/);
});

await check("Node, inline", async () => assert.equal((await run(process.execPath, [join(app, "node_inline.js")])).trim(), digest));

await check("the command", async () => assert.match(await run(join(app, "node_modules/.bin/wasm-lora"), ["--help"]), /finetune/));

const folder = (name) => {
  const path = join(work, name);
  mkdirSync(path);
  return path;
};

await check("Deno", async () => assert.equal((await run(join(bin, "deno"), ["run", "-A", join(app, "node.js")], app)).trim(), digest));

/** The package as JSR gets it, with an app beside it whose imports are answered as JSR would. */
const jsr = join(work, "jsr");

await check("JSR's rules", async () => {
  for (const path of ["LICENSE", "README.md", "jsr.json", "dist/src", "scripts/jsr.mjs"]) cpSync(join(root, path), join(jsr, path), { recursive: true });
  await run(process.execPath, ["scripts/jsr.mjs"], jsr);
  await run(join(bin, "deno"), ["publish", "--dry-run"], jsr);
});

await check("Deno, JSR's files", async () => {
  const { imports, exports, version } = JSON.parse(readFileSync(join(jsr, "jsr.json"), "utf8"));
  assert.equal(version, JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version);
  imports["wasm-lora"] = exports["."];
  imports["wasm-lora/inline"] = exports["./inline"];
  writeFileSync(join(jsr, "deno.json"), JSON.stringify({ imports }));
  cpSync(join(here, "app"), join(jsr, "app"), { recursive: true });
  await run(join(bin, "deno"), ["check", "app/types.ts"], jsr);
  assert.equal((await run(join(bin, "deno"), ["run", "app/node.js"], jsr)).trim(), digest, "without permissions");
});

for (const [name, build] of [["Vite", bundle.withVite], ["webpack", bundle.withWebpack], ["Rollup", bundle.withRollup], ["esbuild", bundle.withEsbuild]]) {
  await check(`${name}, Chromium`, async () => {
    const out = folder(name), wasm = ({ requests }) => requests.filter((path) => path.endsWith(".wasm"));
    await build(app, out);
    const page = await digestOfPage(out);
    assert.equal(page.digest, digest);
    assert.equal(wasm(page).length, 1, `requests: ${page.requests.join(" ")}`);
    if (name === "esbuild") return; // which is given the file's URL
    // One file, and another: the relaxed build was there and ran. Its bits are the machine's.
    const relaxed = await digestOfPage(out, "?relaxed");
    assert.match(relaxed.digest, /^[0-9a-f]{64}$/);
    assert.equal(wasm(relaxed).length, 1, `requests: ${relaxed.requests.join(" ")}`);
    assert.notEqual(wasm(relaxed)[0], wasm(page)[0]);
  });
}

await check("Vite's development server, Chromium", () => bundle.withViteServer(app, async (address) => assert.equal(await digestAt(address), digest)));

await check("esbuild, a single file, Chromium", async () => {
  const out = folder("inline");
  await bundle.withEsbuildInline(app, out);
  assert.deepEqual(readdirSync(out).sort(), ["index.html", "main.js"]);
  const page = await digestOfPage(out);
  assert.equal(page.digest, digest);
  assert.deepEqual(page.requests, ["/", "/main.js"]);
});

await check("esbuild, a single file, Node", async () => {
  const out = folder("node");
  await bundle.withEsbuildForNode(app, out);
  assert.deepEqual(readdirSync(out), ["main.mjs"]);
  assert.equal((await run(process.execPath, [join(out, "main.mjs")])).trim(), digest);
});

await check("esbuild, workerd", async () => {
  const out = folder("workerd");
  await bundle.withEsbuildForWorkerd(app, out);
  assert.deepEqual(readdirSync(out).sort(), ["kernels.wasm", "main.js", "workerd.capnp"]);
  const port = await freePort();
  const workerd = spawn(join(bin, "workerd"), ["serve", "workerd.capnp", "--socket-addr", `http=127.0.0.1:${port}`], { cwd: out, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  workerd.stderr.on("data", (data) => { log += data; });
  try {
    const answer = await fetchWhenUp(`http://127.0.0.1:${port}/`);
    assert.equal(answer, digest, log);
  } finally {
    workerd.kill();
  }
});

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function fetchWhenUp(address) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await (await fetch(address)).text();
    } catch (error) {
      if (attempt === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

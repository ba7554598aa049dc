/**
 * The package as its users get it: packed, installed from the tarball, linted, bundled and run. The digest of a short
 * training must be the same everywhere.
 *
 *   npm run test:package
 */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import workerdPackage from "workerd";
import { digestAt, digestOfPage, faultUnderPolicy, POLICY, WITH_THREADS } from "./browser.mjs";
import * as bundle from "./bundle.mjs";
import { expectedContents } from "./contents.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "../..");
const bin = join(here, "node_modules/.bin");
const work = mkdtempSync(join(tmpdir(), "wasm-lora-package-"));
const app = join(work, "app");
process.on("exit", () => rmSync(work, { recursive: true, force: true }));

const run = async (command, args, cwd = work, env = {}) => {
  try {
    return (await promisify(execFile)(command, args, { cwd, maxBuffer: 1 << 26, env: { ...process.env, ...env } }))
      .stdout;
  } catch (error) {
    throw new Error(`${command} ${args.join(" ")}\n${error.stdout}${error.stderr}`);
  }
};

let passed = 0;
let failed = 0;
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

const folder = (name) => {
  const path = join(work, name);
  mkdirSync(path);
  return path;
};

let tarball = "";
let digest = "";

await check("pack", async () => {
  const [{ filename, files }] = JSON.parse(
    await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", work], root),
  );
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
  for (const script of ["preinstall", "install", "postinstall"]) assert.equal(scripts[script], undefined);
});

// npm runs "prepare" for it, with the development dependencies, and packs what that has made.
await check("install from git", async () => {
  const sources = folder("sources");
  const project = folder("from-git");
  const names = (await run("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], root))
    .split("\0")
    .filter((name) => existsSync(join(root, name)) && name);
  for (const name of names) cpSync(join(root, name), join(sources, name));
  const identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
  for (const args of [
    ["init", "--quiet"],
    ["add", "--all"],
    [...identity, "commit", "--quiet", "--message", "all"],
  ])
    await run("git", args, sources);
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "project", private: true, type: "module" }));
  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", `git+file://${sources}`], project);
  const packed = readdirSync(join(project, "node_modules/wasm-lora"), { recursive: true, withFileTypes: true }).filter(
    (entry) => entry.isFile(),
  );
  assert.deepEqual(
    packed
      .map(({ parentPath, name }) => relative(join(project, "node_modules/wasm-lora"), join(parentPath, name)))
      .sort(),
    expectedContents(root),
  );
  for (const file of ["node.js", "train.js"]) cpSync(join(here, "app", file), join(project, file));
  assert.match(await run(process.execPath, ["node.js"], project), /^[0-9a-f]{64}\n$/);
});

await check("no code is generated at run time", () => {
  for (const file of readdirSync(join(installed, "dist"), { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".js"),
  )) {
    assert.doesNotMatch(
      readFileSync(join(installed, "dist", file), "utf8"),
      /(?<![.\w])eval\((?!\))|\bnew Function\b/,
      file,
    );
  }
});

await check("publint", () => run(join(bin, "publint"), ["run", tarball, "--strict"]));

// What importing the wasm gives is the bundler's affair (a URL, bytes, a module), so it has no types.
await check("Are the types wrong?", () =>
  run(join(bin, "attw"), [
    tarball,
    "--profile",
    "esm-only",
    "--exclude-entrypoints",
    "./wasm-lora.wasm",
    "./wasm-lora.fused.wasm",
    "./models/base/*",
  ]),
);

/**
 * Strict projects that check our declarations, too, with an old library, with none that knows a page, and with
 * TypeScript's default one.
 */
const TYPESCRIPT = {
  5.0: "typescript-5.0",
  5: "typescript-5",
  6: join(root, "node_modules/typescript"),
  7: "typescript-7",
};
const PROJECTS = [
  { module: "nodenext", lib: ["es2022"], versions: [5.0, 5, 6, 7] },
  { module: "nodenext", lib: ["es2022", "dom"], versions: [5.0, 5, 6, 7] },
  { module: "nodenext", target: "es2024", versions: [5, 6, 7] },
  { module: "nodenext", lib: ["esnext", "dom"], versions: [5, 6, 7] },
  { module: "node16", lib: ["es2022"], versions: [5, 6, 7] },
  { module: "esnext", moduleResolution: "bundler", lib: ["es2022", "dom"], versions: [5, 6, 7] },
  { module: "es2022", moduleResolution: "node10", lib: ["es2022"], versions: [5.0, 5] },
  { module: "nodenext", lib: ["es2022"], file: "require.cts", versions: [5, 6, 7] },
];
for (const { versions, file = "types.ts", ...options } of PROJECTS) {
  await check(`TypeScript ${versions.join(", ")}: ${file}, ${Object.values(options).join(", ")}`, async () => {
    const compilerOptions = {
      strict: true,
      noEmit: true,
      skipLibCheck: false,
      exactOptionalPropertyTypes: true,
      types: [],
      target: "es2022",
      ...options,
    };
    writeFileSync(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions, files: [file] }));
    for (const version of versions)
      await run(
        process.execPath,
        [join(resolve(join(here, "node_modules"), TYPESCRIPT[version]), "bin/tsc"), "-p", "."],
        app,
      );
  });
}

await check("an option may be undefined, under exactOptionalPropertyTypes too", () => {
  const strict = [];
  for (const file of readdirSync(join(installed, "dist"), { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".d.ts"),
  )) {
    for (const [line] of readFileSync(join(installed, "dist", file), "utf8").matchAll(
      /^ +(?:readonly )?\w+\?: .*;$|\bPartial<.*/gm,
    )) {
      // A parameter ends in a bracket that opened before it.
      if (!/\| undefined;$|^[^(]*\);$/.test(line)) strict.push(`${file}: ${line.trim()}`);
    }
  }
  assert.deepEqual(strict, []);
});

await check("Node", async () => {
  digest = (await run(process.execPath, ["--disallow-code-generation-from-strings", join(app, "node.js")])).trim();
  assert.match(digest, /^[0-9a-f]{64}$/);
});

await check("Node, inline", async () =>
  assert.equal((await run(process.execPath, [join(app, "node_inline.js")])).trim(), digest),
);

// Node 20.19 and later.
let said = "";
await check("the embedded model, Node", async () => {
  said = (await run(process.execPath, [join(app, "node_base.js")])).slice(0, -1);
  assert.match(said, /^-Citizens of the/);
});

await check("require() from CommonJS", async () =>
  assert.equal(await run(process.execPath, ["require.cjs"], app), "3\n"),
);

// jsdom has neither fetch nor a file system's modules; its tests have the kernels inside.
for (const [environment, file] of [
  ["node", "lora.test.js"],
  ["jsdom", "jsdom.test.js"],
]) {
  await check(`Jest, ${environment}`, async () => {
    const out = await run(
      process.execPath,
      [
        join(here, "node_modules/jest/bin/jest.js"),
        "--rootDir",
        app,
        "--env",
        environment === "node" ? "node" : join(here, "node_modules/jest-environment-jsdom"),
        "--testMatch",
        `**/${file}`,
      ],
      app,
      { NODE_OPTIONS: "--experimental-vm-modules" },
    );
    assert.equal(out, "");
  });
}

await check("vitest", () => {
  symlinkSync(join(here, "node_modules/vitest"), join(app, "node_modules/vitest"));
  return run(process.execPath, [join(here, "node_modules/vitest/vitest.mjs"), "run", "--root", app, "--globals"], app);
});

await check("the command", async () =>
  assert.match(await run(join(app, "node_modules/.bin/wasm-lora"), ["--help"]), /finetune/),
);

await check("Deno", async () => {
  assert.equal((await run(join(bin, "deno"), ["run", "--allow-read", join(app, "node.js")], app)).trim(), digest);
  assert.match(
    await run(join(bin, "deno"), ["run", "--no-prompt", "--allow-read=dist", join(app, "node.js")], app),
    /^EngineError: .*may not be read: allow it .*--allow-read/,
  );
});

/** The package as JSR gets it, with an app beside it whose imports are answered as JSR would. */
const jsr = join(work, "jsr");

await check("JSR's rules", async () => {
  for (const path of ["LICENSE", "README.md", "jsr.json", "dist/src", "models/base", "scripts/jsr.mjs"])
    cpSync(join(root, path), join(jsr, path), { recursive: true });
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
  assert.equal(
    (await run(join(bin, "deno"), ["run", "app/node_threads.js"], jsr)).trim(),
    `2: ${digest}`,
    "threads, without permissions",
  );
  assert.equal(
    (await run(join(bin, "deno"), ["run", "--allow-read", "app/node_base.js"], jsr)).slice(0, -1),
    said,
    "the embedded model",
  );
});

/** Their source is that of a function, as the bundler has left it. Where the policy forbids them one computes. */
async function countThreads(out, adapted = (policy) => policy) {
  assert.equal((await digestOfPage(out, "?threads", adapted(WITH_THREADS))).digest, `2: ${digest}`);
  assert.equal((await digestOfPage(out, "?threads", adapted(POLICY))).digest, `1: ${digest}`);
}

for (const [name, build] of [
  ["Vite", bundle.withVite],
  ["webpack", bundle.withWebpack],
  ["Rollup", bundle.withRollup],
  ["esbuild", bundle.withEsbuild],
]) {
  await check(`${name}, Chromium`, async () => {
    const out = folder(name);
    const wasm = ({ requests }) => requests.filter((path) => path.endsWith(".wasm"));
    await build(app, out);
    const page = await digestOfPage(out);
    assert.equal(page.digest, digest);
    assert.equal(wasm(page).length, 1, `requests: ${page.requests.join(" ")}`);
    if (name === "esbuild") return; // which is given the file's URL
    assert.equal((await digestOfPage(out, "?base")).digest, said, "the embedded model");
    // One file, and another: the fused build was there and ran. Its bits are others.
    const fused = await digestOfPage(out, "?fused");
    assert.match(fused.digest, /^[0-9a-f]{64}$/);
    assert.notEqual(fused.digest, digest);
    assert.equal(wasm(fused).length, 1, `requests: ${fused.requests.join(" ")}`);
    assert.notEqual(wasm(fused)[0], wasm(page)[0]);
    await countThreads(out);
  });
}

await check("Vite's development server, Chromium", () =>
  bundle.withViteServer(app, async (address) => assert.equal(await digestAt(address), digest)),
);

await check("esbuild, a single file, Chromium", async () => {
  const out = folder("inline");
  await bundle.withEsbuildInline(app, out);
  assert.deepEqual(readdirSync(out).sort(), ["index.html", "main.js"]);
  const page = await digestOfPage(out);
  assert.equal(page.digest, digest);
  assert.deepEqual(page.requests, ["/", "/main.js"]);
});

await check("no bundler, the single file, Chromium", async () => {
  const out = folder("nothing");
  bundle.withNothing(app, out);
  const page = await digestOfPage(out);
  assert.equal(page.digest, digest);
  assert(page.requests.includes("/dist/wasm-lora.browser.js"));
  assert.equal((await digestOfPage(out, "?base")).digest, said, "the embedded model");
  await countThreads(out);
});

for (const name of ["nothing", "Vite"]) {
  await check(`a policy that forbids WebAssembly is named (${name})`, async () =>
    assert.match(await faultUnderPolicy(join(work, name)), /EngineError: .*add 'wasm-unsafe-eval' to its script-src/),
  );
}

for (const packageExports of [false, true]) {
  await check(`Parcel, packageExports ${packageExports}, Chromium`, async () => {
    const out = folder(`parcel-${packageExports}`);
    bundle.withParcel(app, out, packageExports);
    // Parcel writes an import map into the page.
    const inline = (policy) => policy.replace("script-src", "script-src 'unsafe-inline'");
    const page = await digestOfPage(out, "", inline(POLICY));
    assert.equal(page.digest, digest);
    await countThreads(out, inline);
    assert.equal(
      page.requests.some((path) => path.endsWith(".wasm")),
      packageExports,
      `requests: ${page.requests.join(" ")}`,
    );
  });
}

for (const format of ["esm", "cjs"]) {
  await check(`esbuild, a single file for Node, ${format}`, async () => {
    const out = folder(`node-${format}`);
    const program = await bundle.withEsbuildForNode(app, out, format, "node_inline.js");
    assert.equal(readdirSync(out).length, 1);
    assert.equal((await run(process.execPath, [program])).trim(), digest);
    const model = await bundle.withEsbuildForNode(app, out, format, "node_base.js");
    assert.match(await run(process.execPath, [model]), /^(File|Engine)Error: .*models\/base/);
    const threads = await bundle.withEsbuildForNode(app, out, format, "node_threads.js");
    assert.equal((await run(process.execPath, [threads])).trim(), `2: ${digest}`);
    const without = await bundle.withEsbuildForNode(app, out, format, "node.js");
    assert.match(await run(process.execPath, [without]), /^EngineError: init: the kernels .*wasm-lora\/inline/);
  });
}

await check("webpack, for Node", async () => {
  const program = await bundle.withWebpackForNode(app, folder("webpack-node"));
  assert.equal((await run(process.execPath, [program])).slice(0, -1), digest + said);
});

await check("esbuild, workerd", async () => {
  const out = folder("workerd");
  await bundle.withEsbuildForWorkerd(app, out);
  assert.deepEqual(readdirSync(out).sort(), ["kernels.wasm", "main.js", "workerd.capnp"]);
  const port = await freePort();
  const workerd = spawn(workerdPackage.default, ["serve", "workerd.capnp", "--socket-addr", `http=127.0.0.1:${port}`], {
    cwd: out,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  workerd.stderr.on("data", (data) => {
    log += data;
  });
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

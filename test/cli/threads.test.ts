/**
 * Life and death of threads in Node: programs of their own, whose threads are counted by the system, idle, are killed
 * or are not to be had.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { test } from "uvu";
import { spawn } from "../../src/runtime/spawn.node.js";
import type { ThreadStart } from "../../src/runtime/thread.js";
import "../support/environment.js";
import { ROOT } from "../support/root.js";

const library = new URL("dist/src/index.js", ROOT).href;
const SYSTEM = "/proc/self/task";

/** What a program begins with: the library, a product worth dividing, all workers that it starts, and their number. */
const PROLOGUE = `
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import threads from "node:worker_threads";
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const started = [];
globalThis.inject = "";
threads.Worker = class extends threads.Worker {
  constructor(code, options) {
    super(globalThis.inject + code, options);
    started.push(this);
  }
};
syncBuiltinESMExports();
const { init, ops, tensor, EngineError } = await import(${JSON.stringify(library)});
const numbers = (rows, columns) =>
  tensor(Float32Array.from({ length: rows * columns }, (_, i) => ((i * 37) % 101) / 50 - 1), [rows, columns]);
const product = () => {
  const [a, b] = [numbers(256, 384), numbers(384, 320)];
  const c = ops.matmul(a, b);
  const copy = c.data.slice();
  for (const t of [a, b, c]) t.dispose();
  return copy;
};
const systemThreads = () => readdirSync("${SYSTEM}").length;
`;

function run(program: string, ...options: string[]): { stdout: string; stderr: string; seconds: number } {
  const begin = performance.now();
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    [...options, "--input-type=module", "--eval", PROLOGUE + program],
    { encoding: "utf8", timeout: 300_000 },
  );
  assert.equal(status, 0, `${signal}: ${stderr}`);
  return { stdout, stderr, seconds: (performance.now() - begin) / 1000 };
}

test("a program ends although its engine was not closed and its threads wait", () => {
  const { stderr } = run("assert.equal((await init({ threads: 3 })).threads, 3); product();");
  assert.equal(stderr, "");
});

(existsSync(SYSTEM) ? test : test.skip)("close ends all threads", () => {
  const { stderr } = run(`
    const before = systemThreads();
    for (let round = 0; round < 3; round++) {
      const engine = await init({ threads: 4 });
      product();
      assert.equal(systemThreads() >= before + 3, true);
      engine.close();
      while (systemThreads() > before) await sleep(10);
    }
    assert.deepEqual(process.getActiveResourcesInfo().filter((name) => /Worker|MessagePort/.test(name)), []);
  `);
  assert.equal(stderr, "");
});

test("threads that wait take no time of a processor", () => {
  const { stdout } = run(`
    await init({ threads: 4 });
    product();
    await sleep(300);
    const before = process.cpuUsage();
    await sleep(2000);
    const { user, system } = process.cpuUsage(before);
    console.log((user + system) / 1000);
  `);
  // Of one that is busy: 2000 ms. Measured: 0.4 ms.
  assert(Number(stdout) < 200, `${stdout} ms of 2000`);
});

test("a thread that dies while it waits is told of, and the others go on to the same bits", () => {
  const { stderr } = run(`
    const engine = await init({ threads: 3 });
    const expected = product();
    await started[0].terminate();
    assert.equal(engine.threads, 2);
    assert.deepEqual(product(), expected);
    await started[1].terminate();
    assert.equal(engine.threads, 1);
    assert.deepEqual(product(), expected);
    engine.close();
  `);
  const lines = stderr.trim().split("\n");
  assert.equal(lines.length, 2, stderr);
  assert.match(
    lines[0]!,
    /^wasm-lora: one of 3 threads has ended: it exited with 1\. The others go on, to the same bits\.$/,
  );
});

/**
 * A worker whose kernels are \`body\`. The first unit that is left of the loop in hand is at 64 of the control block
 * (assembly/threads.ts), of which \`useThread\` tells the address.
 */
const withKernels = (body: string): string => `
  inject = \`
    const { Instance } = WebAssembly;
    WebAssembly.Instance = class {
      constructor(module, imports) {
        const exports = { ...new Instance(module, imports).exports };
        const { useThread } = exports;
        let control = 0;
        exports.useThread = (at, ...rest) => useThread((control = at), ...rest);
        for (const [name, kernel] of Object.entries(exports))
          if (name.startsWith("sgemm") && name !== "sgemmScratchBytes")
            exports[name] = (...args) => {
              const next = new BigInt64Array(imports.env.memory.buffer, control + 64, 1);
              \${${JSON.stringify(body)}}
            };
        this.exports = exports;
      }
    };\`;
`;

test("a thread that fails within a kernel ends the engine with an error that says why, at once", () => {
  const { seconds } = run(`
    ${withKernels(`throw new Error("it was planted");`)}
    const engine = await init({ threads: 2 });
    let error;
    while (!error)
      try {
        product();
      } catch (thrown) {
        error = thrown;
      }
    assert(error instanceof EngineError);
    assert.match(error.message, /^kernel sgemm.* trapped \\(another thread: it was planted\\) and memory is in doubt/);
    assert(!engine.alive);
    assert.throws(product, EngineError);
    inject = "";
    await init({ threads: 2 });
    assert.equal(product().length, 256 * 320);
  `);
  assert(seconds < 25, `${seconds} s`);
});

test("a thread that is killed with a part in hand ends the engine with an error, after half a minute", () => {
  const { seconds } = run(`
    ${withKernels(`Atomics.add(next, 0, 1n); process.exit(1);`)}
    const engine = await init({ threads: 2 });
    let error;
    while (!error)
      try {
        product();
      } catch (thrown) {
        error = thrown;
      }
    assert(error instanceof EngineError, error.stack);
    assert.match(error.message, /another thread was ended, or did not come back for half a minute/);
    assert(!engine.alive);
  `);
  assert(seconds > 29, `${seconds} s`);
});

test("threads that share their working space, as none may, are told by their bits", () => {
  const { stdout } = run(`
    const alone = await init();
    const expected = product();
    alone.close();
    inject = \`
      const { Instance } = WebAssembly;
      WebAssembly.Instance = class {
        constructor(module, imports) {
          const { useThread, ...exports } = new Instance(module, imports).exports;
          this.exports = { ...exports, useThread: (at, threads, index, sleeps) => useThread(at, threads, 1, sleeps) };
        }
      };\`;
    await init({ threads: 4 });
    let differ = 0;
    const end = performance.now() + 60_000;
    while (differ === 0 && performance.now() < end) {
      const got = product();
      differ = expected.filter((value, i) => !Object.is(value, got[i])).length;
    }
    console.log(differ);
  `);
  assert(Number(stdout) > 0);
});

test("where no threads can be started one computes, and a warning says why", () => {
  const { stderr } = run(`
    inject = "throw new Error('it was planted');";
    const engine = await init({ threads: 3 });
    assert.equal(engine.threads, 1);
    const bits = product();
    engine.close();
    inject = "";
    await init({ threads: 3 });
    assert.deepEqual(product(), bits);
  `);
  assert.equal(
    stderr.trim(),
    "wasm-lora: one thread computes, to the same bits: no others can be started here: it was planted.",
  );
});

test("of threads some of which cannot be started none stays", () => {
  const { stderr } = run(`
    inject = "if (require('node:worker_threads').workerData.thread === 2) throw new Error('it was planted');";
    const engine = await init({ threads: 4 });
    assert.equal(engine.threads, 1);
    product();
    while (started.some(({ threadId }) => threadId !== -1)) await sleep(10);
  `);
  assert.match(stderr, /^wasm-lora: one thread computes, to the same bits: .*: it was planted\.\n$/);
});

test("a thread that is ended before its word arrives is not told of as lost", async () => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const word = new Int32Array(memory.buffer);
  const source = `({ memory }, ready) => {
    ready();
    Atomics.store(new Int32Array(memory.buffer), 0, 1);
    Atomics.notify(new Int32Array(memory.buffer), 0);
    setInterval(() => {}, 1000);
  }`;
  const lost: string[] = [];
  const { ready, end } = spawn(source, { memory } as ThreadStart, (why) => lost.push(why));
  // The word is sent while this thread sleeps, and is read after the end.
  assert.equal(Atomics.wait(word, 0, 0, 60_000), "ok");
  end();
  await ready;
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.deepEqual(lost, []);
});

(process.allowedNodeEnvironmentFlags.has("--permission") ? test : test.skip)(
  "without the permission to start workers one computes",
  () => {
    const { stderr } = run(
      "assert.equal((await init({ threads: 2 })).threads, 1); product();",
      "--permission",
      "--allow-fs-read=*",
    );
    assert.match(stderr, /one thread computes, to the same bits: no others can be started here: .*--allow-worker/);
  },
);

test.run();

/**
 * A run in Node, outside the page: steps that run out of memory, numbers that are not finite, what is saved, and what
 * is shown.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { createServer } from "vite";

const root = fileURLToPath(new URL("..", import.meta.url));
const TEXT = readFileSync(`${root}sample.txt`, "utf8").slice(0, 4000);
const SETTINGS = { rank: 1, steps: 40, epochs: 2, patience: 0, prompt: "The old man" };

const server = await createServer({
  root,
  configFile: `${root}vite.config.js`,
  appType: "custom",
  logLevel: "error",
  server: { middlewareMode: true },
  ssr: { external: ["wasm-lora"] },
});
const { readText, Run } = await server.ssrLoadModule("/src/worker/run.ts");
const format = await server.ssrLoadModule("/src/format.ts");
const files = await server.ssrLoadModule("/src/page/adapter_files.ts");
const library = await import("wasm-lora");
const { engine } = await import("../../../dist/src/runtime/engine.js");
await library.init();
const { embeddedBase } = await server.ssrLoadModule("/src/worker/base.ts");
const loaded = await library.models.loadBase();
const base = embeddedBase(loaded);
const { memoryFiles } = library.io;
const fresh = () => library.models.loadModel(loaded.path).model;
test.after(() => server.close());

/** Runs fn with an allocator that fails at call number `at`, from 0; returns how often it was called. */
function withFailure(at, fn) {
  const { memory } = engine();
  const alloc = memory.alloc;
  let calls = 0;
  memory.alloc = (bytes) => {
    if (calls++ === at) throw new library.OutOfMemoryError(bytes, 0, memory.limit);
    return alloc.call(memory, bytes);
  };
  try {
    fn();
  } finally {
    delete memory.alloc;
  }
  return calls;
}

const begin = () => Run.begin(base, fresh(), readText(base, TEXT), SETTINGS, () => {});
/** What a step changes: weights, moments, losses. */
const stateOf = (run) => structuredClone(run.save().state);

test("a step that runs out of memory, wherever, changes nothing: done again it gives the bits of a whole run", () => {
  const clean = begin();
  const run = begin();
  const start = stateOf(run);
  // The first step makes the moments; the second has them.
  for (const step of [0, 1]) {
    // What a run finds out once, it knows after a step that failed.
    assert.throws(() => withFailure(300, () => clean.step()), { name: "OutOfMemoryError" });
    const places = withFailure(-1, () => clean.step());
    const before = stateOf(run);
    const live = library.memoryStats().liveBytes;
    assert(places > 250, `${places} allocations`);
    // Forward and backward in strides, to be done in seconds; all of clipping and of the update, whose parts are the
    // weights.
    for (let at = step; at < places; at += at < places - 120 ? 6 : 1) {
      assert.throws(() => withFailure(at, () => run.step()), { name: "OutOfMemoryError" });
      assert.deepEqual(stateOf(run), before, `step ${step + 1}, allocation ${at} of ${places}`);
      assert.equal(
        library.memoryStats().liveBytes,
        live,
        `step ${step + 1}, allocation ${at} of ${places} left memory behind`,
      );
    }
    run.step();
    assert.deepEqual(stateOf(run), stateOf(clean));
  }
  assert.notDeepEqual(stateOf(run), start);
  for (const each of [run, clean]) each.dispose();
});

test("a loss or a weight that is not finite stops the run by name, before it is counted", () => {
  const run = begin();
  run.step();
  const saved = run.save();
  const [[, factor]] = [...run.adapted.namedParameters()].filter(([, p]) => p.requiresGrad);
  factor.data.fill(3e38);
  assert.throws(
    () => run.step(),
    (error) =>
      error instanceof library.DivergedError && /^the loss of step 2 is (NaN|Infinity|-Infinity)$/.test(error.reason),
  );
  assert.equal(run.stepsDone, 1);
  assert.throws(() => run.finish(() => {}), {
    name: "Refusal:text",
    message: /^The model cannot learn from this \(the held-out loss after step 1 is /,
  });
  run.dispose();
  const back = Run.restore(base, fresh(), saved);
  const live = library.memoryStats().liveBytes;
  assert.deepEqual(stateOf(back), saved.state);
  // What cannot be restored leaves nothing behind.
  const wrong = structuredClone(saved);
  wrong.state.optimizer.set("999.expAvg", { shape: [1], data: new Float32Array(1) });
  assert.throws(() => Run.restore(base, fresh(), wrong));
  assert.equal(library.memoryStats().liveBytes, live);
  back.dispose();
});

test("what is saved does not change when training goes on before it is written", () => {
  const run = begin();
  const saved = run.save();
  const copy = structuredClone(saved);
  run.step();
  assert.deepEqual(saved, copy);
  run.dispose();
});

test("what is kept is what was saved, and any damage of it is noticed", async () => {
  const { seal, unseal } = await server.ssrLoadModule("/src/worker/kept.ts");
  const run = begin();
  run.step();
  const saved = run.save();
  const kept = seal(saved);
  assert.deepEqual(unseal(kept), saved);
  for (const at of [0, 9, kept.checkpoint.length / 2, kept.checkpoint.length - 1]) {
    const damaged = structuredClone(kept);
    damaged.checkpoint[Math.floor(at)] ^= 4;
    assert.equal(unseal(damaged), null, `byte ${at}`);
  }
  for (const nothing of [undefined, null, 7, {}, { ...kept, checkpoint: "none" }]) assert.equal(unseal(nothing), null);
  run.dispose();
});

/** Where the command line leaves its files. */
const OUT = "memory:cli";

/** The command line's run of a file in memory, with the page's settings. @returns its result.json */
async function finetuned(data, settings) {
  const { finetune, FINETUNE_DEFAULTS } = await import("../../../dist/src/cli/finetune.js");
  const { rank } = SETTINGS;
  const ofAll = { r: rank, alpha: 2 * rank, batch: 8, model: "models/base", data, out: OUT };
  const { log } = console;
  console.log = () => {};
  const here = process.cwd();
  process.chdir(fileURLToPath(new URL("../../..", import.meta.url)));
  try {
    await finetune({ ...FINETUNE_DEFAULTS, ...ofAll, ...settings }, new Set());
  } finally {
    process.chdir(here);
    console.log = log;
  }
  return JSON.parse(new TextDecoder().decode(memoryFiles.get(`${OUT}/result.json`)));
}

/** Runs it to its end. @returns both files of its adapter */
function finished(run) {
  while (!run.isComplete) {
    if (run.isEvaluationDue) run.evaluate(() => {});
    else run.step();
  }
  run.finish(() => {});
  return run.adapter("best");
}

/** The command line has made the same; its files go. */
function assertSame(run, { config, weights }, result) {
  assert.deepEqual(run.course.losses, result.losses);
  assert.deepEqual([run.before.heldOutLoss, run.after.heldOutLoss], [result.heldOutBefore, result.best.loss]);
  assert.deepEqual(weights, memoryFiles.get(`${OUT}/adapter/adapter_model.safetensors`));
  assert.deepEqual(config, memoryFiles.get(`${OUT}/adapter/adapter_config.json`));
  for (const name of memoryFiles.keys()) if (name.startsWith(`${OUT}/`)) memoryFiles.delete(name);
}

test("a run is the command line's: losses, reports and both files of the adapter, to the byte", async () => {
  const run = begin();
  memoryFiles.set("memory:text", new TextEncoder().encode(TEXT));
  const { steps, prompt } = SETTINGS;
  const result = await finetuned("memory:text", { steps, prompt, seq: 64, evalEvery: run.evalEvery });
  assertSame(run, finished(run), result);
  run.dispose();
});

test("so is one of rows, of which some are longer than the model's positions", async () => {
  const { readRowsFile, tokenizeRows } = await server.ssrLoadModule("/src/worker/rows.ts");
  const name = "memory:rows.jsonl";
  const texts = [TEXT, TEXT.slice(1000), ...TEXT.split("\n\n").slice(0, 10)];
  memoryFiles.set(name, new TextEncoder().encode(texts.map((text) => JSON.stringify({ text })).join("\n")));
  const rows = tokenizeRows(base, await readRowsFile(memoryFiles.get(name), name), "answers", () => {});
  assert.equal(rows.tokenized.truncated, 2);
  const run = Run.begin(base, fresh(), rows, SETTINGS, () => {});
  const result = await finetuned(name, { epochs: SETTINGS.epochs, evalEvery: run.evalEvery });
  assertSame(run, finished(run), result);
  run.dispose();
});

/** The worker's studio as a page opens it, where nothing can be kept. */
async function openStudio() {
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  globalThis.crossOriginIsolated = false;
  globalThis.postMessage = () => {};
  globalThis.indexedDB = {
    open() {
      const request = { error: new Error("nothing is kept here") };
      queueMicrotask(() => request.onerror());
      return request;
    },
  };
  const { Studio } = await server.ssrLoadModule("/src/worker/studio.ts");
  const studio = new Studio();
  await studio.open(
    null,
    () => {},
    () => {},
  );
  return studio;
}

test("what is said until nobody wants more of it leaves no memory behind, with an adapter and without", async () => {
  const studio = await openStudio();
  const run = begin();
  await studio.upload(run.adapter("best"));
  const [said, drawing] = [{ text: "The old man" }, { seed: 0, temperature: 0 }];
  const isOfModel = (text) => text.length > said.text.length + 5;
  const live = () => library.memoryStats().liveBytes;
  for (const who of ["base", "uploaded"]) {
    const { text } = await studio.answer(who, said, drawing, () => {});
    const before = live();
    const part = await studio.answer(who, said, drawing, (text) => isOfModel(text) && studio.hush());
    assert.ok(!part.isWhole && text.startsWith(part.text) && part.text.length < text.length);
    assert.equal(live(), before, who);
  }
  const before = live();
  for (const who of ["base", "best", "last"]) {
    const pieces = run.writing(who, said, drawing);
    while (!isOfModel(pieces.next().value));
    assert.ok(live() > before);
    pieces.return();
    assert.equal(live(), before, who);
  }
  run.dispose();
});

test("an adapter that was uploaded goes with the model that it is of", async () => {
  const studio = await openStudio();
  const live = library.memoryStats().liveBytes;
  const run = begin();
  const adapter = run.adapter("best");
  run.dispose();
  await studio.upload(adapter);
  await studio.choose({ kind: "embedded" }, () => {});
  assert.equal(library.memoryStats().liveBytes, live);
});

test("samples in the course of a run change none of its bits", () => {
  const plain = begin();
  const sampled = begin();
  for (let i = 0; i < 3; i++) {
    plain.step();
    sampled.step();
    assert.equal(typeof sampled.sample().text, "string");
  }
  assert.deepEqual(stateOf(sampled), stateOf(plain));
  plain.dispose();
  sampled.dispose();
});

test("numbers are shown right at their edges", () => {
  const { duration, perplexity, fileName, printable } = format;
  assert.deepEqual([0, 0.2, 59, 59.2, 60, 119.5, 3599.1, 3600, 7384].map(duration), [
    "0 s",
    "1 s",
    "59 s",
    "1 min 0 s",
    "1 min 0 s",
    "2 min 0 s",
    "1 h 0 min",
    "1 h 0 min",
    "2 h 3 min",
  ]);
  // e^2, e^13.8, e^20 = 4.85165e8, e^710 = 2.23399e308, e^1000 = 1.97007e434; 9.97e6 is 1.0e7 to two digits.
  assert.deepEqual([2, 13.8, 20, 710, 1000, Math.log(9.97e6)].map(perplexity), [
    "7.4",
    "984609.1",
    "4.9 · 10^8",
    "2.2 · 10^308",
    "2.0 · 10^434",
    "1.0 · 10^7",
  ]);
  assert.equal(printable("a\u202egpj.exe\u0007\n\u{1f40b}\ud800"), "a\\u202egpj.exe\\u0007\n\u{1f40b}\\ud800");
  assert.equal(fileName("a\nb\u2066.zip"), "a b\\u2066.zip");
  assert.equal(fileName("x".repeat(500)).length, 60);
});

test("an archive of two adapters, or one that would be too large unpacked, is refused by its name", async () => {
  const { fromFiles } = files;
  const { zipSync } = await import("fflate");
  const file = (name, contents) => new File([contents], name);
  const none = new Uint8Array(4);
  const zip = (entries) => zipSync(entries, { level: 9 });
  const refused = (list, message) =>
    assert.rejects(fromFiles(list), (error) => error.name === "Refusal:upload" && message.test(error.message));
  const pair = (folder) => ({ [`${folder}/adapter_config.json`]: none, [`${folder}/adapter_model.safetensors`]: none });
  assert.deepEqual(Object.keys(await fromFiles([file("good.zip", zip(pair("adapter")))])), ["config", "weights"]);
  await refused([file("two.zip", zip({ ...pair("a"), ...pair("b") }))], /^two\.zip holds more than one adapter/);
  await refused(
    [file("a.zip", zip(pair("a"))), file("b.zip", zip(pair("b")))],
    /^There is more than one adapter_config\.json/,
  );
  await refused(
    [file("a.zip", zip(pair("a"))), file("adapter_config.json", none)],
    /^There is more than one adapter_config\.json/,
  );
  await refused(
    [
      file(
        "bomb.zip",
        zip({ "adapter_config.json": none, "adapter_model.safetensors": new Uint8Array(100 * 2 ** 20) }),
      ),
    ],
    /^bomb\.zip would be too large/,
  );
  await refused([file("evil\u202egpj.zip", none)], /^evil\\u202egpj\.zip cannot be read as a zip/);
});

test("a silent worker is given up after its patience; what it still says, and whoever still waits, knows", async () => {
  const workers = [];
  globalThis.Worker = class extends EventTarget {
    constructor() {
      super();
      workers.push(this);
    }
    postMessage() {}
    terminate() {
      this.ended = true;
    }
    say() {
      this.dispatchEvent(new MessageEvent("message", { data: "alive" }));
    }
  };
  const { setInterval } = globalThis;
  const intervals = [];
  globalThis.setInterval = (fn, milliseconds) => intervals.push({ fn, milliseconds, due: milliseconds });
  let now = 0;
  const seconds = (n) => {
    now += 1000 * n;
    for (const interval of intervals) for (; interval.due <= now; interval.due += interval.milliseconds) interval.fn();
  };
  try {
    const { Host } = await server.ssrLoadModule("/src/page/host.ts");
    const host = new Host(() => {});
    const outcome = (promise) =>
      promise.then(
        (value) => value,
        ({ name, message }) => `${name}: ${message}`,
      );
    const heard = [];
    let answer;
    let late;
    seconds(500); // without a call there is nothing to wait for
    assert.equal(workers[0].ended, undefined);

    const first = outcome(
      host.call((_, live) => {
        late = live((value) => heard.push(value));
        return new Promise((resolve) => {
          answer = resolve;
        });
      }),
    );
    for (let i = 0; i < 5; i++) {
      seconds(50);
      late(i);
      workers[0].say();
    }
    answer("done");
    assert.equal(await first, "done");
    late("too late");
    assert.deepEqual(heard, [0, 1, 2, 3, 4]);

    const never = () => new Promise(() => {});
    const patient = outcome(host.call(never, 60));
    const upload = outcome(host.call(never, 15));
    seconds(15);
    assert.equal(workers[0].ended, undefined);
    seconds(1);
    assert.equal(workers[0].ended, true);
    assert.equal(await upload, "WorkerLost: it gave no sign for 15 s");
    assert.equal(await patient, "WorkerLost: it gave no sign for 15 s");
    host.start();
    assert.equal(workers.length, 2);

    const opening = outcome(host.call(never, Infinity));
    seconds(10000); // a slow connection is none of the worker's fault
    assert.equal(workers[1].ended, undefined);
    host.start();
    assert.equal(await opening, "WorkerLost: another took its place");
  } finally {
    Object.assign(globalThis, { setInterval });
    delete globalThis.Worker;
  }
});

test.run();

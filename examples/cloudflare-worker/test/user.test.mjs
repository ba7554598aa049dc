/**
 * What fails and comes back: loading the base, an engine that traps, memory that runs out anywhere in a slice, saved
 * bytes that are not what was saved. The Durable Object of src/user.mjs runs in Node here, on a storage in memory.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { test } from "uvu";
import * as esbuild from "esbuild";
import { DisposedError, EngineError, io, memoryStats, OutOfMemoryError, train } from "wasm-lora";
import { engine } from "../../../dist/src/runtime/engine.js";
import { loadBase } from "../src/base.mjs";
import { kept } from "../src/kept.mjs";
import { LIMITS } from "../src/limits.mjs";
import { trainSlice, UNTRAINED } from "../src/train.mjs";

const folder = fileURLToPath(new URL("../runs/test/", import.meta.url));
const baseFolder = fileURLToPath(new URL(".", import.meta.resolve("wasm-lora/models/base/config.json")));
const read = (name) => JSON.parse(readFileSync(join(baseFolder, name), "utf8"));
const load = () =>
  loadBase({
    config: read("config.json"),
    tokenizer: read("tokenizer.json"),
    tokenizerConfig: read("tokenizer_config.json"),
    weights: readFileSync(join(baseFolder, "model.safetensors")),
  });
/** As in an isolate: one base for all tests, and another after a trap. */
const embedded = kept(load, (base) => base.alive);
const TEXT = "The whale rose, and the boats were lowered.";
const rowsOf = (base, ...texts) =>
  base.tokenize(texts.map((text, i) => ({ kind: "text", text, where: `row ${i + 1}` }))).rows;

/** src/user.mjs with the platform's class and the embedded base left out: the test gives both. */
async function userClass() {
  mkdirSync(folder, { recursive: true });
  const stub = (filter, contents) => ({
    name: "stub",
    setup(build) {
      build.onResolve({ filter }, ({ path }) => ({ path, namespace: "stub" }));
      build.onLoad({ filter, namespace: "stub" }, () => ({ contents }));
    },
  });
  await esbuild.build({
    entryPoints: [fileURLToPath(new URL("../src/user.mjs", import.meta.url))],
    outfile: join(folder, "user.mjs"),
    bundle: true,
    format: "esm",
    external: ["wasm-lora"],
    plugins: [
      stub(/^cloudflare:workers$/, "export class DurableObject { constructor(ctx) { this.ctx = ctx; } }"),
      stub(/embedded\.mjs$/, "export const embeddedBase = () => globalThis.baseForTest();"),
    ],
  });
  return (await import(pathToFileURL(join(folder, "user.mjs")))).User;
}

const User = await userClass();
// What an alarm meets goes to the log too.
const { error } = console;
console.error = () => {};
test.after(() => {
  console.error = error;
  rmSync(folder, { recursive: true });
});

/** A user, and what lies in their storage. */
function makeUser() {
  const stored = new Map();
  const alarms = [];
  const kv = {
    get: (key) => structuredClone(stored.get(key)),
    put: (key, value) => {
      stored.set(key, structuredClone(value));
    },
  };
  const storage = {
    kv,
    setAlarm: async (at) => {
      alarms.push(at - Date.now());
    },
    deleteAll: async () => {
      stored.clear();
    },
  };
  const user = new User({ storage });
  const call = async (method, path, body, type = "application/json") => {
    const response = await user.fetch(
      new Request(`http://user/${path}`, {
        method,
        body: typeof body === "string" ? body : body && JSON.stringify(body),
        headers: body && { "content-type": type },
      }),
    );
    return response.status === 204 ? null : response.json();
  };
  return { user, stored, alarms, call };
}

/** Runs fn with an allocator that fails at call number `at`, from 0; returns how often it was called. */
function withFailure(at, fn) {
  const { memory } = engine();
  const alloc = memory.alloc;
  let calls = 0;
  memory.alloc = (bytes) => {
    if (calls++ === at) throw new OutOfMemoryError(bytes, memoryStats().liveBytes, memory.limit);
    return alloc.call(memory, bytes);
  };
  try {
    fn();
  } finally {
    delete memory.alloc;
  }
  return calls;
}

/** A kernel that traps: the engine is dead after it. */
function trap() {
  assert.throws(() => engine().kernels.sscal(0xffffff00, 1, 1), EngineError);
}

test("what is kept is made once for all who ask, again after a failure, and again when it is spent", async () => {
  let made = 0;
  const outcomes = [new Error("no memory"), { good: true }, { good: true }];
  const get = kept(
    async () => {
      const outcome = outcomes[made++];
      if (outcome instanceof Error) throw outcome;
      return outcome;
    },
    ({ good }) => good,
  );
  const first = await Promise.allSettled([get(), get()]);
  assert.deepEqual(
    first.map(({ status }) => status),
    ["rejected", "rejected"],
  );
  assert.equal(made, 1);
  const values = await Promise.all([get(), get(), get()]);
  assert(values.every((value) => value === outcomes[1]));
  assert.equal(made, 2);
  outcomes[1].good = false;
  const later = await Promise.all([get(), get()]);
  assert(later.every((value) => value === outcomes[2]));
  assert.equal(made, 3);
});

test("an engine that trapped is followed by another, and a training goes on to the same bits", async () => {
  globalThis.baseForTest = embedded;
  const base = await embedded();
  const rows = rowsOf(base, TEXT);
  const expected = trainSlice(base, rows, UNTRAINED, 2 * LIMITS.stepsPerSlice);
  const { user, call, stored } = makeUser();
  await call("POST", "rows", [{ text: TEXT }]);
  await call("POST", "train", { steps: 2 * LIMITS.stepsPerSlice });
  await user.alarm();
  trap();
  assert.equal(base.alive, false);
  assert.throws(
    () => base.withAdapters([null], (model) => model.parameters()[0].toFloat32()),
    (error) => error instanceof EngineError || error instanceof DisposedError,
  );
  await user.alarm();
  const status = await call("GET", "status");
  assert.equal(status.error, null);
  assert.equal(status.training, false);
  assert.deepEqual(status.losses, expected.losses);
  assert.deepEqual(stored.get("files"), structuredClone(expected.files));
});

test("memory that runs out in a slice: done again, it gives the same bits; nothing is left behind", async () => {
  const base = await embedded();
  const rows = rowsOf(base, TEXT);
  const first = trainSlice(base, rows, UNTRAINED, 2, 1);
  const second = trainSlice(base, rows, first, 2);
  for (const [state, expected] of [
    [UNTRAINED, first],
    [first, second],
  ]) {
    const live = memoryStats().liveBytes;
    const places = withFailure(-1, () => trainSlice(base, rows, state, 2, 1));
    for (let at = 0; at < places; at += Math.ceil(places / 60)) {
      assert.throws(
        () => withFailure(at, () => trainSlice(base, rows, state, 2, 1)),
        OutOfMemoryError,
        `allocation ${at} of ${places}`,
      );
      assert.equal(memoryStats().liveBytes, live, `allocation ${at} of ${places} left memory behind`);
    }
    assert.deepEqual(trainSlice(base, rows, state, 2, 1), expected);
  }
});

test("a step of the longest rows fits in an isolate's linear memory", async () => {
  const base = await embedded();
  const rows = rowsOf(base, ...Array.from({ length: 4 }, (_, i) => `${i} ${"the white whale ".repeat(200)}`));
  assert(rows.every(({ ids }) => ids.length === LIMITS.rowTokens));
  trainSlice(base, rows, UNTRAINED, 2);
  assert(memoryStats().peakBytes <= LIMITS.linearMemoryBytes);
});

test("texts of many users, among training, new versions and departures, are those each gets alone", async () => {
  globalThis.scheduler ??= { wait: (ms) => new Promise((resolve) => setTimeout(resolve, ms)) };
  const { generateBatch, generateOne } = await import("../src/generate.mjs");
  const base = await embedded();
  const rows = rowsOf(base, TEXT);
  const adapters = [];
  for (let i = 0, state = UNTRAINED; i < LIMITS.adaptersAtHand + 6; i++) {
    state = trainSlice(
      base,
      rowsOf(base, `${TEXT} Said the ${i}th of them, and again.`),
      { ...UNTRAINED, steps: 0 },
      1 + (i % 2),
    );
    adapters.push({ name: `user-${i}`, version: "1", files: state.files });
  }
  const request = (i) => ({
    ids: base.encode("The whale"),
    adapter: adapters[i],
    seed: i,
    temperature: 0.9,
    maxNewTokens: 8,
  });
  const alone = [];
  for (let i = 0; i < adapters.length; i++) alone.push(await generateOne(base, request(i)));
  assert(new Set(alone).size > adapters.length / 2);
  const together = adapters.map((_, i) => generateOne(base, request(i)));
  // Meanwhile: a training, a new version of the first user's adapter, a batch of others.
  trainSlice(base, rows, UNTRAINED, 1);
  const next = generateOne(base, {
    ...request(0),
    adapter: { ...adapters[0], version: "2", files: adapters[1].files },
  });
  const batch = generateBatch(base, [request(2), request(3)]);
  assert.deepEqual(await Promise.all(together), alone);
  assert.deepEqual(await batch, [alone[2], alone[3]]);
  assert.equal(await next, await generateOne(base, { ...request(0), adapter: adapters[1] }));
  assert(base.adapted.adapters.length <= LIMITS.adaptersAtHand, "what nobody holds is let go");
});

test("an alarm that runs out of memory comes again, each time later; at last the training ends by name", async () => {
  globalThis.baseForTest = embedded;
  const { user, call, alarms, stored } = makeUser();
  await call("POST", "rows", [{ text: TEXT }]);
  await call("POST", "train", { steps: 1 });
  const before = structuredClone([...stored].filter(([key]) => key !== "user"));
  const failing = async () => {
    throw new OutOfMemoryError(1, 2, 3);
  };
  globalThis.baseForTest = failing;
  alarms.length = 0;
  for (let i = 1; i < LIMITS.attemptsPerSlice; i++) {
    await user.alarm();
    assert.equal((await call("GET", "status")).training, true);
  }
  assert.deepEqual(
    alarms.map((wait) => Math.round(wait / 1000)),
    [1, 2, 4, 8],
  );
  await user.alarm();
  const { training, error } = await call("GET", "status");
  assert.equal(training, false);
  assert.match(error, /^OutOfMemoryError: /);
  assert.deepEqual(
    [...stored].filter(([key]) => key !== "user"),
    before,
  );

  globalThis.baseForTest = embedded;
  await call("POST", "train", { steps: 1 });
  await user.alarm();
  assert.deepEqual(
    { ...(await call("GET", "status")), losses: 1 },
    { ...(await call("GET", "status")), losses: 1, steps: 1, error: null, training: false },
  );
});

test("a user who goes while their alarm waits for the base stays gone; one who comes back begins anew", async () => {
  const { user, call, stored } = makeUser();
  globalThis.baseForTest = embedded;
  await call("POST", "rows", [{ text: TEXT }]);
  await call("POST", "train", { steps: 8 });
  let arrive;
  globalThis.baseForTest = () =>
    new Promise((resolve) => {
      arrive = resolve;
    });
  const alarm = user.alarm();
  await call("DELETE", "");
  arrive(await embedded());
  await alarm;
  assert.equal(stored.size, 0);
});

test("what diverges or is damaged is reported by name, and does not replace the adapter", async () => {
  globalThis.baseForTest = embedded;
  const { user, call, stored } = makeUser();
  await call("POST", "rows", [{ text: TEXT }]);
  await call("POST", "train", { steps: 1 });
  await user.alarm();
  const good = structuredClone(Object.fromEntries(stored));

  // Finite, but no longer so when it is multiplied.
  const { state } = train.decodeCheckpoint(good.checkpoint);
  for (const { data } of state.factors.values()) data.fill(3e38);
  stored.set("checkpoint", train.encodeCheckpoint(state));
  await call("POST", "train", { steps: 1 });
  await user.alarm();
  let status = await call("GET", "status");
  assert.equal(status.training, false);
  assert.equal(status.steps, 1);
  assert.match(status.error, /^TrainingError: training diverged at step 2: .+ The adapter stays as it was;/);
  assert.deepEqual(stored.get("files"), good.files);

  const { tensors } = io.parseSafetensors(good.checkpoint);
  for (const kind of ["factors.", "optimizer.", "metrics"]) {
    const { bytes } = [...tensors.values()].find(({ name }) => name.startsWith(kind));
    const checkpoint = good.checkpoint.slice();
    checkpoint[bytes.byteOffset - good.checkpoint.byteOffset + 2] ^= 64;
    for (const [key, value] of Object.entries({ ...good, checkpoint })) stored.set(key, value);
    await call("POST", "train", { steps: 1 });
    await user.alarm();
    status = await call("GET", "status");
    assert.match(status.error, /^TrainingError: the training saved at step 1 is damaged: its digest is another\./);
    assert.equal(status.steps, 1);
  }

  // Of the adapter's files nothing is learned: the next slice makes them anew.
  for (const [key, value] of Object.entries(good)) stored.set(key, value);
  stored.set("files", { ...good.files, "adapter_model.safetensors": new Uint8Array(8) });
  await call("POST", "train", { steps: 1 });
  await user.alarm();
  status = await call("GET", "status");
  assert.deepEqual([status.error, status.steps], [null, 2]);
  const expected = trainSlice(
    await embedded(),
    rowsOf(await embedded(), TEXT),
    { steps: 1, checkpoint: good.checkpoint },
    2,
  );
  assert.deepEqual(stored.get("files"), structuredClone(expected.files));
});

test("lines that are no rows are all named, also where each is JSON", async () => {
  globalThis.baseForTest = embedded;
  const { call } = makeUser();
  const lines = ["7", '{"text": "good"}', '{"text": "one", "text": "two"}', '{"text": 5}'];
  for (const end of ["\n", "\r\n", "\r"]) {
    const { error } = await call("POST", "rows", lines.join(end), "application/jsonl");
    assert.equal(error.code, "ERR_ROWS");
    assert.match(error.message, /^3 of 4 rows cannot be trained on, and none was taken; the first is rows\.jsonl:1: /);
    const reasons = new Map(error.rows.map(({ row, reason }) => [row, reason]));
    assert.deepEqual([...reasons.keys()].sort(), ["rows.jsonl:1", "rows.jsonl:3", "rows.jsonl:4"]);
    assert.match(reasons.get("rows.jsonl:1"), /^the row is 7; expected an object/);
    assert.match(reasons.get("rows.jsonl:3"), /^column 17: .*"text"/);
    assert.match(reasons.get("rows.jsonl:4"), /^text is 5; expected a text\.$/);
  }
});

test("a training is the command line's on the same rows: both files of the adapter, to the byte", async () => {
  globalThis.baseForTest = embedded;
  const texts = [TEXT, "Knead the dough until it is smooth.", "Salt, flour and water."];
  const lines = [
    ...texts.map((text) => ({ text })),
    { text: "A longer one, whose end is lost. ".repeat(40) },
    { text: "Bake the loaf for an hour; it is done when it sounds hollow." },
  ].map((row) => JSON.stringify(row));
  const { user, call, stored } = makeUser();
  const told = await call("POST", "rows", lines.join("\n"), "application/jsonl");
  assert.deepEqual([told.rows, told.truncated], [5, 1]);
  // Nothing predicts a text's first token.
  assert.equal(told.scored, told.tokens - told.rows);
  await call("POST", "train", { steps: 6 });
  while ((await call("GET", "status")).training) await user.alarm();
  const status = await call("GET", "status");
  assert.deepEqual([status.error, status.steps], [null, 6]);

  const file = join(folder, "rows.jsonl");
  const out = join(folder, "cli");
  writeFileSync(file, lines.join("\n"));
  const root = fileURLToPath(new URL("../../..", import.meta.url));
  const options = { "--model": "models/base", "--data": file, "--eval-data": file, "--out": out, "--batch": "4" };
  const more = { "--steps": "6", "--max-length": String(LIMITS.rowTokens), "--eval-every": "0" };
  execFileSync(
    process.execPath,
    [join(root, "dist/src/cli/main.js"), "finetune", ...Object.entries({ ...options, ...more }).flat()],
    { cwd: root, stdio: ["ignore", "ignore", "pipe"] },
  );
  assert.deepEqual(status.losses, JSON.parse(readFileSync(join(out, "result.json"), "utf8")).losses);
  for (const [name, bytes] of Object.entries(stored.get("files")))
    assert.deepEqual(Buffer.from(bytes), readFileSync(join(out, "adapter", name)), name);
});

test.run();

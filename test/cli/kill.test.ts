/**
 * kill -9 at any moment and a full disk: what is there is whole, nothing is lost but time, and the run goes on to the
 * bits of an uninterrupted one. A few of each here; `npm run proofs` does thirty and prints what came of them.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite, test } from "uvu";
import { Worker } from "node:worker_threads";
import { hasCheckpoint } from "../../src/cli/checkpoint.js";
import { FormatError, io, peft } from "../../src/index.js";
import { digestOfTensors } from "../../src/io/digest.js";
import { filesBelow, finetuneWith, succeed, temporaryFolder, wasmLora } from "../support/cli.js";
import { TEXT, writeTinyAdapter, writeTinyModel } from "../support/tiny_model.js";
import { ROOT } from "../support/root.js";

const FULL = process.env["WASM_LORA_PROOFS"] !== undefined;
const TIMES = FULL ? 30 : 3;
const folder = temporaryFolder();
const main = new URL("dist/src/cli/main.js", ROOT).pathname;
const library = new URL("dist/src/index.js", ROOT).href;
const at = (...path: string[]): string => join(folder, ...path);
const finetune = finetuneWith(
  "--model",
  "m",
  "--data",
  "t.txt",
  "--prompt",
  "call",
  "--seq",
  "16",
  "--batch",
  "2",
  "--r",
  "4",
  "--steps",
  "60",
  "--checkpoint-every",
  "1",
  "--dropout",
  "0.1",
);
const resume = finetuneWith("--resume");
/** Digests of all files. */
const contents = (path: string): Map<string, string> =>
  new Map(
    filesBelow(path).map((file) => [
      file,
      createHash("sha256")
        .update(readFileSync(join(path, file)))
        .digest("hex"),
    ]),
  );
/** 31-bit linear congruential numbers, 0 .. 1: each run of the tests tries the same share of the whole time. */
let state = 7;
const random = (): number => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) / 0x80000000;
const tally = (counts: Map<string, number>, what: string): void => {
  counts.set(what, (counts.get(what) ?? 0) + 1);
};
const told = (counts: Map<string, number>): string => [...counts].map(([what, n]) => `${n} ${what}`).join(", ");

/** Starts the command and kills it after so many milliseconds. Whether it was still running. */
async function killed(args: readonly string[], after: number): Promise<boolean> {
  const child = spawn(process.execPath, [main, ...args], { cwd: folder, stdio: "ignore" });
  const ended = new Promise<boolean>((resolve) =>
    child.once("close", (_, signal) => {
      resolve(signal === "SIGKILL");
    }),
  );
  await Promise.race([sleep(after), ended]);
  child.kill("SIGKILL");
  return ended;
}
async function milliseconds(args: readonly string[]): Promise<number> {
  const start = performance.now();
  await succeed(folder, args);
  return performance.now() - start;
}

await writeTinyModel(at("m"));
await writeTinyAdapter(at("a"), at("m"));
writeFileSync(at("t.txt"), TEXT);

const whenKilled = suite("killed");

whenKilled("finetune goes on to the bits of an uninterrupted run", async () => {
  const time = await milliseconds(finetune("whole"));
  const whole = contents(at("whole"));
  const counts = new Map<string, number>();
  for (let i = 0; i < TIMES; i++) {
    const out = `killed-${i}`;
    let kills = 0;
    // Twice, the second time in the resumed run.
    for (
      ;
      kills < 2 &&
      (await killed(
        kills === 0 ? finetune(out) : hasCheckpoint(at(out)) ? resume(out) : finetune(out),
        random() * time,
      ));
      kills++
    );
    const found = hasCheckpoint(at(out)) ? "with a checkpoint" : "before the first checkpoint";
    await succeed(folder, existsSync(at(out, "result.json")) || hasCheckpoint(at(out)) ? resume(out) : finetune(out));
    assert.deepEqual(contents(at(out)), whole, out);
    tally(
      counts,
      `killed ${kills === 0 ? "too late" : kills === 1 ? "once" : "twice"} ${found}: the same files, byte by byte`,
    );
  }
  console.log(told(counts));
});

/** With others to measure on, which these make worse after a while: the best is not the last, the run stops early. */
const ROWS = ["ann", "ben", "cid", "dot", "eve", "fay"].flatMap((name, i, names) =>
  names
    .filter((_, k) => (i + k) % 2 === 0)
    .map((other) => ({ prompt: `${name} met ${other}.`, completion: ` ${other} met ${name}.` })),
);
const lines = (rows: readonly object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
const onRows = (out: string, ...options: string[]): string[] => [
  ...["finetune", "--model", "m", "--data", "rows.jsonl", "--eval-data", "other.jsonl", "--out", out, "--r", "4"],
  ...["--batch", "2", "--accumulation", "2", "--epochs", "20", "--lr", "0.01", "--dropout", "0.1"],
  ...["--eval-every", "3", "--patience", "12", "--checkpoint-every", "2", ...options],
];

whenKilled(
  "finetune on rows, with evaluations and early stopping: every file is that of an uninterrupted run",
  async () => {
    writeFileSync(at("rows.jsonl"), lines(ROWS));
    writeFileSync(at("other.jsonl"), lines(ROWS.slice(0, 4).map(({ prompt }) => ({ prompt, completion: " aeiou." }))));
    const time = await milliseconds(onRows("rows-whole"));
    const whole = contents(at("rows-whole"));
    const { best, stoppedEarly, losses } = JSON.parse(readFileSync(at("rows-whole/result.json"), "utf8"));
    assert.ok(stoppedEarly && best.step > 0 && best.step < losses.length, JSON.stringify({ best, stoppedEarly }));
    assert.notEqual(
      whole.get("adapter/adapter_model.safetensors"),
      whole.get("adapter-last/adapter_model.safetensors"),
    );
    const counts = new Map<string, number>();
    for (let i = 0; i < TIMES; i++) {
      const out = `rows-killed-${i}`;
      // From where a model is loaded to where results are written.
      const isKilled = await killed(onRows(out), (0.2 + 0.8 * random()) * time);
      const found = hasCheckpoint(at(out));
      if (isKilled || !existsSync(at(out, "result.json"))) await succeed(folder, found ? resume(out) : onRows(out));
      assert.deepEqual(contents(at(out)), whole, out);
      tally(
        counts,
        `killed ${isKilled ? (found ? "with a checkpoint" : "before the first checkpoint") : "too late"}: the same ` +
          `files, byte by byte`,
      );
    }
    console.log(told(counts));
  },
);

whenKilled("finetune on rows, killed again and again in one folder", async () => {
  const time = await milliseconds(onRows("rows-time"));
  const counts = new Map<string, number>();
  for (let i = 0; i < TIMES; i++) {
    const found = hasCheckpoint(at("rows-again"));
    const isKilled = await killed(found ? resume("rows-again") : onRows("rows-again"), random() * time);
    tally(counts, isKilled ? "killed" : "ended before it was killed");
  }
  await succeed(folder, hasCheckpoint(at("rows-again")) ? resume("rows-again") : onRows("rows-again"));
  assert.deepEqual(contents(at("rows-again")), contents(at("rows-whole")));
  console.log(`${told(counts)}: the same files, byte by byte`);
});

whenKilled("other bytes come of a checkpoint in which anything is other", async () => {
  const { best } = JSON.parse(readFileSync(at("rows-whole/result.json"), "utf8"));
  // Later than the best, so that it is in the checkpoint.
  const later = `{"step":${best.step + 4},`;
  // On a busy machine the run may have ended before it is killed: then it is done again.
  for (let left = 20; left > 0 && !existsSync(at("rows-stopped/checkpoint.safetensors")); left--) {
    rmSync(at("rows-stopped"), { recursive: true, force: true });
    await wasmLora(folder, onRows("rows-stopped"), async (child) => {
      const path = at("rows-stopped/metrics.jsonl");
      while (!existsSync(path) || !readFileSync(path, "utf8").includes(later)) await sleep(1);
      child.kill("SIGKILL");
    });
  }
  const whole = contents(at("rows-whole"));
  const changes: [what: string, change: (tensors: io.TensorToWrite[], run: any) => void][] = [
    ["nothing", () => {}],
    ...["factors.", "best.", "optimizer.", "metrics"].map((kind): (typeof changes)[number] => [
      kind,
      (tensors) => {
        const { data } = tensors.find(({ name }) => name.startsWith(kind))!;
        // Of metrics, the lowest byte of the first step's loss, the third of its numbers.
        (data as Uint8Array)[kind === "metrics" ? 16 : 1]! ^= 1;
      },
    ]),
    [
      "an evaluation",
      (_, run) => {
        run.evaluations[0].loss = 0.5;
      },
    ],
  ];
  for (const [i, [what, change]] of changes.entries()) {
    const out = `rows-changed-${i}`;
    cpSync(at("rows-stopped"), at(out), { recursive: true });
    const path = at(out, "checkpoint.safetensors");
    const { metadata, tensors } = io.parseSafetensors(readFileSync(path));
    const list = [...tensors.values()].map(({ name, dtype, shape, bytes }) => ({
      name,
      dtype,
      shape,
      data: bytes.slice(),
    }));
    const run = JSON.parse(metadata["run"]!);
    change(list, run);
    const sealed = { format: metadata["format"]!, run: JSON.stringify(run) };
    const digest = digestOfTensors(
      list.map((t) => ({ ...t, bytes: t.data })),
      sealed,
    );
    writeFileSync(path, io.serializeSafetensors(list, { ...sealed, digest }));
    await succeed(folder, resume(out));
    const same = [...contents(at(out))].filter(([file, bytes]) => whole.get(file) === bytes).length;
    if (what === "nothing") assert.equal(same, whole.size);
    else assert.ok(same < whole.size, `another bit in ${what} must show`);
  }
});

whenKilled("merge leaves no folder or the whole one, and its base as it was", async () => {
  const args = (out: string): string[] => ["merge", "--model", "m", "--adapter", "a", "--out", out];
  const time = await milliseconds(args("merged"));
  const whole = contents(at("merged"));
  const base = contents(at("m"));
  const counts = new Map<string, number>();
  for (let i = 0; i < TIMES; i++) {
    const out = `merged-${i}`;
    const isKilled = await killed(args(out), time * (0.3 + 0.7 * random()));
    tally(
      counts,
      `${isKilled ? "killed" : "done"}: ` +
        `${existsSync(at(out)) ? "the whole folder" : existsSync(at(`${out}.partial`)) ? "a draft" : "nothing"}`,
    );
    if (existsSync(at(out))) {
      const there = contents(at(out));
      // The lock is the last to go.
      there.delete(".wasm-lora.lock");
      assert.deepEqual(there, whole);
    } else await succeed(folder, args(out));
    assert.ok(!existsSync(at(`${out}.partial`)));
  }
  assert.deepEqual(contents(at("m")), base);
  console.log(told(counts));
});

whenKilled("saving an adapter over another leaves one of the two, or a pair that is refused", async () => {
  const script =
    `
      const { init, models, peft } = await import(${JSON.stringify(library)});
      await init();
      const make = (alpha) => {
        const adapted = peft.getLoraModel(models.loadModel("m").model, { r: 2, loraAlpha: alpha, targetModules: ` +
    `["q_proj"] });
        for (const p of adapted.parameters()) if (p.requiresGrad) p.data.fill(alpha);
        return adapted;
      };
      const both = [make(4), make(64)];
      for (let i = 0; ; i++) { both[i % 2].savePretrained("saved"); if (i === 1) console.log("saving"); }`;
  const counts = new Map<string, number>();
  for (let i = 0; i < TIMES; i++) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      cwd: folder,
      stdio: ["ignore", "pipe", "inherit"],
    });
    await new Promise((resolve) => child.stdout.once("data", resolve));
    await sleep(random() * 60);
    child.kill("SIGKILL");
    await new Promise((resolve) => child.once("close", resolve));
    try {
      const { config, tensors } = peft.readPeftAdapter(at("saved"));
      // The weights say which config they were saved with.
      for (const { data } of tensors.values())
        assert.ok(
          data.every((v) => v === config.loraAlpha),
          "a mixture of the two",
        );
      tally(counts, `lora_alpha ${config.loraAlpha}`);
    } catch (error) {
      assert.ok(error instanceof FormatError, String(error));
      tally(counts, `refused as a ${error.name}`);
    }
    // Another writer might still be at it, so its temporary files, one for each of the two, stay for an hour.
    const left = filesBelow(at("saved")).filter((file) => file.endsWith(".tmp"));
    assert.ok(left.length <= 2 * (i + 1), left.join());
  }
  console.log(told(counts));
});
whenKilled.run();

test("threads that save to one folder, and a reader", async () => {
  const threads = FULL ? 4 : 2;
  const saves = FULL ? 150 : 20;
  const script =
    `
    const { workerData: { library, model, folder, saves, alpha } } = require("node:worker_threads");
    import(library).then(async ({ init, models, peft }) => {
      await init();
      const adapted = peft.getLoraModel(models.loadModel(model).model, { r: 2, loraAlpha: alpha, targetModules: ` +
    `["q_proj"] });
      for (let i = 0; i < saves; i++) adapted.savePretrained(folder);
    });`;
  const data = { library, model: at("m"), folder: at("threads"), saves };
  const ends = Array.from(
    { length: threads },
    (_, i) =>
      new Promise<void>((resolve, reject) => {
        const worker = new Worker(script, { eval: true, workerData: { ...data, alpha: i + 1 } });
        worker.on("error", reject);
        worker.on("exit", () => {
          resolve();
        });
      }),
  );
  let running = true;
  let reads = 0;
  let short = 0;
  const done = Promise.all(ends).finally(() => {
    running = false;
  });
  while (running) {
    await new Promise((resolve) => setImmediate(resolve));
    for (const file of ["adapter_model.safetensors", "adapter_config.json"]) {
      if (!existsSync(at("threads", file))) continue;
      const bytes = readFileSync(at("threads", file));
      reads++;
      try {
        if (file.endsWith("json")) JSON.parse(bytes.toString());
        else io.parseSafetensors(bytes);
      } catch {
        short++;
      }
    }
  }
  await done;
  assert.ok(reads > 0);
  assert.equal(short, 0);
  assert.deepEqual(filesBelow(at("threads")), ["adapter_config.json", "adapter_model.safetensors"]);
  console.log(`${threads} threads, ${saves} saves each: 0 failed; ${reads} reads, ${short} of them short`);
});

const withoutRoom = suite("a disk without room");

withoutRoom("files that may not grow: one line, the old checkpoint whole, the same bits with room again", async () => {
  await succeed(folder, finetune("roomy"));
  await wasmLora(folder, finetune("limited"), async (child) => {
    while (!existsSync(at("limited/checkpoint.safetensors"))) await sleep(1);
    child.kill("SIGTERM");
  });
  const was = contents(at("limited"));
  assert.deepEqual([...was.keys()], ["checkpoint.previous.safetensors", "checkpoint.safetensors", "metrics.jsonl"]);
  const blocks = Math.floor(statSync(at("limited/checkpoint.safetensors")).size / 1024) - 1;
  const { status, stderr } = spawnSync(
    "bash",
    ["-c", `ulimit -f ${blocks}; exec "$0" "$@"`, process.execPath, main, ...resume("limited")],
    { cwd: folder, encoding: "utf8" },
  );
  assert.equal(status, 1);
  assert.match(stderr, /\nFileError: cannot write limited\/checkpoint\.safetensors: [^\n]+\n$/);
  // The step's figures are there before its checkpoint, and are written anew when the run goes on.
  was.delete("metrics.jsonl");
  for (const [file, digest] of was) assert.equal(contents(at("limited")).get(file), digest, file);
  await succeed(folder, resume("limited"));
  assert.deepEqual(contents(at("limited")), contents(at("roomy")));
});

mkdirSync(at("small"));
const mount = (): boolean => spawnSync("mount", ["-t", "tmpfs", "-o", "size=512k", "tmpfs", at("small")]).status === 0;
const unmount = (): boolean => spawnSync("umount", [at("small")]).status === 0;
// A file system of one's own takes root.
const withFileSystem = mount() && unmount() ? withoutRoom : withoutRoom.skip;

withFileSystem("a file system that is full", async () => {
  assert.ok(mount());
  try {
    const counts = new Map<string, number>();
    const size = statSync(at("roomy/checkpoint.safetensors")).size;
    /** Leaves so many bytes free. */
    const fill = (left: number): void => {
      const { bavail, bsize } = statfsSync(at("small"));
      writeFileSync(at("small/filler"), new Uint8Array(Math.max(0, bavail * bsize - left)));
    };
    for (let i = 0; i < TIMES; i++) {
      const out = `small/run-${i}`;
      const merge = ["merge", "--model", "m", "--adapter", "a", "--out", "small/merged"];
      // From no room at all to some for the checkpoints, and none for the results.
      fill(random() * 4 * size);
      const { code, stderr } = await wasmLora(folder, finetune(out));
      if (code === 0) tally(counts, "finetune had room");
      else {
        assert.equal(code, 1, stderr);
        assert.match(stderr, /(^|\n)FileError: cannot write [^\n]+no space[^\n]*\n$/);
        tally(
          counts,
          existsSync(at(out)) && hasCheckpoint(at(out))
            ? "finetune stopped with a whole checkpoint"
            : "finetune stopped before the first one",
        );
      }
      const left = filesBelow(at(out));
      assert.ok(
        left.every((file) => !file.endsWith(".tmp") && !file.startsWith(".")),
        left.join(),
      );
      rmSync(at("small/filler"));
      if (code !== 0) await succeed(folder, hasCheckpoint(at(out)) ? resume(out) : finetune(out));
      assert.deepEqual(contents(at(out)), contents(at("roomy")));
      rmSync(at(out), { recursive: true });
      fill(random() * 2 * size);
      const merged = await wasmLora(folder, merge);
      if (merged.code !== 0) {
        assert.match(merged.stderr, /^FileError: cannot write [^\n]+no space[^\n]*\n$/);
        assert.ok(!existsSync(at("small/merged")) && !existsSync(at("small/merged.partial")));
      }
      tally(counts, merged.code === 0 ? "merge had room" : "merge stopped and left nothing");
      rmSync(at("small/filler"));
      rmSync(at("small/merged"), { recursive: true, force: true });
    }
    console.log(told(counts));
  } finally {
    unmount();
  }
});
withoutRoom.run();

test.run();

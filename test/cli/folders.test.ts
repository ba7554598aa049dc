/**
 * What commands read and write beyond a plain run: other people's folders, other working directories, files that are in
 * the way.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { suite, test } from "uvu";
import { LOCK_FILE, lockFolder } from "../../src/cli/lock.js";
import { init, io, manualSeed, models, noGrad, peft, scope, tensor } from "../../src/index.js";
import {
  appears,
  filesBelow,
  finetuneWith,
  refuse,
  succeed,
  temporaryFolder,
  wasmLora,
  type Outcome,
} from "../support/cli.js";
import { CHARACTERS, TEXT, writeTinyAdapter, writeTinyModel } from "../support/tiny_model.js";
import { ROOT } from "../support/root.js";

const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);
const TINY = ["--prompt", "call", "--seq", "16", "--batch", "1", "--r", "1", "--steps", "4", "--checkpoint-every", "1"];
const finetune = finetuneWith("--model", "m", "--data", "t.txt", ...TINY);
const bytes = (path: string): Buffer => readFileSync(at(path));
/** Every file of a folder with its contents. */
const contents = (path: string): Map<string, string> =>
  new Map(filesBelow(at(path)).map((file) => [file, readFileSync(at(path, file)).toString("base64")]));

await writeTinyModel(at("m"));
await writeTinyModel(at("shards"), { shards: true });
await writeTinyAdapter(at("a"), at("m"));
writeFileSync(at("t.txt"), TEXT);

const merging = suite("merge");

const merge = (out: string, ...more: string[]): string[] => [
  "merge",
  "--model",
  "m",
  "--adapter",
  "a",
  "--out",
  out,
  ...more,
];
const small = {
  "generation_config.json": '{"eos_token_id":[1,2]}',
  "chat_template.jinja": "{{ messages }}",
  "special_tokens_map.json": "{}",
  "added_tokens.json": "{}",
  "tokenizer.model": "\u0000spm",
  "vocab.json": "{}",
  "merges.txt": "#",
  "preprocessor_config.json": "{}",
  LICENSE: "MIT",
  "README.md": "a card",
  "modeling_own.py": "pass",
};
const kept = {
  "old.safetensors": "x",
  "pytorch_model.bin": "x",
  "pytorch_model.bin.index.json": "{}",
  "model.safetensors.index.json": "{}",
  "adapter_model.safetensors": "x",
  "weights.gguf": "x",
  ".hidden": "x",
};

merging("never over its base or its adapter, however that is spelt", async () => {
  symlinkSync(at("m"), at("link"));
  mkdirSync(at("sub"));
  const was = [contents("m"), contents("a")];
  for (const out of ["./m/", "link", "sub/../m"])
    await refuse(folder, merge(out), "FileError", "folder of the model itself");
  for (const out of ["a"]) await refuse(folder, merge(out), "FileError", "folder of the adapter itself");
  await refuse(folder, merge("m", "--model", "link"), "FileError", "folder of the model itself");
  assert.deepEqual([contents("m"), contents("a")], was);
});

merging("only into a new or empty folder", async () => {
  for (const [name, file] of [
    ["other", "config.json"],
    ["dots", ".git"],
  ] as const) {
    mkdirSync(at(name));
    writeFileSync(at(name, file), "kept");
    await refuse(folder, merge(name), "FileError", name, file);
    assert.deepEqual(readdirSync(at(name)), [file]);
  }
  mkdirSync(at("foreign.partial"));
  writeFileSync(at("foreign.partial/mine.txt"), "kept");
  await refuse(folder, merge("foreign"), "FileError", "foreign.partial");
  assert.equal(readFileSync(at("foreign.partial/mine.txt"), "utf8"), "kept");
  mkdirSync(at("empty"));
  await succeed(folder, merge("empty"));
  assert.ok(existsSync(at("empty/config.json")));
});

merging("every small file of the base, and no other weights", async () => {
  cpSync(at("m"), at("full"), { recursive: true });
  for (const [name, text] of Object.entries({ ...small, ...kept })) writeFileSync(at("full", name), text);
  // The hub's cache has links for files.
  writeFileSync(at("blob"), '{"from":"a link"}');
  symlinkSync(at("blob"), at("full/processor_config.json"));
  for (const name of ["onnx", "additional_chat_templates"]) {
    mkdirSync(at("full", name));
    writeFileSync(at("full", name, "tool_use.jinja"), "{{ tools }}");
  }
  await succeed(folder, merge("complete", "--model", "full"));
  assert.deepEqual(
    filesBelow(at("complete")),
    [
      ...Object.keys(small),
      "additional_chat_templates/tool_use.jinja",
      "config.json",
      "model.safetensors",
      "processor_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ].sort(),
  );
  for (const [name, text] of Object.entries(small))
    assert.equal(readFileSync(at("complete", name), "utf8"), text, name);
  const config = JSON.parse(readFileSync(at("m/config.json"), "utf8"));
  assert.deepEqual(JSON.parse(readFileSync(at("complete/config.json"), "utf8")), {
    ...config,
    torch_dtype: "float32",
  });
  await succeed(folder, ["generate", "--model", "complete", "--prompt", "a", "--max-tokens", "2"]);
});

merging("all or nothing: what fails, or is killed, leaves no folder; the next merge clears up", async () => {
  mkdirSync(at("broken"));
  cpSync(at("a/adapter_config.json"), at("broken/adapter_config.json"));
  await refuse(
    folder,
    ["merge", "--model", "m", "--adapter", "broken", "--out", "none"],
    "FileError",
    "broken/adapter_model.safetensors",
  );
  assert.ok(!existsSync(at("none")) && !existsSync(at("none.partial")));
  // As a killed one leaves it.
  const dead = spawnSync(process.execPath, ["-e", ""]).pid;
  mkdirSync(at("killed.partial"));
  writeFileSync(
    at("killed.partial", LOCK_FILE),
    JSON.stringify({ host: "h", boot: "", space: "", process: dead, began: "", token: "t" }),
  );
  writeFileSync(at("killed.partial/vocab.json"), "of another base");
  await refuse(folder, merge("killed"), "FileError", "killed.partial", LOCK_FILE);
  // Before it had the lock.
  mkdirSync(at("early.partial/.writable-abcdef"), { recursive: true });
  writeFileSync(at("early.partial", `${LOCK_FILE}.1.0123456789abcdef.tmp`), "{");
  await succeed(folder, merge("early"));
  assert.deepEqual(readdirSync(at("early")).sort(), [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  mkdirSync(at("probe"));
  const probe = lockFolder("test", at("probe"));
  const self = JSON.parse(readFileSync(at("probe", LOCK_FILE), "utf8"));
  probe.release();
  writeFileSync(at("killed.partial", LOCK_FILE), JSON.stringify({ ...self, process: dead, token: "t" }));
  await succeed(folder, merge("killed"));
  assert.deepEqual(filesBelow(at("killed")), [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  assert.ok(!existsSync(at("killed.partial")));
});

merging("whether table and head are one is what the adapter made of it, and the config says so", async () => {
  await init();
  const ways = {
    head: { modulesToSave: ["lm_head"] },
    table: { modulesToSave: ["embed_tokens"] },
    tied: { modulesToSave: ["lm_head"], ensureWeightTying: true },
  };
  const logits = (model: models.CausalLM): Float32Array =>
    noGrad(() => scope(() => model.forward(tensor(new Int32Array([0, 5, 9]), [1, 3])).data.slice()));
  for (const [name, options] of Object.entries(ways)) {
    manualSeed(4);
    const { model } = models.loadModel(at("m"));
    const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["q_proj"], initLoraWeights: false, ...options });
    // A copy that stayed as it was would hide a mistake.
    for (const [key, p] of adapted.namedParameters())
      if (key.includes("modules_to_save")) p.set(p.data.map((v, i) => v + 0.01 * (i % 7)));
    adapted.eval();
    adapted.savePretrained(at(`saved-${name}`));
    await succeed(folder, merge(`merged-${name}`, "--adapter", `saved-${name}`));
    const config = JSON.parse(readFileSync(at(`merged-${name}/config.json`), "utf8"));
    const { tensors } = io.parseSafetensors(bytes(`merged-${name}/model.safetensors`));
    assert.deepEqual(
      [config.tie_word_embeddings, tensors.has("lm_head.weight")],
      [name === "tied", name !== "tied"],
      name,
    );
    const expected = logits(model);
    const got = logits(models.loadModel(at(`merged-${name}`)).model);
    assert.ok(
      got.every((v, i) => Math.abs(v - expected[i]!) < 1e-5),
      name,
    );
  }
});

merging("the base is the one that the adapter names; a hard link of its weights is not written through", async () => {
  const was = bytes("m/model.safetensors");
  linkSync(at("m/model.safetensors"), at("hard"));
  await succeed(folder, ["merge", "--adapter", "a", "--out", "named"]);
  assert.deepEqual(bytes("hard"), was);
  assert.notDeepEqual(bytes("named/model.safetensors"), was);
});
merging.run();

const withoutModel = suite("generate without --model");

const generate = async (cwd: string, adapter: string): Promise<string> =>
  (
    await succeed(cwd, [
      "generate",
      "--adapter",
      adapter,
      "--prompt",
      "call",
      "--temperature",
      "0",
      "--ids",
      "--max-tokens",
      "5",
    ])
  ).stdout;
const named = async (name: string, base: string | null): Promise<string> => {
  await writeTinyAdapter(at(name), at("m"), base);
  return name;
};

withoutModel(
  "takes the adapter's base: an absolute path, one from here, one from the folder it was trained in",
  async () => {
    const expected = (
      await succeed(folder, [
        "generate",
        "--model",
        "m",
        "--adapter",
        "a",
        "--prompt",
        "call",
        "--temperature",
        "0",
        "--ids",
        "--max-tokens",
        "5",
      ])
    ).stdout;
    mkdirSync(at("runs"));
    assert.equal(await generate(folder, "a"), expected);
    await named("runs/b", "m");
    assert.equal(await generate(folder, "runs/b"), expected);
    assert.equal(await generate(at("runs"), "b"), expected);
    assert.equal(await generate("/", at("runs/b")), expected);
  },
);

withoutModel("or names what it looked for, and --model", async () => {
  await refuse(
    folder,
    ["generate", "--adapter", await named("lost", "meta-llama/Llama-3.2-1B")],
    "FileError",
    "meta-llama/Llama-3.2-1B",
    "--model",
    "lost/adapter_config.json",
  );
  await refuse(
    folder,
    ["merge", "--adapter", await named("lost", "/nowhere/at/all"), "--out", "never"],
    "FileError",
    "/nowhere/at/all",
    "--model",
  );
});

withoutModel("an adapter of the embedded model finds it wherever the package is now", async () => {
  // Its own shapes then tell that this one is not for it: the embedded model was taken.
  await refuse(
    folder,
    ["generate", "--adapter", await named("moved", "/old/place/node_modules/wasm-lora/models/base")],
    "FormatError",
    "moved",
    "128",
  );
});
withoutModel.run();

const finetunesFolder = suite("finetune's folder");

finetunesFolder("a model's or an adapter's is refused, and an adapter without its run", async () => {
  const was = [contents("m"), contents("a")];
  await refuse(folder, finetune("m"), "FileError", "m", "config.json");
  await refuse(folder, finetune("a"), "FileError", "a", "adapter_config.json");
  assert.deepEqual([contents("m"), contents("a")], was);
  cpSync(at("a"), at("only/adapter"), { recursive: true });
  await refuse(folder, finetune("only"), "FileError", "only/adapter");
});

finetunesFolder("belongs to one run: a second is refused by name, and the first goes on", async () => {
  const options = finetune("shared", "--steps", "4000");
  let second: Outcome | undefined;
  const first = await wasmLora(folder, options, async (child) => {
    await appears(child, at("shared/checkpoint.safetensors"));
    second = await wasmLora(folder, options);
    assert.match(second.stderr, new RegExp(`^FileError: finetune: another run has shared \\(process ${child.pid} `));
    child.kill("SIGTERM");
  });
  assert.equal(second!.code, 1);
  assert.equal(first.code, 130, first.stderr);
  assert.deepEqual(filesBelow(at("shared")), [
    "checkpoint.previous.safetensors",
    "checkpoint.safetensors",
    "metrics.jsonl",
  ]);
});

finetunesFolder("a reader that closes the pipe does not end the training", async () => {
  const child = spawn(process.execPath, [new URL("dist/src/cli/main.js", ROOT).pathname, ...finetune("piped")], {
    cwd: folder,
    stdio: ["ignore", "pipe", "ignore"],
  });
  child.stdout.destroy();
  assert.equal(await new Promise((resolve) => child.once("close", resolve)), 0);
  assert.ok(existsSync(at("piped/adapter/adapter_config.json")));
});
finetunesFolder.run();

test("two runs that take turns in one process: each the bits that it has alone", () => {
  const script =
    `
    const { io } = await import(${JSON.stringify(new URL("dist/src/index.js", ROOT).href)}), { ` +
    `readdirSync, readFileSync } = await import("node:fs");
    const { finetune, FINETUNE_DEFAULTS } = await ` +
    `import(${JSON.stringify(new URL("dist/src/cli/finetune.js", ROOT).href)});
    for (const file of readdirSync("m")) io.memoryFiles.set("memory:m/" + file, readFileSync("m/" + file));
    io.memoryFiles.set("memory:t", readFileSync("t.txt"));
    const run = (out, seed) => finetune({ ...FINETUNE_DEFAULTS, model: "memory:m", data: "memory:t", out: ` +
    `"memory:" + out, r: 2, dropout: 0.2, steps: 6, batch: 2, seq: 16, prompt: "call", seed, checkpointEvery: 2 }, ` +
    `new Set());
    await run("a", 1); await run("b", 2);
    await Promise.all([run("c", 1), run("d", 2), run("c", 3).catch((error) => console.error(error.name))]);
    const adapter = (out) => Buffer.from(io.memoryFiles.get("memory:" + out + ` +
    `"/adapter/adapter_model.safetensors")).toString("base64");
    console.error(adapter("a") === adapter("c"), adapter("b") === adapter("d"), adapter("a") === adapter("b"));`;
  const { stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    cwd: folder,
    encoding: "utf8",
  });
  assert.match(stderr, /^FileError$/m);
  assert.match(stderr, /^true true false$/m);
});

const resuming = suite("--resume");

await succeed(folder, finetune("whole"));
/** The finished run of `whole` after its second step, in a folder of this name. */
const stopped = (out: string): void => {
  cpSync(at("whole"), at(out), { recursive: true });
  for (const file of ["adapter", "loss.svg", "metrics.jsonl", "report.html", "result.json"])
    rmSync(at(out, file), { recursive: true });
  const { metadata, tensors } = io.parseSafetensors(bytes("whole/checkpoint.previous.safetensors"));
  assert.ok(metadata["digest"] && tensors.size > 0);
  renameSync(at(out, "checkpoint.previous.safetensors"), at(out, "checkpoint.safetensors"));
};
const same = (out: string): void => {
  for (const file of [
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "result.json",
    "loss.svg",
    "metrics.jsonl",
    "report.html",
  ])
    assert.deepEqual(bytes(`${out}/${file}`), bytes(`whole/${file}`), file);
};

resuming("from anywhere, with or without the paths, which may be spelt otherwise", async () => {
  mkdirSync(at("deep/er"), { recursive: true });
  const ways: [cwd: string, ...args: string[]][] = [
    ["deep/er", "--out", "../../r0"],
    ["deep", "--out", "../r1", "--data", "../t.txt", "--model", "../m"],
    ["", "--out", at("r2"), "--data", at("t.txt"), "--model", "./m/"],
  ];
  for (const [i, [cwd, ...args]] of ways.entries()) {
    stopped(`r${i}`);
    await succeed(at(cwd), ["finetune", "--resume", ...args]);
    same(`r${i}`);
  }
});

resuming("with the inputs somewhere else: told which, and which option names it", async () => {
  stopped("moved-inputs");
  mkdirSync(at("elsewhere"));
  renameSync(at("t.txt"), at("elsewhere/text"));
  try {
    await refuse(folder, ["finetune", "--resume", "--out", "moved-inputs"], "FileError", "t.txt", "--data");
    await succeed(folder, ["finetune", "--resume", "--out", "moved-inputs", "--data", "elsewhere/text"]);
    same("moved-inputs");
  } finally {
    renameSync(at("elsewhere/text"), at("t.txt"));
  }
});

resuming("with other contents at the same path, or another model: refused", async () => {
  stopped("other-inputs");
  writeFileSync(at("other.txt"), TEXT.replace("ishmael", "ishmaul"));
  await writeTinyModel(at("m2"), { seed: 5 });
  await refuse(
    folder,
    ["finetune", "--resume", "--out", "other-inputs", "--data", "other.txt"],
    "ArgumentError",
    "other.txt",
    "--data",
  );
  await refuse(
    folder,
    ["finetune", "--resume", "--out", "other-inputs", "--model", "m2"],
    "ArgumentError",
    "m2",
    "--model",
  );
  await refuse(
    folder,
    ["finetune", "--resume", "--out", "other-inputs", "--lr", "1"],
    "ArgumentError",
    'lr = "auto"',
    "1",
  );
});

resuming("over a damaged checkpoint: said in a line, gone on from the one before it, the same bits", async () => {
  cpSync(at("whole"), at("flipped"), { recursive: true });
  const damaged = bytes("flipped/checkpoint.safetensors");
  damaged[damaged.length - 9]! ^= 4;
  writeFileSync(at("flipped/checkpoint.safetensors"), damaged);
  rmSync(at("flipped/adapter"), { recursive: true });
  const { stderr, stdout } = await succeed(folder, ["finetune", "--resume", "--out", "flipped"]);
  assert.match(
    stderr,
    /^flipped\/checkpoint\.safetensors: it is damaged.* Going on from the checkpoint before it, of step 3\.$/m,
  );
  assert.match(stdout, /^Resuming after step 3 of 4$/m);
  same("flipped");
  assert.deepEqual(contents("flipped"), contents("whole"));
});

resuming("needs --data only where there is no run yet", async () => {
  await refuse(folder, ["finetune", "--out", "fresh"], "error", "--data");
  await refuse(folder, ["finetune", "--out", "fresh", "--resume"], "FileError", "fresh/checkpoint.safetensors");
});
resuming.run();

const beforeTheFirstStep = suite("before the first step");

beforeTheFirstStep("a text too short says what would do", async () => {
  writeFileSync(at("short.txt"), "call me");
  await refuse(
    folder,
    finetune("none", "--data", "short.txt", "--seq", "100"),
    "ArgumentError",
    "short.txt has 8 tokens",
    "seq = 100",
    "1001",
    "--seq 16",
  );
  writeFileSync(at("medium.txt"), TEXT.slice(0, 200));
  await refuse(
    folder,
    finetune("none", "--data", "medium.txt", "--seq", "100"),
    "ArgumentError",
    "201 tokens",
    "Use --seq 20 or less",
  );
  assert.deepEqual(filesBelow(at("none")), []);
  await succeed(folder, finetune("medium", "--data", "medium.txt", "--seq", "20"));
});

beforeTheFirstStep("a token that the model has no row for: file, line and token", async () => {
  await writeTinyModel(at("more"), { characters: [...CHARACTERS, "#"] });
  writeFileSync(at("late.txt"), `${TEXT}call # me\n${TEXT}`);
  await refuse(
    folder,
    finetune("none", "--model", "more", "--data", "late.txt"),
    "FormatError",
    "late.txt, line 21",
    `token ${CHARACTERS.length}`,
    `vocabulary of ${CHARACTERS.length}`,
  );
  await refuse(
    folder,
    finetune("none", "--model", "more", "--prompt", "a#b"),
    "FormatError",
    "--prompt",
    `token ${CHARACTERS.length}`,
  );
  // Unused it does no harm.
  await succeed(folder, finetune("unused", "--model", "more"));
});

beforeTheFirstStep("more memory than there is: told at once, with what to lower", async () => {
  for (const [batch, r] of [
    ["1000000000", "1"],
    ["9007199254740991", "1"],
    ["1", "100000000"],
  ] as const) {
    const start = process.hrtime.bigint();
    await refuse(
      folder,
      finetune("none", "--batch", batch, "--r", r),
      "ArgumentError",
      "MB at the peak",
      `--batch (${batch})`,
      "--seq (16)",
      `--r (${r})`,
      "--gradient-checkpointing",
    );
    assert.ok(process.hrtime.bigint() - start < 30_000_000_000n);
  }
  assert.deepEqual(filesBelow(at("none")), []);
});

beforeTheFirstStep("layers that the model has not", async () => {
  await refuse(folder, finetune("none", "--target-modules", "q_proj,v_porj"), "ArgumentError", "v_porj", "v_proj");
  await refuse(folder, finetune("none", "--target-modules", ".*_nothing"), "ArgumentError", "_nothing");
  for (const [i, names] of ["all-linear", ".*_proj", "(q|v)_proj$"].entries()) {
    if (i < 2) await succeed(folder, finetune(`names${i}`, "--target-modules", names));
    else await refuse(folder, finetune("none", "--target-modules", names), "ArgumentError", "(q|v)_proj$");
  }
  // The files differ in what their configs say.
  const [pattern, word] = ["names1", "names0"].map((run) => peft.readPeftAdapter(at(run, "adapter")).tensors);
  assert.deepEqual(pattern, word);
});
beforeTheFirstStep.run();

test("a learning rate that ruins the last step: an error, and of it nothing is written", async () => {
  for (const lr of ["1e38"]) {
    const { code, stderr } = await wasmLora(folder, finetune(`ruined-${lr}`, "--lr", lr, "--steps", "1"));
    assert.equal(code, 1);
    assert.match(stderr, /\nArgumentError: finetune: .*--lr.*\n$/);
    assert.deepEqual(filesBelow(at(`ruined-${lr}`)), ["metrics.jsonl"]);
    // What was measured before it.
    assert.match(readFileSync(at(`ruined-${lr}/metrics.jsonl`), "utf8"), /^\{"step":0,"evalLoss":[\d.]+\}\n$/);
  }
});

const inspecting = suite("inspect");

inspecting("a sharded folder", async () => {
  const { stdout } = await succeed(folder, ["inspect", "shards"]);
  for (const text of [
    "shards/model-00001-of-00002.safetensors",
    "shards/model-00002-of-00002.safetensors",
    "model.embed_tokens.weight",
    "model.norm.weight",
  ])
    assert.ok(stdout.includes(text), text);
});

inspecting("an index that leads out of its folder is refused", async () => {
  mkdirSync(at("lead"));
  writeFileSync(
    at("lead/model.safetensors.index.json"),
    JSON.stringify({ weight_map: { x: "../m/model.safetensors" } }),
  );
  await refuse(folder, ["inspect", "lead"], "FormatError", "../m/model.safetensors");
});

inspecting(
  "huge and hostile files: a part of them, on lines of their own, nothing for a terminal to obey",
  async () => {
    mkdirSync(at("hostile"));
    const evil = "w\u001b]0;title\u0007\u001b[2J\nfake line\u202e";
    const many = Array.from({ length: 20_000 }, (_, i) => ({
      name: `t${i}`,
      dtype: "U8" as const,
      shape: [0],
      data: new Uint8Array(0),
    }));
    writeFileSync(
      at("hostile/adapter_model.safetensors"),
      io.serializeSafetensors([{ name: evil, dtype: "U8", shape: [1], data: new Uint8Array(1) }, ...many], {
        [evil]: evil,
        long: "x".repeat(5000),
      }),
    );
    writeFileSync(
      at("hostile/adapter_config.json"),
      `{"deep":${"[".repeat(20_000)}${"]".repeat(20_000)},"wide":[${"1,".repeat(50_000)}1],` +
        `${JSON.stringify(evil)}:${JSON.stringify(evil)}}`,
    );
    const { stdout } = await succeed(folder, ["inspect", "hostile"]);
    assert.doesNotMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
    assert.ok(!/^fake/m.test(stdout) && stdout.includes("\\nfake line"));
    assert.ok(stdout.length < 1_000_000, `${stdout.length} characters`);
    assert.match(stdout, /^ {2}20001 tensors, 1 values$/m);
    assert.match(stdout, /^ {2}\.\.\. and 15,001 more$/m);
  },
);
inspecting.run();

test("paths that mean nothing to a command", async () => {
  for (const args of [
    finetune("memory:x"),
    ["merge", "--adapter", "memory:a", "--out", "x"],
    ["inspect", "memory:x"],
  ]) {
    await refuse(folder, args, "error", "memory:");
  }
  await refuse(folder, ["generate", "--model", ""], "error", "--model");
});

test("a fault that nobody foresaw is one line, too, and shows where on demand", () => {
  const main = new URL("dist/src/cli/main.js", ROOT).pathname;
  // The file system answers with an error of the language.
  writeFileSync(
    at("preload.mjs"),
    `import fs from "node:fs"; import { syncBuiltinESMExports } from "node:module";
    fs.existsSync = () => { throw new TypeError("first\\nsecond\\u001b[2J"); }; syncBuiltinESMExports();`,
  );
  const run = (debug: string): { status: number | null; stderr: string } =>
    spawnSync(process.execPath, ["--import", "./preload.mjs", main, "inspect", "m"], {
      cwd: folder,
      encoding: "utf8",
      env: { ...process.env, WASM_LORA_DEBUG: debug },
    });
  const quiet = run("");
  const loud = run("1");
  assert.deepEqual([quiet.status, loud.status], [1, 1]);
  assert.match(
    quiet.stderr,
    /^InternalError: TypeError: first\\nsecond\\u001b\[2J \(a fault of wasm-lora: please.*WASM_LORA_DEBUG=1.*\)\n$/,
  );
  assert.ok(
    loud.stderr.startsWith(quiet.stderr) &&
      /^\s+at .*inspect\.js:\d+/m.test(loud.stderr) &&
      !loud.stderr.includes("\u001b"),
    loud.stderr,
  );
});

test.run();

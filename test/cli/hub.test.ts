/**
 * org/name[@revision] on the command line: against a hub on this machine (test/support/hub_server.ts), from an empty
 * cache, without a connection, and through everything that a server and a connection do to a download.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import { findFolder, type FindOptions, type Found } from "../../src/cli/hub.js";
import { CachedRepo } from "../../src/cli/hub_cache.js";
import { loadTokenizer } from "../../src/data/index.js";
import { parseSafetensors, serializeSafetensors } from "../../src/io/safetensors.js";
import { BASE_MODEL, refuse, succeed, temporaryFolder, TINY, wasmLora, writeText } from "../support/cli.js";
import { HubServer, type Asked, type Fault } from "../support/hub_server.js";

const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);
const read = (file: string): Uint8Array => readFileSync(join(BASE_MODEL, file));
const hub = await HubServer.start();
const gone = await HubServer.start();
gone.stop();

Object.assign(process.env, { HF_ENDPOINT: hub.endpoint, HF_HOME: at("home"), HF_HUB_OFFLINE: "", HOME: folder });

const WEIGHTS = read("model.safetensors");
const CONFIGS: Record<string, Uint8Array> = Object.fromEntries(
  ["config.json", "tokenizer.json", "tokenizer_config.json"].map((file) => [file, read(file)]),
);
const MODEL: Record<string, Uint8Array> = { ...CONFIGS, "model.safetensors": WEIGHTS };
const OTHERS = Object.fromEntries(
  [
    "README.md",
    "pytorch_model.bin",
    "consolidated.safetensors",
    "model.gguf",
    "onnx/model.onnx",
    "original/x.json",
  ].map((file) => [file, Buffer.from(`not to be downloaded: ${file}`)]),
);
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const gitSha1 = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
const BLOB = sha256(WEIGHTS);

/** A cache of its own, and what was asked and said meanwhile. */
async function find(
  named: string,
  { cache, wanted = "model", ...options }: FindOptions & { cache: string; wanted?: "model" | "adapter" },
): Promise<Found & { asked: Asked[]; said: string }> {
  const { error } = console;
  const write = process.stderr.write;
  const lines: unknown[] = [];
  console.error = (line: unknown) => lines.push(line);
  process.stderr.write = () => true;
  process.env["HF_HUB_CACHE"] = at(cache);
  const from = hub.asked.length;
  try {
    const found = await findFolder("test", named, wanted, options);
    return { ...found, asked: hub.asked.slice(from), said: lines.join("\n") };
  } finally {
    console.error = error;
    process.stderr.write = write;
    delete process.env["HF_HUB_CACHE"];
  }
}

/** A hub that does so for the time of the work; the faults come one after the other, to what matches. */
async function withFaults<T>(pattern: RegExp, faults: (Fault | undefined)[], work: () => Promise<T>): Promise<T> {
  const left = [...faults];
  hub.fault = ({ url }) => (pattern.test(url) ? left.shift() : undefined);
  try {
    return await work();
  } finally {
    hub.fault = () => undefined;
  }
}
async function withEnvironment<T>(values: Record<string, string>, work: () => Promise<T>): Promise<T> {
  const before = { ...process.env };
  Object.assign(process.env, values);
  try {
    return await work();
  } finally {
    for (const name of Object.keys(values)) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
}
const rejects = (promise: Promise<unknown>, name: string, ...mentions: string[]): Promise<void> =>
  assert.rejects(promise, (error: Error) => {
    assert.equal(error.name, name, String(error));
    for (const mention of mentions) assert.ok(error.message.includes(mention), `${error.message}\nlacks ${mention}`);
    return true;
  });
const isSame = (path: string): void =>
  assert.deepEqual(readFileSync(join(path, "model.safetensors")), Buffer.from(WEIGHTS));
const bodies = (asked: readonly Asked[]): string[] =>
  asked.filter(({ server, url }) => server === "storage" || url.includes("/resolve/")).map(({ url }) => url);

const COMMIT = hub.publish("org/base", { ...MODEL, ...OTHERS });
hub.publish("org/base", { ...MODEL, "generation_config.json": Buffer.from("{}") }, "dev/next");

const commands = suite("commands");

writeText(at("text.txt"));
const finetune = (out: string, ...options: string[]): string[] => [
  ...["finetune", "--data", "text.txt", "--out", out, ...TINY],
  ...options,
];
const losses = (out: string): number[] => JSON.parse(readFileSync(at(out, "result.json"), "utf8")).losses;

commands("finetune takes a model from the hub into an empty cache, and the next time from there, offline", async () => {
  assert.ok(!existsSync(at("home")));
  const first = await succeed(folder, finetune("first", "--model", "org/base"));
  assert.match(first.stderr, /Downloading 4 files of org\/base@[0-9a-f]{40}, 1\.8 MB, from http:/);
  assert.match(first.stdout, new RegExp(`Loading org/base \\(.*snapshots.${COMMIT}\\) \\.\\.\\.`));
  const before = hub.asked.length;
  const second = await succeed(folder, finetune("second", "--model", "org/base", "--offline"));
  assert.equal(hub.asked.length, before, "nobody was asked");
  assert.ok(!second.stderr.includes("Downloading"));
  await succeed(folder, finetune("local", "--model", BASE_MODEL));
  assert.deepEqual(losses("first"), losses("local"));
  assert.deepEqual(losses("second"), losses("local"));
});

commands(
  "the result names the model as it was given, and its commit; the adapter's config as PEFT finds it",
  async () => {
    await succeed(folder, finetune("dev", "--model", "org/base@dev/next"));
    const { settings, modelCommit } = JSON.parse(readFileSync(at("dev/result.json"), "utf8"));
    assert.equal(settings.model, "org/base@dev/next");
    assert.match(modelCommit, /^[0-9a-f]{40}$/);
    assert.notEqual(modelCommit, COMMIT);
    const config = JSON.parse(readFileSync(at("dev/adapter/adapter_config.json"), "utf8"));
    assert.equal(config.base_model_name_or_path, "org/base");
  },
);

commands("a resumed run takes the commit that it began with, wherever the branch is now", async () => {
  hub.publish("org/moving", MODEL);
  const run = [...finetune("moved", "--model", "org/moving", "--steps", "200", "--checkpoint-every", "1")];
  const stopped = await wasmLora(folder, run, async (child) => {
    while (!existsSync(at("moved/checkpoint.safetensors")) && child.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill("SIGINT");
  });
  assert.equal(stopped.code, 130, stopped.stderr);
  const other = parseSafetensors(WEIGHTS).tensors;
  const tensors = [...other.values()].map(({ name, dtype, shape, bytes }) => ({
    ...{ name, dtype, shape },
    data: name.endsWith("norm.weight") ? bytes.map(() => 0) : bytes,
  }));
  hub.publish("org/moving", { ...MODEL, "model.safetensors": serializeSafetensors(tensors, { format: "pt" }) });
  // What is another model is refused by its digest: it was not asked for.
  const resumed = await wasmLora(folder, ["finetune", "--resume", "--out", "moved", "--offline"], async (child) => {
    child.stdout!.on("data", (text: Buffer) => {
      if (text.includes("Resuming after step")) child.kill("SIGINT");
    });
  });
  assert.match(resumed.stdout, /Loading org\/moving@[0-9a-f]{40} /, resumed.stderr);
});

commands("generate, merge and inspect take adapters and models; an adapter's base is found by its name", async () => {
  const file = (name: string): Uint8Array => readFileSync(at("first/adapter", name));
  hub.publish("org/adapter", {
    "adapter_config.json": file("adapter_config.json"),
    "adapter_model.safetensors": file("adapter_model.safetensors"),
    "tokenizer.json": CONFIGS["tokenizer.json"]!,
  });
  const write = ["--prompt", "The", "--max-tokens", "5", "--ids"];
  const { stdout } = await succeed(folder, ["generate", "--model", BASE_MODEL, "--adapter", "first/adapter", ...write]);
  assert.equal((await succeed(folder, ["generate", "--adapter", "org/adapter", ...write])).stdout, stdout);
  assert.equal((await succeed(folder, ["generate", "--adapter", "org/adapter", "--offline", ...write])).stdout, stdout);
  await succeed(folder, ["merge", "--adapter", "org/adapter", "--out", "merged", "--offline"]);
  assert.ok(existsSync(at("merged/tokenizer.json")));
  assert.match((await succeed(folder, ["inspect", "org/adapter"])).stdout, /lora_A/);
  assert.match((await succeed(folder, ["inspect", "org/base"])).stdout, /model\.embed_tokens\.weight/);
  await refuse(folder, ["generate", "--model", "org/adapter"], "FileError", "org/adapter", "--adapter");
  await refuse(folder, ["generate", "--adapter", "org/base"], "FileError", "adapter_config.json", "--model");
});

commands("a folder of that name wins", async () => {
  mkdirSync(at("org"));
  cpSync(BASE_MODEL, at("org/base"), { recursive: true });
  try {
    const before = hub.asked.length;
    await succeed(folder, ["generate", "--model", "org/base", "--max-tokens", "1"]);
    assert.equal(hub.asked.length, before);
  } finally {
    rmSync(at("org"), { recursive: true });
  }
});

commands.run();

const cache = suite("the cache");

cache("has the layout of huggingface_hub, and only what is needed", async () => {
  const { path, commit } = await find("org/base", { cache: "layout" });
  assert.equal(commit, COMMIT);
  const repo = at("layout/models--org--base");
  assert.equal(path, join(repo, "snapshots", COMMIT));
  assert.deepEqual(readdirSync(path).sort(), Object.keys(MODEL).sort());
  assert.equal(readFileSync(join(repo, "refs/main"), "utf8"), COMMIT);
  const blobs = [BLOB, ...Object.values(CONFIGS).map(gitSha1)];
  assert.deepEqual(readdirSync(join(repo, "blobs")).sort(), blobs.sort());
  for (const [file, bytes] of Object.entries(MODEL)) {
    assert.ok(lstatSync(join(path, file)).isSymbolicLink());
    const blob = file === "model.safetensors" ? BLOB : gitSha1(bytes);
    assert.equal(readlinkSync(join(path, file)), join("../../blobs", blob));
    assert.deepEqual(readFileSync(join(path, file)), Buffer.from(bytes));
  }
  assert.deepEqual(readdirSync(join(at("layout"), ".locks/models--org--base")), []);
});

cache("a model's chat templates come along, in a folder too", async () => {
  hub.publish("org/chatty", {
    ...MODEL,
    "chat_template.jinja": Buffer.from("{{ messages[0].content }}!"),
    "additional_chat_templates/tool_use.jinja": Buffer.from("{{ tools | length }} tools"),
  });
  const { path } = await find("org/chatty", { cache: "chatty" });
  const tokenizer = loadTokenizer(path);
  const messages = [{ role: "user", content: "hi" }];
  assert.equal(tokenizer.applyChatTemplate(messages), "hi!");
  assert.equal(tokenizer.applyChatTemplate(messages, { tools: [{}, {}] }), "2 tools");
});

cache("keeps a repository's locks under its name, however its own path is spelled", async () => {
  await find("org/base", { cache: "spelled/" });
  assert.deepEqual(readdirSync(at("spelled")).sort(), [".locks", "models--org--base"]);
  assert.deepEqual(readdirSync(at("spelled/.locks")), ["models--org--base"]);
  for (const path of ["./cache", "cache//deep", "cache/../other", "/"])
    assert.equal(new CachedRepo(path, "org/base").locks, join(path, ".locks", "models--org--base"));
});

cache("what is there is not downloaded again, in another revision neither", async () => {
  assert.deepEqual(bodies((await find("org/base", { cache: "layout" })).asked), []);
  const { asked, path, commit } = await find("org/base@dev/next", { cache: "layout" });
  assert.deepEqual(
    bodies(asked).map((url) => url.split("/").at(-1)),
    ["generation_config.json"],
  );
  isSame(path);
  assert.equal(readFileSync(at("layout/models--org--base/refs/dev/next"), "utf8"), commit);
});

cache("that huggingface_hub wrote is read", async () => {
  const commit = "0123456789abcdef0123456789abcdef01234567";
  const repo = at("python/models--some--model");
  for (const part of ["blobs", "refs", `snapshots/${commit}`, `.no_exist/${commit}`])
    mkdirSync(join(repo, part), { recursive: true });
  writeFileSync(at("python/CACHEDIR.TAG"), "");
  writeFileSync(at("python/version.txt"), "1");
  writeFileSync(join(repo, "refs/main"), commit);
  writeFileSync(join(repo, `.no_exist/${commit}/chat_template.jinja`), "");
  for (const [file, bytes] of Object.entries(MODEL)) {
    writeFileSync(join(repo, "blobs", sha256(bytes)), bytes);
    symlinkSync(`../../blobs/${sha256(bytes)}`, join(repo, "snapshots", commit, file));
  }
  for (const named of ["some/model", "some/model@main", `some/model@${commit}`]) {
    const found = await find(named, { cache: "python", offline: true });
    assert.deepEqual([found.path, found.commit], [join(repo, "snapshots", commit), commit]);
    isSame(found.path);
  }
  rmSync(join(repo, "snapshots", commit, "model.safetensors"));
  await rejects(find("some/model", { cache: "python", offline: true }), "FileError", "some/model", "--offline");
});

cache("is where HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and else the home folder say", async () => {
  const home = { HF_HOME: "", HF_HUB_OFFLINE: "1" };
  const told = async (values: Record<string, string>, path: string): Promise<void> =>
    withEnvironment({ ...home, ...values }, () =>
      rejects(findFolder("test", "a/b", "model"), "FileError", path, "HF_HUB_OFFLINE"),
    );
  await told({ HF_HUB_CACHE: at("one") }, at("one "));
  await told({ HF_HOME: at("two") }, at("two/hub "));
  await told({ XDG_CACHE_HOME: at("three") }, at("three/huggingface/hub "));
  await told({}, at(".cache/huggingface/hub "));
  await told({ HF_HOME: "~/four" }, at("four/hub "));
});

cache("that is full is told of before anything is downloaded", async () => {
  hub.claims = { "model.safetensors": 2 ** 52 };
  try {
    await rejects(find("org/base", { cache: "full" }), "FileError", "4294967296.0 MB", "free", "HF_HUB_CACHE");
  } finally {
    hub.claims = {};
  }
});

cache("two processes at once download it once", async () => {
  const from = hub.asked.length;
  await withFaults(/signature/, [{ cut: 1000 }], () =>
    withEnvironment({ HF_HUB_CACHE: at("both") }, async () => {
      const generate = ["generate", "--model", "org/base", "--max-tokens", "3", "--temperature", "0"];
      const [one, two] = await Promise.all([succeed(folder, generate), succeed(folder, generate)]);
      assert.equal(one.stdout, two.stdout);
    }),
  );
  const weights = hub.asked.slice(from).filter(({ server }) => server === "storage");
  assert.deepEqual(
    weights.map(({ headers }) => headers.range),
    [undefined, "bytes=1000-"],
  );
});

cache.run();

const downloads = suite("a download");

downloads("is resumed after the connection ended, in the same process", async () => {
  const { asked, path } = await withFaults(/signature/, [{ cut: 400_000 }, { cut: 500_000 }], () =>
    find("org/base", { cache: "cut" }),
  );
  isSame(path);
  const ranges = asked.filter(({ server }) => server === "storage").map(({ headers }) => headers.range);
  assert.deepEqual(ranges, [undefined, "bytes=400000-", "bytes=900000-"]);
});

downloads("is resumed by the next process", async () => {
  const closed: Fault = { status: 503, headers: { "retry-after": "0" } };
  await withFaults(/signature/, [{ cut: 400_000 }, closed, closed, closed, closed, closed], () =>
    rejects(find("org/base", { cache: "later" }), "FileError", "503", "try again"),
  );
  assert.equal(statSync(at(`later/models--org--base/blobs/${BLOB}.wasm-lora.incomplete`)).size, 400_000);
  const { asked, path, said } = await find("org/base", { cache: "later" });
  assert.deepEqual(
    asked.filter(({ server }) => server === "storage").map(({ headers }) => headers.range),
    ["bytes=400000-"],
  );
  assert.match(said, /1\.8 MB \(0\.4 are there\)/);
  isSame(path);
});

downloads("that is stopped says that it goes on, and does", async () => {
  await withEnvironment({ HF_HUB_CACHE: at("stopped") }, async () => {
    const blobs = at("stopped/models--org--base/blobs");
    const inspect = ["inspect", "org/base"];
    const { code, stderr } = await withFaults(/signature/, [{ cut: 700_000 }, "silence"], () =>
      wasmLora(folder, inspect, async (child) => {
        const part = join(blobs, `${BLOB}.wasm-lora.incomplete`);
        while ((statSync(part, { throwIfNoEntry: false })?.size ?? 0) < 700_000 && child.exitCode === null)
          await new Promise((resolve) => setTimeout(resolve, 5));
        child.kill("SIGINT");
      }),
    );
    assert.equal(code, 130, stderr);
    assert.match(stderr, /Stopped\. What has come stays in .*stopped: the same command goes on with it\.\n$/);
    assert.deepEqual(readdirSync(at("stopped/.locks/models--org--base")), []);
    const from = hub.asked.length;
    await succeed(folder, inspect);
    const storage = hub.asked.slice(from).filter(({ server }) => server === "storage");
    assert.deepEqual(
      storage.map(({ headers }) => headers.range),
      ["bytes=700000-"],
    );
  });
});

downloads("goes on from what huggingface_hub left, if nobody writes it", async () => {
  const blobs = at("theirs/models--org--base/blobs");
  const left = join(blobs, `${BLOB}.incomplete`);
  mkdirSync(blobs, { recursive: true });
  writeFileSync(left, WEIGHTS.subarray(0, 1234));
  utimesSync(left, 1e9, 1e9);
  const { asked, path } = await find("org/base", { cache: "theirs" });
  assert.equal(asked.find(({ server }) => server === "storage")!.headers.range, "bytes=1234-");
  isSame(path);
  rmSync(at("theirs"), { recursive: true });
  mkdirSync(blobs, { recursive: true });
  writeFileSync(left, WEIGHTS.subarray(0, 1234));
  const second = await find("org/base", { cache: "theirs" });
  assert.equal(second.asked.find(({ server }) => server === "storage")!.headers.range, undefined);
  assert.ok(existsSync(left), "it is somebody else's");
});

downloads("of other contents is refused and deleted", async () => {
  const wrong = Buffer.from(WEIGHTS);
  wrong[1000]! ^= 1;
  await withFaults(/signature/, [{ instead: wrong }], () =>
    rejects(find("org/base", { cache: "wrong" }), "FormatError", "model.safetensors", BLOB, "deleted"),
  );
  const blobs = readdirSync(at("wrong/models--org--base/blobs"));
  assert.ok(!blobs.some((blob) => blob.startsWith(BLOB)), String(blobs));
  const config = Buffer.from(MODEL["config.json"]!);
  config[3]! ^= 1;
  await withFaults(/config\.json/, [{ instead: config }], () =>
    rejects(find("org/base", { cache: "wrong2" }), "FormatError", "config.json", "deleted"),
  );
  await withFaults(/signature/, [{ instead: Buffer.concat([WEIGHTS, wrong]) }], () =>
    rejects(find("org/base", { cache: "wrong" }), "FormatError", "model.safetensors", "deleted"),
  );
  isSame((await find("org/base", { cache: "wrong" })).path);
});

downloads("whose earlier part is damaged is taken from its start", async () => {
  const blobs = at("damaged/models--org--base/blobs");
  mkdirSync(blobs, { recursive: true });
  writeFileSync(join(blobs, `${BLOB}.wasm-lora.incomplete`), Buffer.alloc(5000, 7));
  const { asked, path } = await find("org/base", { cache: "damaged" });
  assert.deepEqual(
    asked.filter(({ server }) => server === "storage").map(({ headers }) => headers.range),
    ["bytes=5000-", undefined],
  );
  isSame(path);
});

downloads("is tried again after 429, 500 and a server that goes silent", async () => {
  const again = { "retry-after": "0" };
  const faults: Fault[] = [{ status: 429, headers: again }, { status: 500, headers: again }, "silence"];
  await withEnvironment({ HF_HUB_DOWNLOAD_TIMEOUT: "0.3" }, () =>
    withFaults(/signature/, faults, async () => isSame((await find("org/base", { cache: "again" })).path)),
  );
  await withFaults(/\/api\//, [{ status: 429, headers: again }, undefined, { status: 502, headers: again }], async () =>
    isSame((await find("org/base", { cache: "again2" })).path),
  );
});

downloads("of shards takes those of the index, and none that is not there", async () => {
  const tensors = [...parseSafetensors(WEIGHTS).tensors.values()].map(({ name, dtype, shape, bytes }) => ({
    ...{ name, dtype, shape },
    data: bytes,
  }));
  const half = tensors.length >> 1;
  const map = (second: string): Uint8Array =>
    Buffer.from(
      JSON.stringify({
        weight_map: Object.fromEntries(tensors.map(({ name }, i) => [name, i < half ? "one.safetensors" : second])),
      }),
    );
  const index = "model.safetensors.index.json";
  const one = serializeSafetensors(tensors.slice(0, half));
  const two = serializeSafetensors(tensors.slice(half));
  hub.publish("org/shards", {
    ...CONFIGS,
    ...OTHERS,
    ...{ [index]: map("two.safetensors"), "one.safetensors": one, "two.safetensors": two },
  });
  const { path } = await find("org/shards", { cache: "shards" });
  assert.deepEqual(
    readdirSync(path).sort(),
    [...Object.keys(CONFIGS), index, "one.safetensors", "two.safetensors"].sort(),
  );
  await find("org/shards", { cache: "shards", offline: true });
  // Damaged in the cache, it is downloaded anew where it can be.
  for (const damaged of ["", "{", map("two.safetensors").fill(0)]) {
    writeFileSync(join(path, index), damaged);
    await rejects(find("org/shards", { cache: "shards", offline: true }), "FormatError", index);
    await withEnvironment({ HF_ENDPOINT: gone.endpoint }, () =>
      rejects(find("org/shards", { cache: "shards" }), "FileError", "cannot be reached"),
    );
    assert.equal((await find("org/shards", { cache: "shards" })).path, path);
    assert.deepEqual(readFileSync(join(path, index)), map("two.safetensors"));
  }
  hub.publish("org/shards", { ...CONFIGS, [index]: map("three.safetensors"), "one.safetensors": one }, "less");
  await rejects(find("org/shards@less", { cache: "shards" }), "FileError", "three.safetensors");
  hub.publish("org/shards", { ...CONFIGS, [index]: map("../../../x.safetensors") }, "evil");
  await rejects(find("org/shards@evil", { cache: "shards" }), "FormatError", "../../../x.safetensors");
});

downloads.run();

const rights = suite("rights");

hub.publish("org/private", MODEL, "main", { token: "hf_secret" });
hub.publish("org/gated", MODEL, "main", { token: "hf_secret", gated: true });

rights("the token reaches the hub, and never the server that it leads to", async () => {
  for (const repo of ["org/private", "org/gated"]) {
    const { asked, path } = await withEnvironment({ HF_TOKEN: "hf_secret\n" }, () =>
      find(repo, { cache: `for-${repo}` }),
    );
    isSame(path);
    assert.ok(
      asked
        .filter(({ server }) => server === "hub")
        .every(({ headers }) => headers.authorization === "Bearer hf_secret"),
    );
    const storage = asked.filter(({ server }) => server === "storage");
    assert.equal(storage.length, 1);
    assert.ok(!JSON.stringify(storage).includes("hf_secret"));
  }
});

rights("the token that hf auth login saved does", async () => {
  mkdirSync(at("logged-in"));
  writeFileSync(at("logged-in/token"), "hf_secret\n");
  await withEnvironment({ HF_HOME: at("logged-in") }, async () =>
    isSame((await find("org/private", { cache: "saved" })).path),
  );
});

rights("without one, what to do is said", async () => {
  const tokens = `${hub.endpoint}/settings/tokens`;
  await rejects(find("org/private", { cache: "none" }), "FileError", "org/private", "private", "HF_TOKEN", tokens);
  const page = `${hub.endpoint}/org/gated`;
  await rejects(find("org/gated", { cache: "none" }), "FileError", "gated", "licence", page, "HF_TOKEN", tokens);
  await withEnvironment({ HF_TOKEN: "hf_other" }, async () => {
    await rejects(find("org/private", { cache: "none" }), "FileError", "account");
    await rejects(find("org/gated", { cache: "none" }), "FileError", page, "none that has been let in");
  });
  await withEnvironment({ HF_TOKEN: "hf_expired" }, () =>
    rejects(find("org/base", { cache: "none" }), "FileError", "refuses the token", "HF_TOKEN", tokens),
  );
  await withEnvironment({ HF_TOKEN: "a secret\u0001" }, () =>
    assert.rejects(find("org/private", { cache: "none" }), ({ message }: Error) => !message.includes("a secret")),
  );
});

rights.run();

const names = suite("names");

names("a repository that is not there: those that are like it", async () => {
  await rejects(find("org/bass", { cache: "typo" }), "FileError", "org/bass", hub.endpoint, "folder", "org/base");
});

names("a revision that is not there: those that are", async () => {
  await rejects(find("org/base@v2", { cache: "typo" }), "FileError", '"v2"', "main", "dev/next");
});

names("a commit stays what it is", async () => {
  assert.equal((await find(`org/base@${COMMIT}`, { cache: "pinned" })).commit, COMMIT);
  assert.ok(!existsSync(at("pinned/models--org--base/refs")));
  isSame((await find(`org/base@${COMMIT}`, { cache: "pinned", offline: true })).path);
});

names("what is no name is a path", async () => {
  const from = hub.asked.length;
  for (const path of ["a", "a/b/c", "../b", "./b", "a/..", "a/b@../c", "a/b@", "/a/b", "a//b", "memory:a", "~/b"])
    assert.deepEqual(await findFolder("test", path, "model"), { path });
  assert.equal(hub.asked.length, from);
});

names("a repository that has no safetensors, or is something else", async () => {
  hub.publish("org/pickled", { "config.json": read("config.json"), "pytorch_model.bin": Buffer.from("x") });
  await rejects(find("org/pickled", { cache: "else" }), "FileError", "pytorch_model.bin", "safetensors");
  hub.publish("org/gguf", { "model.gguf": Buffer.from("x") });
  await rejects(find("org/gguf", { cache: "else" }), "FileError", "config.json");
  assert.ok(!existsSync(at("else")), "nothing was downloaded");
});

names.run();

const connection = suite("without a connection");

connection("what is in the cache is taken, with a word", async () => {
  await find("org/base", { cache: "away" });
  const { path, said } = await withEnvironment({ HF_ENDPOINT: gone.endpoint }, () =>
    find("org/base", { cache: "away" }),
  );
  isSame(path);
  assert.match(said, /127\.0\.0\.1:\d+ cannot be reached \(ECONNREFUSED\).*taking org\/base as it is in the cache/);
});

connection(
  "a listing that ends or goes silent within is asked for again; then what is in the cache is taken",
  async () => {
    const broken: Fault[] = [{ cut: 100 }, { stall: 100 }];
    await withEnvironment({ HF_HUB_DOWNLOAD_TIMEOUT: "0.3" }, async () => {
      for (const pattern of [/\/revision\//, /\/tree\//]) {
        for (const fault of broken) {
          const cache = `broken-${broken.indexOf(fault)}-${pattern.source.length}`;
          const { path } = await withFaults(pattern, [fault], () => find("org/base", { cache }));
          const again = await withFaults(pattern, [fault], () => find("org/base", { cache }));
          assert.equal(again.path, path);
          assert.match(again.said, /cannot be reached \(.*taking org\/base as it is in the cache/);
          await withFaults(pattern, [fault, fault], () =>
            rejects(find("org/base", { cache: "broken" }), "FileError", "cannot be reached", "HF_ENDPOINT"),
          );
        }
      }
    });
  },
);

connection("a listing without an end is refused", async () => {
  const next = (from: number): Fault => ({
    ...{ status: 200, body: "[]" },
    headers: { link: `<${hub.endpoint}/api/models/org/base/tree/${COMMIT}?cursor=${from}>; rel="next"` },
  });
  await withFaults(
    /\/tree\//,
    Array.from({ length: 1500 }, (_, i) => next(i)),
    () => rejects(find("org/base", { cache: "endless" }), "FormatError", hub.endpoint, "1000 pages"),
  );
  const long: Fault = { status: 200, body: " ".repeat(70e6) };
  await withFaults(/\/tree\//, [long], () =>
    rejects(find("org/base", { cache: "endless" }), "FormatError", hub.endpoint, "longer than"),
  );
});

connection("a server that goes silent does not hold the process", async () => {
  await withEnvironment({ HF_HUB_CACHE: at("held"), HF_HUB_DOWNLOAD_TIMEOUT: "0.3" }, async () => {
    for (const fault of ["silence", { stall: 100 }] as const) {
      const { code, signal, stderr } = await withFaults(/./, [fault, fault], () =>
        wasmLora(folder, ["inspect", "org/base"]),
      );
      assert.equal(signal, null, `the process went on after: ${stderr}`);
      assert.equal(code, 1);
      assert.match(stderr, /silent for 0\.3 s/);
    }
  });
});

connection("what is not there is missing, and what would help is said", async () => {
  await withFaults(
    /./,
    Array.from({ length: 9 }, () => ({ status: 503, headers: { "retry-after": "0" } })),
    () => rejects(find("org/base", { cache: "empty" }), "FileError", "503", "HF_ENDPOINT"),
  );
  await rejects(find("org/base", { cache: "empty", offline: true }), "FileError", at("empty"), "--offline");
});

connection("a branch that has moved is not half taken: the last whole one is", async () => {
  hub.publish("org/half", MODEL);
  const { path } = await find("org/half", { cache: "half" });
  const wider = Buffer.concat([WEIGHTS]);
  wider[wider.length - 1]! ^= 1;
  hub.publish("org/half", { ...MODEL, "model.safetensors": wider });
  const closed: Fault = { status: 503, headers: { "retry-after": "0" } };
  const found = await withFaults(
    /signature/,
    Array.from({ length: 9 }, () => closed),
    () => find("org/half", { cache: "half" }),
  );
  assert.equal(found.path, path);
  assert.equal((await find("org/half", { cache: "half", offline: true })).path, path);
  const now = await find("org/half", { cache: "half" });
  assert.deepEqual(readFileSync(join(now.path, "model.safetensors")), wider);
});

connection("a page in the way is told from a hub", async () => {
  const page = { status: 200, headers: { "content-type": "text/html" } };
  await withFaults(/\/api\//, [page], () =>
    rejects(find("org/base", { cache: "page" }), "FormatError", hub.endpoint, "JSON"),
  );
  for (const endpoint of ["no address", "ftp://x", "file:///x"])
    await withEnvironment({ HF_ENDPOINT: endpoint }, () =>
      rejects(find("org/base", { cache: "page" }), "ArgumentError", "HF_ENDPOINT"),
    );
});

connection.after(() => hub.stop());
connection.run();

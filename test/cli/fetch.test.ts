/** models.fetchModel from a server on this machine, and models.loadBase. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import { ArgumentError, FileError, FormatError, init, io, models } from "../../src/index.js";
import { says } from "../support/refuses.js";
import { ROOT } from "../support/root.js";

await init();
const base = (file: string): Buffer => readFileSync(new URL(`models/base/${file}`, ROOT));
const served = new Map<string, Buffer | number>();
const asked: string[] = [];
/** What is there for a path that is not. */
let otherwise: Buffer | number = 404;
const server = createServer((request, response) => {
  asked.push(request.url!);
  const answer = served.get(request.url!) ?? otherwise;
  if (typeof answer === "number") response.writeHead(answer).end();
  else if (request.url!.includes("cut"))
    response
      .writeHead(200, { "content-length": answer.length })
      .write(answer.subarray(0, 100), () => response.destroy());
  else if (request.url!.includes("elsewhere"))
    response
      .writeHead(206, { "content-range": `bytes 5-${answer.length - 1}/${answer.length}` })
      .end(answer.subarray(5));
  else response.writeHead(200, { "content-length": answer.length }).end(answer);
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
test.after(
  () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      io.memoryFiles.clear();
    }),
);
const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

function serve(folder: string, files: Record<string, Buffer>): string {
  for (const [name, bytes] of Object.entries(files)) served.set(`/${folder}/${name}`, bytes);
  return `${origin}/${folder}`;
}
const FILES = Object.fromEntries(
  ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"].map((file) => [file, base(file)]),
);
const greedy = ({ model, tokenizer, eosTokenIds }: models.AnyLoadedModel): string =>
  tokenizer.decode(
    models.generate(model, tokenizer.encode("My fellow"), { maxNewTokens: 6, temperature: 0, stopToken: eosTokenIds }),
  );

test("loadBase gives the model of the package, and it again from memory", async () => {
  const loaded = await models.loadBase();
  assert.equal(loaded.path, "memory:wasm-lora/models/base");
  assert.deepEqual(loaded.eosTokenIds, [0]);
  assert.deepEqual(loaded.tokenizer.encode("The sea"), [
    0,
    ...loaded.tokenizer.encode("The sea", { addSpecialTokens: false }),
  ]);
  assert.equal(greedy(await models.loadBase()), greedy(loaded));
});

test("a folder on a server, with its progress", async () => {
  const url = serve("whole", FILES);
  const seen: models.LoadProgress[] = [];
  const loaded = await models.fetchModel(`${url}/?download=true`, {
    onProgress: (progress) => {
      seen.push(progress);
    },
  });
  assert.equal(loaded.path, `memory:${url}`);
  assert.equal(greedy(loaded), greedy(await models.loadBase()));
  const size = base("model.safetensors").length;
  const weights = seen.filter(({ file }) => file === "model.safetensors");
  assert.deepEqual(weights.at(-1), { file: "model.safetensors", loaded: size, total: size });
  assert.ok(weights.every(({ loaded }, i) => i === 0 || loaded > weights[i - 1]!.loaded));
});

test("a folder's chat templates come with it", async () => {
  const url = serve("chatty", {
    ...FILES,
    "chat_template.jinja": Buffer.from("{{ messages[0].content }}!"),
    "additional_chat_templates/tool_use.jinja": Buffer.from("{{ tools | length }} tools"),
  });
  const { tokenizer } = await models.fetchModel(url);
  const messages = [{ role: "user", content: "hi" }];
  assert.equal(tokenizer.applyChatTemplate(messages), "hi!");
  assert.equal(tokenizer.applyChatTemplate(messages, { tools: [{}, {}] }), "2 tools");
});

test("shards by the index, nothing that the index does not name", async () => {
  const tensors = [...io.parseSafetensors(base("model.safetensors")).tensors.values()].map(
    ({ name, dtype, shape, bytes }) => ({ name, dtype, shape, data: bytes }),
  );
  const half = tensors.length >> 1;
  const [one, two] = [tensors.slice(0, half), tensors.slice(half)];
  const map = Object.fromEntries([
    ...one.map(({ name }) => [name, "one.safetensors"]),
    ...two.map(({ name }) => [name, "two.safetensors"]),
  ]) as Record<string, string>;
  const { "model.safetensors": _, ...rest } = FILES;
  const url = serve("shards", {
    ...rest,
    "model.safetensors.index.json": Buffer.from(JSON.stringify({ weight_map: map })),
    "one.safetensors": Buffer.from(io.serializeSafetensors(one)),
    "two.safetensors": Buffer.from(io.serializeSafetensors(two)),
  });
  assert.equal(greedy(await models.fetchModel(url)), greedy(await models.loadBase()));
  for (const shard of [
    "../whole/model.safetensors",
    "http://example.org/x.safetensors",
    "//example.org/x.safetensors",
  ]) {
    serve("shards", {
      "model.safetensors.index.json": Buffer.from(
        JSON.stringify({ weight_map: { ...map, "model.norm.weight": shard } }),
      ),
    });
    asked.length = 0;
    await assert.rejects(models.fetchModel(url), says(FormatError, "model.norm.weight"));
    assert.ok(!asked.some((path) => path.includes("whole")));
  }
});

test("a server that answers every path with its page", async () => {
  otherwise = Buffer.from("<!doctype html><html></html>");
  const { "tokenizer_config.json": _, ...rest } = FILES;
  assert.equal(greedy(await models.fetchModel(serve("page", rest))), greedy(await models.loadBase()));
  await assert.rejects(
    models.fetchModel(`${origin}/nothing`),
    says(FormatError, "nothing/config.json", "a web page (HTML)"),
  );
  const { "model.safetensors": _weights, ...weightless } = rest;
  await assert.rejects(
    models.fetchModel(serve("no-weights", weightless)),
    says(FileError, "neither model.safetensors"),
  );
  otherwise = 404;
});

test("what fails says what, and leaves nothing in memory", async () => {
  const before = [...io.memoryFiles.keys()];
  await assert.rejects(
    models.fetchModel(`${origin}/none`),
    says(FileError, `${origin}/none/config.json`, "404", "org/name"),
  );
  served.set("/secret/config.json", 401);
  await assert.rejects(models.fetchModel(`${origin}/secret`), says(FileError, "401", "login"));
  await assert.rejects(models.fetchModel(serve("cut", FILES)), says(FileError, "/cut/"));
  await assert.rejects(
    models.fetchModel(serve("elsewhere", FILES)),
    says(FormatError, "/elsewhere/config.json", "bytes 5-"),
  );
  await assert.rejects(models.fetchModel("http://127.0.0.1:1/x"), says(FileError, "127.0.0.1:1"));
  const { "model.safetensors": _, ...rest } = FILES;
  await assert.rejects(
    models.fetchModel(serve("weightless", rest)),
    says(FileError, "neither model.safetensors nor model.safetensors.index.json"),
  );
  assert.deepEqual([...io.memoryFiles.keys()], before);
  for (const url of ["/models/base", "models/base/", "file:///tmp/x", "memory:x", 5, null])
    await assert.rejects(models.fetchModel(url as string), says(ArgumentError, "loadModel"));
  await assert.rejects(models.fetchModel(origin, { progress: 1 } as never), says(ArgumentError, "progress"));
});

test("a signal ends it", async () => {
  const controller = new AbortController();
  await assert.rejects(
    models.fetchModel(serve("stop", FILES), {
      signal: controller.signal,
      onProgress: () => controller.abort(new Error("enough")),
    }),
    /enough|abort/i,
  );
});

test.run();

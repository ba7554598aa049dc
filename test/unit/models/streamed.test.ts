/** Models from streams: files that a visitor picked, and streams that break, are cut off or do not say their length. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, FileError, FormatError, init, io, memoryStats, models } from "../../../src/index.js";
import type { StreamedFile } from "../../../src/io/streamed_file.js";
import { loadStreamed } from "../../../src/models/streamed.js";
import { type ErrorClass, says } from "../../support/refuses.js";

await init();
// Where there is no disk, the fixtures of all tests are there.
io.memoryFiles.clear();
test.after(() => io.memoryFiles.clear());

const SHAPE = { vocabSize: 8, hiddenSize: 4, intermediateSize: 2, numHiddenLayers: 1 };
const CONFIG = {
  model_type: "llama",
  vocab_size: 8,
  hidden_size: 4,
  intermediate_size: 2,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  tie_word_embeddings: true,
};
const model = new models.Llama({
  ...SHAPE,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 2,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10_000 },
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
});
const state = model.stateDict();
model.dispose();
const table = state.get("model.embed_tokens.weight")!;

type Tensors = Map<string, { shape: readonly number[]; data: Float32Array }>;
const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const weights = (tensors: Tensors): Uint8Array =>
  io.serializeSafetensors(Array.from(tensors, ([name, entry]) => ({ name, dtype: "F32", ...entry })));
const FILES = new Map([
  ["config.json", json(CONFIG)],
  ["model.safetensors", weights(state)],
]);
/** Two shards and their index. */
const half = [...state].slice(0, 5);
const SHARDS = new Map([
  ["config.json", json(CONFIG)],
  ["one.safetensors", weights(new Map(half))],
  ["two.safetensors", weights(new Map([...state].slice(5)))],
  [
    "model.safetensors.index.json",
    json({
      weight_map: Object.fromEntries(
        [...state.keys()].map((name) => [
          name,
          half.some(([key]) => key === name) ? "one.safetensors" : "two.safetensors",
        ]),
      ),
    }),
  ],
]);

/** Streams in parts of so many bytes; `live` are those that nobody has ended. */
let live = 0;
async function* inParts(bytes: Uint8Array, part: number): AsyncGenerator<Uint8Array, void> {
  live++;
  try {
    for (let from = 0; from < bytes.length; from += part) yield bytes.subarray(from, from + part);
  } finally {
    live--;
  }
}
const streamed = (
  files: ReadonlyMap<string, Uint8Array>,
  part: number,
  change: (name: string, file: StreamedFile) => StreamedFile = (_, file) => file,
) =>
  loadStreamed<"causal-lm">(
    {
      path: "memory:streamed",
      open: async (name, optional) => {
        const bytes = files.get(name);
        if (!bytes && optional) return undefined;
        if (!bytes) throw new FileError(`there is no ${name}`);
        return change(name, {
          path: `memory:streamed/${name}`,
          size: bytes.length,
          stream: (from) => inParts(bytes.subarray(from), part),
        });
      },
    },
    {},
  );
async function refuses(promise: Promise<unknown>, kind: ErrorClass, ...words: string[]) {
  const { liveBytes } = memoryStats();
  await assert.rejects(promise, says(kind, ...words));
  assert.equal(memoryStats().liveBytes, liveBytes);
  assert.equal(live, 0, "streams that nobody has ended");
  assert.equal(io.memoryFiles.size, 0, "files are kept");
}

test("parts of any length give the weights, whole and in shards, with and without the length", async () => {
  for (const files of [FILES, SHARDS])
    for (const part of [1, 7, 1000, 2 ** 20])
      for (const size of [undefined, null]) {
        const loaded = await streamed(files, part, (_, file) => ({ ...file, ...(size === null && { size }) }));
        assert.deepEqual(loaded.model.stateDict(), state);
        assert.equal(loaded.path, "memory:streamed");
        assert.deepEqual([...io.memoryFiles.keys()], ["memory:streamed/config.json"]);
        assert.equal(live, 0);
        loaded.model.dispose();
        io.memoryFiles.clear();
      }
});

test("a head beside the table is the table where it is equal, in another shard too", async () => {
  for (const data of [table.data, table.data.map((x, i) => (i === 31 ? x + 1 : x))]) {
    const head = { shape: table.shape, data };
    const whole = new Map([...FILES, ["model.safetensors", weights(new Map([["lm_head.weight", head], ...state]))]]);
    const index = {
      weight_map: { ...Object.fromEntries([...state.keys()].map((name) => [name, "rest.safetensors"])) },
    };
    const shards = new Map([
      ["config.json", json(CONFIG)],
      ["head.safetensors", weights(new Map([["lm_head.weight", head]]))],
      ["rest.safetensors", weights(state)],
      [
        "model.safetensors.index.json",
        json({ weight_map: { ...index.weight_map, "lm_head.weight": "head.safetensors" } }),
      ],
    ]);
    for (const files of [whole, shards]) {
      const loaded = await streamed(files, 11);
      const tied = data === table.data;
      assert.equal(loaded.config.tieWordEmbeddings, tied);
      assert.deepEqual(loaded.model.stateDict(), tied ? state : new Map([...state, ["lm_head.weight", head]]));
      assert.equal(live, 0);
      loaded.model.dispose();
    }
  }
  io.memoryFiles.clear();
});

test("what is cut off, goes on, breaks or is something else is refused, and nothing is kept", async () => {
  const bytes = FILES.get("model.safetensors")!;
  const withWeights = (weights: Uint8Array) => new Map([...FILES, ["model.safetensors", weights]]);
  const unsized = (_: string, file: StreamedFile): StreamedFile => ({ ...file, size: null });
  for (const length of [0, 7, 100, bytes.length - 1]) {
    await refuses(streamed(withWeights(bytes.subarray(0, length)), 50), FormatError, "model.safetensors");
    await refuses(streamed(withWeights(bytes.subarray(0, length)), 50, unsized), FormatError, "model.safetensors");
  }
  await refuses(streamed(withWeights(new Uint8Array([...bytes, 0])), 50, unsized), FormatError, "goes on");
  const pointer = new TextEncoder().encode(`version https://git-lfs.github.com/spec/v1\n${"oid ".repeat(300)}`);
  await refuses(streamed(withWeights(pointer), 50), FormatError, "git-lfs");
  const breaks = (name: string, file: StreamedFile): StreamedFile => ({
    ...file,
    stream: async function* (from) {
      yield* inParts(bytes.subarray(from, name === "model.safetensors" ? bytes.length - 20 : undefined), 64);
      throw new FileError("the line is dead");
    },
  });
  await refuses(
    streamed(FILES, 50, (name, file) => (name === "config.json" ? file : breaks(name, file))),
    FileError,
    "dead",
  );
});

test("names and shapes are compared before any value comes", async () => {
  const asked: number[] = [];
  const counting = (name: string, file: StreamedFile): StreamedFile =>
    name === "config.json"
      ? file
      : {
          ...file,
          stream: async function* (from) {
            for await (const part of file.stream(from)) {
              asked.push(part.length);
              yield part;
            }
          },
        };
  const big = new Map(state).set("model.norm.weight", { shape: [100_000], data: new Float32Array(100_000) });
  const files = new Map([...FILES, ["model.safetensors", weights(big)]]);
  await refuses(streamed(files, 1000, counting), FormatError, "hidden_size", "model.norm.weight");
  assert.ok(asked.reduce((a, b) => a + b, 0) < 4000, "weights were read");
});

test("a small file without an end is refused, and its stream ended", async () => {
  const block = new Uint8Array(1 << 20).fill(0x20);
  for (const [files, endless] of [
    [FILES, "config.json"],
    [SHARDS, "model.safetensors.index.json"],
  ] as const) {
    let sent = 0;
    const stream = async function* (): AsyncGenerator<Uint8Array, void> {
      live++;
      try {
        for (; sent < 200; sent++) yield block;
      } finally {
        live--;
      }
    };
    const change = (name: string, file: StreamedFile): StreamedFile =>
      name === endless ? { ...file, size: null, stream } : file;
    await refuses(streamed(files, 1000, change), FormatError, endless, "longer than 134217728 bytes");
    assert.ok(sent < 140, `${sent} MB were read`);
  }
});

const picked = (files: ReadonlyMap<string, Uint8Array>, folder = ""): File[] =>
  Array.from(files, ([name, bytes]) => {
    const file = new File([new Uint8Array(bytes)], name);
    if (folder) Object.defineProperty(file, "webkitRelativePath", { value: `${folder}/${name}` });
    return file;
  });

test("openModel: files that a visitor picked, of a folder with folders in it the outermost", async () => {
  for (const files of [FILES, SHARDS]) {
    const seen: models.LoadProgress[] = [];
    const loaded = await models.openModel(picked(files), { onProgress: (progress) => seen.push(progress) });
    assert.deepEqual(loaded.model.stateDict(), state);
    assert.equal(loaded.path, "memory:picked");
    for (const [name, { length }] of files)
      if (!name.includes("index"))
        assert.deepEqual(seen.filter(({ file }) => file === name).at(-1), {
          file: name,
          loaded: length,
          total: length,
        });
    loaded.model.dispose();
  }
  const inner = new Map([["config.json", json({ model_type: "other" })]]);
  const loaded = await models.openModel([...picked(inner, "mine/checkpoint-1"), ...picked(FILES, "mine")]);
  assert.deepEqual([loaded.path, loaded.model.stateDict()], ["memory:mine", state]);
  loaded.model.dispose();
  io.memoryFiles.clear();
});

test("openModel takes the chat templates along", async () => {
  const text = (source: string): Uint8Array => new TextEncoder().encode(source);
  const files = new Map([
    ...FILES,
    ["tokenizer.json", text('{"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}')] as const,
    ["chat_template.jinja", text("{{ messages[0].content }}!")] as const,
    ["additional_chat_templates/tool_use.jinja", text("{{ tools | length }} tools")] as const,
  ]);
  const { model, tokenizer } = await models.openModel(picked(files, "mine"));
  const messages = [{ role: "user", content: "hi" }];
  assert.equal(tokenizer.applyChatTemplate(messages), "hi!");
  assert.equal(tokenizer.applyChatTemplate(messages, { tools: [{}, {}] }), "2 tools");
  model.dispose();
  io.memoryFiles.clear();
});

test("openModel refuses what is no list of files, and says what is missing", async () => {
  for (const files of [null, undefined, 5, "models/base", [null], [{ name: "config.json" }]])
    await refuses(models.openModel(files as never), ArgumentError, "openModel: files must be a list of File objects");
  await refuses(models.openModel([], { progress: 1 } as never), ArgumentError, "progress");
  await refuses(
    models.openModel(picked(new Map([["a.txt", json(1)]]))),
    FileError,
    "none of the 1 files is a config.json",
  );
  const { length } = [...SHARDS];
  await refuses(
    models.openModel(picked(new Map([...SHARDS].slice(0, length - 2).concat([...SHARDS].slice(-1))))),
    FileError,
    "two.safetensors",
    "was not picked",
  );
  await refuses(
    models.openModel(picked(new Map([["config.json", json(CONFIG)]]))),
    FileError,
    "neither model.safetensors",
  );
});

test.run();

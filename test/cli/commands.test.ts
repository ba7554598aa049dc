/**
 * generate, merge and inspect, and what they rest on: an untrained adapter changes nothing, merging
 * changes little and is undone to the bit, an adapter folder gives back the model that wrote it, and
 * cached decoding equals the full forward pass.
 */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "uvu";
import { samplingOf } from "../../src/cli/generate.js";
import { loadTokenizer } from "../../src/data/index.js";
import { init, models, noGrad, peft, scope, tensor } from "../../src/index.js";
import { parseSafetensors } from "../../src/io/safetensors.js";
import { BASE_MODEL, filesBelow, refuse, succeed, temporaryFolder } from "../support/cli.js";

await init();
const folder = temporaryFolder();
const options = {
  r: 4,
  loraAlpha: 8,
  targetModules: "all-linear",
  baseModelNameOrPath: BASE_MODEL,
  taskType: "CAUSAL_LM",
};
const { vocab_size: vocabSize, max_position_embeddings: positions } = JSON.parse(
  readFileSync(join(BASE_MODEL, "config.json"), "utf8"),
);
const ids = Int32Array.from({ length: 24 }, (_, i) => (i * 389 + 17) % vocabSize);

function logits(model: models.CausalLM): Float32Array {
  return noGrad(() => scope(() => model.forward(tensor(ids, [1, ids.length])).data.slice()));
}
function bits(values: Float32Array): Int32Array {
  return new Int32Array(values.slice().buffer);
}
/** max |a - b| / max |b| */
function difference(a: Float32Array, b: Float32Array): number {
  const largest = (values: Float32Array): number => values.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  return largest(a.map((v, i) => v - b[i]!)) / largest(b);
}

const base = models.loadModel(BASE_MODEL).model;
const baseLogits = logits(base);
// An adapter with an update as large as a long training's: B is no longer zero.
const adapted = models.loadModel(BASE_MODEL).model;
const lora = peft.getLoraModel(adapted, options);
const untrainedLogits = logits(adapted);
let state = 1;
for (const [key, p] of adapted.namedParameters()) {
  if (key.endsWith("lora_B.default.weight"))
    p.set(
      Float32Array.from({ length: p.size }, () => ((state = (state * 48271) % 0x7fffffff) / 0x7fffffff - 0.5) * 0.1),
    );
}
const adaptedLogits = logits(adapted);
lora.savePretrained(join(folder, "adapter"));

const adaptedModel = suite("an adapted model");

adaptedModel("equals its base bitwise before training", () => {
  assert.deepEqual(bits(untrainedLogits), bits(baseLogits));
  assert.ok(difference(adaptedLogits, baseLogits) > 1e-3, "the adapter of these tests must count");
});

adaptedModel("merges to within 1e-5; unmerging restores the bits", () => {
  const weights = [...adapted.namedParameters()].map(([key, p]) => [key, bits(p.toFloat32())] as const);
  lora.mergeAdapter();
  const merged = logits(adapted);
  const changed = [...adapted.namedParameters()].filter(([, p], i) =>
    bits(p.toFloat32()).some((b, j) => b !== weights[i]![1][j]),
  ).length;
  lora.unmergeAdapter();
  console.log(`merged against unmerged logits: ${difference(merged, adaptedLogits).toExponential(1)}`);
  assert.ok(difference(merged, adaptedLogits) < 1e-5);
  assert.equal(changed, 7 * adapted.config.numHiddenLayers, "every adapted weight must be merged");
  for (const [i, [key, p]] of [...adapted.namedParameters()].entries())
    assert.deepEqual(bits(p.toFloat32()), weights[i]![1], key);
  assert.deepEqual(bits(logits(adapted)), bits(adaptedLogits));
});

adaptedModel("read back from its PEFT folder gives the same logits bitwise", () => {
  const read = peft.LoraModel.fromPretrained(models.loadModel(BASE_MODEL).model, join(folder, "adapter"));
  assert.deepEqual(read.config("default"), lora.config("default"));
  assert.deepEqual(bits(logits(read.model)), bits(adaptedLogits));
  read.dispose();
});

adaptedModel("decodes with a cache, one token at a time, to the logits of the full forward pass", () => {
  const cache = adapted.newCache();
  for (let i = 0; i < ids.length; i++) {
    const one = noGrad(() => scope(() => adapted.forward(tensor(ids.slice(i, i + 1), [1, 1]), { cache }).data.slice()));
    assert.deepEqual(bits(one), bits(adaptedLogits.subarray(i * vocabSize, (i + 1) * vocabSize)), `position ${i}`);
  }
  cache.dispose();
});
adaptedModel.run();

test("merge writes a model folder: the logits of the merged model bitwise", async () => {
  const { stdout } = await succeed(folder, ["merge", "--adapter", "adapter", "--out", "merged"]);
  assert.match(stdout, /^Merged adapter into .*: merged \(\d+ tensors, float32\)\.\n$/);
  // The base's own folder, in a clone, also holds what made it: every file but the weights comes along.
  const files = readdirSync(BASE_MODEL, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name);
  assert.deepEqual(filesBelow(join(folder, "merged")), files.sort());
  for (const file of files)
    if (!["config.json", "model.safetensors"].includes(file))
      assert.deepEqual(readFileSync(join(folder, "merged", file)), readFileSync(join(BASE_MODEL, file)), file);

  const { model } = models.loadModel(join(folder, "merged"));
  const merged = logits(model);
  model.dispose();
  console.log(`merged folder against adapted logits: ${difference(merged, adaptedLogits).toExponential(1)}`);
  assert.ok(difference(merged, adaptedLogits) < 1e-5);
  lora.mergeAdapter();
  assert.deepEqual(bits(merged), bits(logits(adapted)));
  lora.unmergeAdapter();

  const written = parseSafetensors(readFileSync(join(folder, "merged/model.safetensors"))).tensors;
  const original = parseSafetensors(readFileSync(join(BASE_MODEL, "model.safetensors"))).tensors;
  assert.deepEqual([...written.keys()].sort(), [...original.keys()].sort());
  for (const { name, dtype, shape } of written.values()) {
    assert.equal(dtype, "F32");
    assert.deepEqual(shape, original.get(name)!.shape);
  }
  const config = JSON.parse(readFileSync(join(BASE_MODEL, "config.json"), "utf8"));
  assert.deepEqual(JSON.parse(readFileSync(join(folder, "merged/config.json"), "utf8")), {
    ...config,
    torch_dtype: "float32",
  });
});

const generating = suite("generate");

const generate = async (...args: string[]): Promise<string> =>
  (await succeed(folder, ["generate", "--max-tokens", "24", ...args])).stdout;

generating("the seed decides the text", async () => {
  const text = await generate("--prompt", "The sea", "--seed", "3");
  assert.ok(text.startsWith("The sea") && text.endsWith("\n") && text.length > "The sea\n".length, text);
  assert.equal(await generate("--prompt", "The sea", "--seed", "3"), text);
  assert.notEqual(await generate("--prompt", "The sea", "--seed", "4"), text);
});

generating("temperature 0 takes the likeliest token, whatever the seed", async () => {
  const drawn = JSON.parse(await generate("--prompt", "The sea", "--temperature", "0", "--ids")) as number[];
  assert.deepEqual(
    JSON.parse(await generate("--prompt", "The sea", "--temperature", "0", "--ids", "--seed", "9")),
    drawn,
  );
  const prompt = loadTokenizer(BASE_MODEL).encode("The sea");
  assert.deepEqual(drawn.slice(0, prompt.length), prompt);
  // The full forward pass over the whole text must agree at each drawn position.
  const all = noGrad(() => scope(() => base.forward(tensor(Int32Array.from(drawn), [1, drawn.length])).data.slice()));
  for (let i = prompt.length; i < drawn.length; i++) {
    const row = all.subarray((i - 1) * vocabSize, i * vocabSize);
    assert.equal(drawn[i], row.indexOf(Math.max(...row)), `position ${i}`);
  }
});

generating("--ids are the ids of the text", async () => {
  const text = await generate("--prompt", "The sea", "--seed", "3");
  const drawn = JSON.parse(await generate("--prompt", "The sea", "--seed", "3", "--ids")) as number[];
  assert.equal(`${loadTokenizer(BASE_MODEL).decode(drawn, { skipSpecialTokens: true })}\n`, text);
});

generating("an empty prompt starts from the begin-of-text token", async () => {
  assert.equal(JSON.parse(await generate("--ids"))[0], 0);
});

generating("--stop ends the text, but not within the prompt; --top-k 1 takes the likeliest token", async () => {
  const greedy = ["--prompt", "The sea", "--temperature", "0"];
  const text = (await generate(...greedy)).slice(0, -1);
  // What lies across a border of tokens.
  const ids = JSON.parse(await generate(...greedy, "--ids")) as number[];
  const border = loadTokenizer(BASE_MODEL).decode(ids.slice(0, 12), { skipSpecialTokens: true }).length;
  const stop = text.slice(border - 2, border + 2);
  const end = text.indexOf(stop, "The sea".length);
  assert.ok(end > "The sea".length && end < text.length - 4);
  const until = `${text.slice(0, end)}\n`;
  assert.equal(await generate(...greedy, "--stop", stop), until);
  assert.equal(await generate(...greedy, "--stop", "no such text", "--stop", stop), until);
  assert.ok((JSON.parse(await generate(...greedy, "--stop", stop, "--ids")) as number[]).length < ids.length);
  assert.equal(await generate(...greedy, "--stop", "The sea"), `${text}\n`);
  assert.equal(await generate("--prompt", "The sea", "--top-k", "1", "--seed", "5"), `${text}\n`);
  assert.equal(await generate("--prompt", "The sea", "--top-p", "0", "--min-p", "0.5"), `${text}\n`);
  assert.notEqual(await generate(...greedy, "--repetition-penalty", "1.5"), `${text}\n`);
});

generating("what is no share, no penalty and no text is refused by its flag", async () => {
  for (const [flag, value] of [
    ["--top-k", "-1"],
    ["--top-p", "1.5"],
    ["--min-p", "x"],
    ["--repetition-penalty", "0"],
    ["--stop", ""],
  ])
    await refuse(folder, ["generate", `${flag}=${value}`], "error", flag!);
});

generating("generation_config.json says how tokens are drawn, where no flag does", () => {
  const path = join(folder, "drawn");
  mkdirSync(path);
  const put = (json: object): void => {
    writeFileSync(join(path, "generation_config.json"), JSON.stringify(json));
  };
  put({ do_sample: true, temperature: 0.6, top_p: 0.9, repetition_penalty: 1.1, num_beams: 2 });
  assert.deepEqual(samplingOf(path, { topP: 0.5, minP: 0.1 }), {
    sampling: { temperature: 0.6, topK: undefined, topP: 0.5, minP: 0.1, repetitionPenalty: 1.1 },
    taken: [
      "As generation_config.json says: --temperature 0.6 --repetition-penalty 1.1",
      "Without effect in generation_config.json: num_beams",
    ],
  });
  put({});
  assert.deepEqual(samplingOf(path, {}).taken, []);
});

generating("--max-tokens 0 gives the prompt back", async () => {
  assert.equal((await succeed(folder, ["generate", "--prompt", "The sea", "--max-tokens", "0"])).stdout, "The sea\n");
});

generating("an adapter counts", async () => {
  assert.notEqual(
    await generate("--temperature", "0", "--ids", "--adapter", "adapter"),
    await generate("--temperature", "0", "--ids"),
  );
});

generating("a prompt longer than the model's positions is refused", async () => {
  await refuse(
    folder,
    ["generate", "--prompt", "7 ".repeat(positions + 1)],
    "ArgumentError",
    "prompt",
    `1 .. ${positions}`,
  );
});
generating.run();

const inspecting = suite("inspect");

const inspect = async (path: string): Promise<string> => (await succeed(folder, ["inspect", path])).stdout;

inspecting("a model folder: its config and each tensor's dtype, shape and bytes", async () => {
  const stdout = await inspect(BASE_MODEL);
  assert.match(stdout, /"model_type": "llama"/);
  const { tensors } = parseSafetensors(readFileSync(join(BASE_MODEL, "model.safetensors")));
  for (const { name, dtype, shape, bytes } of tensors.values()) {
    const line = stdout.split("\n").find((l) => l.trim().startsWith(`${name} `));
    assert.equal(
      line?.trim().replace(/\s{2,}/g, "|"),
      `${name}|${dtype}|[${shape.join(", ")}]|${bytes.length.toLocaleString("en-US")} bytes`,
    );
  }
  assert.match(stdout, new RegExp(`^  ${tensors.size} tensors, [\\d,]+ values$`, "m"));
});

inspecting("an adapter folder", async () => {
  const stdout = await inspect("adapter");
  assert.match(stdout, /"peft_type": "LORA"/);
  assert.match(stdout, /base_model\.model\.model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight {2,}F32 {2,}\[4, \d+\]/);
  assert.match(stdout, /^ {2}format: pt$/m);
});

inspecting("one file", async () => {
  const stdout = await inspect("adapter/adapter_model.safetensors");
  assert.ok(stdout.startsWith("adapter/adapter_model.safetensors\n"));
  assert.match(stdout, new RegExp(`^  ${14 * adapted.config.numHiddenLayers} tensors, [\\d,]+ values$`, "m"));
});

inspecting("refuses a path that holds nothing to list", async () => {
  await refuse(folder, ["inspect", "nothing"], "FileError", "nothing");
  await refuse(folder, ["inspect", "."], "FileError", ".");
  await refuse(folder, ["inspect", "adapter/adapter_config.json"], "FormatError", "adapter/adapter_config.json");
});
inspecting.run();

test.run();

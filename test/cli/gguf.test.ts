/** A GGUF file wherever the command line takes a model, and one of the hub by its name. */
import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { refuse, succeed, temporaryFolder } from "../support/cli.js";
import { HubServer } from "../support/hub_server.js";
import { ROOT } from "../support/root.js";

const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);
const fixture = (name: string): string => fileURLToPath(new URL(`test/fixtures/gguf/${name}`, ROOT));
for (const name of ["small_f32.gguf", "small_named.gguf", "small_q8_0.gguf"]) copyFileSync(fixture(name), at(name));
mkdirSync(at("small"));
for (const name of ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
  copyFileSync(fixture(`small/${name}`), at("small", name));
writeFileSync(
  at("rows.jsonl"),
  ["red", "green", "blue", "grey", "pink"]
    .map((colour) => `${JSON.stringify({ prompt: `Which colour? ${colour}`, completion: `It is ${colour}.` })}\n`)
    .join(""),
);
const hub = await HubServer.start();
Object.assign(process.env, { HF_ENDPOINT: hub.endpoint, HF_HOME: at("home"), HF_HUB_OFFLINE: "", HOME: folder });

const greedy = (model: string): string[] => [
  "generate",
  "--model",
  model,
  "--prompt",
  "Hello",
  "--max-tokens",
  "6",
  "--temperature",
  "0",
  "--ids",
];
const finetune = (model: string, out: string): string[] => [
  "finetune",
  "--model",
  model,
  "--data",
  "rows.jsonl",
  "--out",
  out,
  "--steps",
  "3",
  "--batch",
  "2",
];
const adapterOf = (out: string): Record<string, unknown> =>
  JSON.parse(readFileSync(at(out, "adapter", "adapter_config.json"), "utf8")) as Record<string, unknown>;

test("a file generates, answers, evaluates and trains as the folder that it was made of", async () => {
  const said = async (args: string[]): Promise<string> => (await succeed(folder, args)).stdout;
  assert.equal(await said(greedy("small_f32.gguf")), await said(greedy("small")));
  const rows = (model: string): string[] => ["eval", "--model", model, "--data", "rows.jsonl", "--json"];
  const [one, other] = [JSON.parse(await said(rows("small_f32.gguf"))), JSON.parse(await said(rows("small")))] as {
    base: unknown;
  }[];
  assert.deepEqual(one!.base, other!.base);
  for (const model of ["small_f32.gguf", "small"]) await succeed(folder, finetune(model, `of_${model}`));
  const weights = (model: string): Buffer => readFileSync(at(`of_${model}`, "adapter", "adapter_model.safetensors"));
  assert.deepEqual(weights("small_f32.gguf"), weights("small"));
  assert.equal(adapterOf("of_small_f32.gguf")["base_model_name_or_path"], "small_f32.gguf");
  // The base is found by the adapter's config, and by what names the folder.
  const adapted = ["generate", "--adapter", "of_small_f32.gguf/adapter", "--prompt", "Hello", "--max-tokens", "4"];
  await succeed(folder, adapted);
  await succeed(folder, [...adapted, "--model", "small"]);
});

test("an adapter of a file goes to llama.cpp and Ollama without its folder", async () => {
  const adapter = "of_small_f32.gguf/adapter";
  const exported = async (to: string, out: string, ...base: string[]): Promise<void> => {
    await succeed(folder, ["export", "--adapter", adapter, "--to", to, "--out", out, ...base]);
  };
  await exported("gguf", "of_file.gguf");
  await exported("gguf", "of_folder.gguf", "--base", "small");
  assert.deepEqual(readFileSync(at("of_file.gguf")), readFileSync(at("of_folder.gguf")));
  await exported("ollama", "ollama_of_file");
  await exported("ollama", "ollama_of_folder", "--base", "small");
  assert.equal(
    readFileSync(at("ollama_of_file", "Modelfile"), "utf8"),
    readFileSync(at("ollama_of_folder", "Modelfile"), "utf8"),
  );
});

test("an adapter is merged into a file, which keeps its tokenizer and template", async () => {
  const merged = async (model: string, out: string): Promise<string> => {
    const adapter = ["--adapter", "of_small_f32.gguf/adapter"];
    await succeed(folder, ["merge", "--model", model, ...adapter, "--to", "gguf", "--out", out]);
    return (await succeed(folder, greedy(out))).stdout;
  };
  const [one, other] = [await merged("small_f32.gguf", "merged_file.gguf"), await merged("small", "merged_of.gguf")];
  assert.equal(one, other);
  const shown = async (name: string): Promise<string> => (await succeed(folder, ["inspect", name])).stdout;
  const template = /tokenizer\.chat_template: .*/;
  assert.equal(template.exec(await shown("merged_file.gguf"))![0], template.exec(await shown("small_f32.gguf"))![0]);
});

test("blocks are trained on as they are, and told", async () => {
  await succeed(folder, finetune("small_q8_0.gguf", "whole"));
  const { stdout } = await succeed(folder, ["inspect", "small_q8_0.gguf"]);
  assert.match(stdout, /blk\.0\.attn_q\.weight +q8_0 +\[64, 64\] +4,352 bytes/);
  assert.match(stdout, /general\.architecture: "llama" \(string\)/);
  assert.match(stdout, /tokenizer\.ggml\.tokens: a list of 504 \(string\)/);
});

test("rows are shown with the file's tokenizer and template", async () => {
  const { stdout } = await succeed(folder, ["inspect", "--model", "small_f32.gguf", "--data", "rows.jsonl"]);
  assert.match(stdout, /rows +5/);
});

test("an adapter names the folder that the file was made of, where the file says it", async () => {
  await succeed(folder, finetune("small_named.gguf", "named"));
  assert.equal(adapterOf("named")["base_model_name_or_path"], "example/small");
});

test("one file of a repository is downloaded, and all of its parts", async () => {
  const bytes = readFileSync(at("small_q8_0.gguf"));
  const parts = [1, 2, 3].map((i) => `b/qwen3-F32-0000${i}-of-00003.gguf`);
  const split = parts.map((part) => [part, readFileSync(fixture(part.replace("b/qwen3-F32", "qwen3_split")))] as const);
  hub.publish("org/files", { "a-Q8_0.gguf": bytes, "a-Q4_0.gguf": Buffer.from("x"), ...Object.fromEntries(split) });
  const { stdout } = await succeed(folder, greedy("org/files:Q8_0"));
  assert.equal(stdout, (await succeed(folder, greedy("small_q8_0.gguf"))).stdout);
  await succeed(folder, ["inspect", "org/files:F32"]);
  const before = hub.asked.length;
  assert.equal((await succeed(folder, [...greedy("org/files:a-Q8_0.gguf"), "--offline"])).stdout, stdout);
  assert.equal(hub.asked.length, before);
  await refuse(
    folder,
    greedy("org/files:Q5_K_M"),
    "FileError",
    /org\/files has no GGUF files called "Q5_K_M"; it has a-Q8_0/,
  );
  await refuse(folder, greedy("org/files"), "FileError", /or one of its GGUF files, as org\/files:a-Q8_0\.gguf/);
  await succeed(folder, finetune("org/files:Q8_0", "of_hub"));
  assert.equal(adapterOf("of_hub")["base_model_name_or_path"], "org/files:Q8_0");
});

test("what is not there, or not done with a file, is told", async () => {
  await refuse(folder, greedy("gone.gguf"), "FileError", /cannot read gone\.gguf: there is no such file/);
  await refuse(
    folder,
    ["merge", "--model", "small_f32.gguf", "--adapter", "of_small/adapter", "--out", "merged"],
    "ArgumentError",
    /merge: small_f32\.gguf is a GGUF file/,
  );
  assert.ok(!existsSync(at("merged")));
});

test.after(() => hub.stop());
test.run();

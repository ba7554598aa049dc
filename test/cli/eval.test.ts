/** eval: figures of rows with and without an adapter, which are the library's; what is shown, and what is refused. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { data, models, peft, train } from "../../src/index.js";
import { refuse, succeed, temporaryFolder, writeText } from "../support/cli.js";
import { writeTinyAdapter, writeTinyModel } from "../support/tiny_model.js";

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
// With a table for a head such a model repeats itself, and never ends.
await writeTinyModel(at("model"), { seed: 8, config: { tie_word_embeddings: false } });
await writeTinyAdapter(at("adapter"), at("model"));
const { model, tokenizer, eosTokenIds } = models.loadModel(at("model"));

/** Prompts with what the model itself answers, and with other answers. */
const own = ["call me", "ishmael", "some years"].map((prompt) => {
  const options = { maxNewTokens: 40, temperature: 0, stopToken: eosTokenIds };
  const answer = [...models.generate(model, tokenizer.encode(prompt), options)];
  assert.ok(answer.length < 40);
  return { prompt, completion: tokenizer.decode(answer) };
});
const written = [...own, { prompt: "never mind", completion: " no" }, { prompt: "how long", completion: "." }];
const write = (name: string, rows: readonly object[]): void =>
  writeFileSync(at(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
write("rows.jsonl", written);
const EVAL = ["eval", "--model", "model", "--data"];

async function tokenized(file: string): Promise<data.TrainingRow[]> {
  const examples = data.readExamples(await data.parseRows(readFileSync(at(file)), file));
  return data.tokenizeExamples(examples, tokenizer, { eosTokenIds }).rows;
}
function figures(
  called: models.CausalLM | peft.LoraModel<models.CausalLM>,
  rows: data.TrainingRow[],
): Record<string, number> {
  const { loss, tokenAccuracy } = train.evaluateRows(called, rows);
  const answers = data.answersOf(rows, eosTokenIds);
  const { exact } = train.exactMatch(called, answers, { eosTokenIds });
  return { loss, tokenAccuracy, exact, exactMatch: exact / answers.length };
}

test("the figures are the library's, without the adapter and with it", async () => {
  const rows = await tokenized("rows.jsonl");
  const { stdout, stderr } = await succeed(folder, [...EVAL, "rows.jsonl", "--adapter", "adapter", "--json"]);
  assert.equal(stderr, "");
  const { base, adapted, ...about } = JSON.parse(stdout);
  assert.deepEqual(about, {
    model: "model",
    adapter: "adapter",
    data: "rows.jsonl",
    rows: 5,
    ofRows: 5,
    tokens: rows.reduce((n, { ids }) => n + ids.length, 0),
    scored: rows.reduce((n, { labels }) => n + labels.filter((label) => label >= 0).length, 0),
    answers: 5,
    truncated: 0,
    skipped: 0,
  });
  const lora = peft.LoraModel.fromPretrained(models.loadModel(at("model")).model, at("adapter"));
  for (const [got, called] of [
    [base, model],
    [adapted, lora],
  ] as const) {
    const { perplexity, ...rest } = got;
    assert.deepEqual(rest, figures(called, rows));
    assert.ok(Math.abs(perplexity - Math.exp(rest.loss)) < 1e-9 * perplexity);
  }
  assert.notEqual(base.loss, adapted.loss);
});

test("the table has a column for each, and a few answers stand below it", async () => {
  const { stdout } = await succeed(folder, [...EVAL, "rows.jsonl", "--adapter", "adapter"]);
  assert.match(
    stdout,
    /^rows\.jsonl: 5 rows, \d+ tokens, \d+ scored\nmodel, with and without adapter\n\n +base +adapter\n/,
  );
  assert.match(stdout, /^loss +\d+\.\d{4} +\d+\.\d{4}$/m);
  assert.match(stdout, /^perplexity +\d+\.\d\d +\d+\.\d\d {3}(up|down) [\d.]+ %$/m);
  assert.match(stdout, /^token accuracy +[\d.]+ % +[\d.]+ %$/m);
  assert.match(stdout, /^exact match +[\d.]+ % +[\d.]+ %$/m);
  assert.match(stdout, /^answers +\d of 5 +\d of 5$/m);
  assert.deepEqual(stdout.match(/^rows\.jsonl:\d$/gm), ["rows.jsonl:1", "rows.jsonl:3", "rows.jsonl:5"]);
  assert.match(stdout, /^ {2}asked +"call me"\n {2}expected +".*"\n {2}base +".*" [✓✗]\n {2}adapter +".*" [✓✗]$/m);
  const alone = (await succeed(folder, [...EVAL, "rows.jsonl"])).stdout;
  assert.ok(!alone.includes("adapter"));
});

test("what the model itself goes on with is exact", async () => {
  write("own.jsonl", own);
  const { base } = JSON.parse((await succeed(folder, [...EVAL, "own.jsonl", "--json"])).stdout);
  assert.deepEqual([base.exact, base.exactMatch], [own.length, 1]);
});

test("--limit measures the first rows, and says so; --batch changes no answer", async () => {
  const args = [...EVAL, "rows.jsonl", "--limit", "2"];
  const { stdout } = await succeed(folder, args);
  assert.match(stdout, /^rows\.jsonl: the first 2 of 5 rows, /);
  const rows = (await tokenized("rows.jsonl")).slice(0, 2);
  for (const more of [[], ["--batch", "1"]]) {
    const json = JSON.parse((await succeed(folder, [...args, ...more, "--json"])).stdout);
    assert.deepEqual([json.rows, json.ofRows, json.answers], [2, 5, 2]);
    const { exact, tokenAccuracy } = figures(model, rows);
    assert.deepEqual([json.base.exact, json.base.tokenAccuracy], [exact, tokenAccuracy]);
  }
});

test("of a folder the test file is taken, else what is for validation, else all there is", async () => {
  mkdirSync(at("data"));
  for (const file of ["train.jsonl", "valid.jsonl", "test.jsonl"]) {
    write(`data/${file}`, [{ prompt: "a", completion: "b" }]);
    const { data: taken } = JSON.parse((await succeed(folder, [...EVAL, "data", "--json"])).stdout);
    assert.equal(taken, `data/${file}`);
  }
});

test("rows of texts have a loss, and no exact match; skipped and truncated rows are told", async () => {
  write("texts.jsonl", [{ text: "call me ishmael" }, { text: "h".repeat(400) }]);
  const { stdout } = await succeed(folder, [...EVAL, "texts.jsonl"]);
  assert.match(stdout, /^\(1 rows? .*--max-length/m);
  assert.match(stdout, /no exact match/);
  assert.match(stdout, /^exact match +-$/m);
  const json = JSON.parse((await succeed(folder, [...EVAL, "texts.jsonl", "--json"])).stdout);
  assert.deepEqual([json.base.exact, json.base.exactMatch, json.answers, json.truncated], [null, null, 0, 1]);
});

test("a loss that is not a number is told, and no figure of it", async () => {
  await writeTinyModel(at("damaged"), { seed: 8 });
  const file = at("damaged/model.safetensors");
  const bytes = readFileSync(file);
  bytes.fill(0xff, bytes.length - 64);
  writeFileSync(file, bytes);
  await refuse(
    folder,
    ["eval", "--model", "damaged", "--data", "rows.jsonl"],
    "ArgumentError",
    "base",
    "NaN",
    "damaged",
  );
});

test("what cannot be measured is refused in one line", async () => {
  writeText(at("book.txt"));
  write("chats.jsonl", [{ messages: [{ role: "user", content: "x" }] }]);
  const cases: [string[], string, ...string[]][] = [
    [["eval"], "error", "--data"],
    [[...EVAL, "book.txt"], "ArgumentError", "book.txt", ".jsonl", "finetune"],
    [[...EVAL, "gone.jsonl"], "FileError", "gone.jsonl"],
    [[...EVAL, "chats.jsonl"], "FormatError", "chats.jsonl:1", "--template"],
    [[...EVAL, "rows.jsonl", "--adapter", "gone"], "FileError", "gone"],
    [[...EVAL, "rows.jsonl", "--limit", "0"], "error", "--limit"],
    [[...EVAL, "rows.jsonl", "--loss-on", "assistant"], "ArgumentError", "rows.jsonl:1"],
  ];
  for (const [args, name, ...words] of cases) await refuse(folder, args, name, ...words);
});

test.run();

/**
 * wasm-lora finetune on rows: what it writes, what judges it, when it stops, and that a run which was stopped goes on
 * to the bytes of an uninterrupted one.
 */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "uvu";
import { data, models, peft, train } from "../../src/index.js";
import { filesBelow, finetuneWith, refuse, succeed, temporaryFolder, wasmLora } from "../support/cli.js";
import { writeTinyModel } from "../support/tiny_model.js";

const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);
const text = (...path: string[]): string => readFileSync(at(...path), "utf8");
const json = (...path: string[]): any => JSON.parse(text(...path));
const NAMES = ["ann", "ben", "cid", "dot", "eve", "fay", "gus", "hal", "ida", "jo", "kit", "lou"];
const rows = NAMES.flatMap((name, i) =>
  NAMES.filter((_, k) => (i + k) % 3 === 0).map((other) => ({
    prompt: `${name} met ${other}.`,
    completion: ` ${other} met ${name}.`,
  })),
);
const lines = (list: readonly object[]): string => list.map((row) => `${JSON.stringify(row)}\n`).join("");

await writeTinyModel(at("m"));
writeFileSync(at("rows.jsonl"), lines(rows));
writeFileSync(at("text.txt"), "call me ishmael. ".repeat(60));

const SMALL = ["--model", "m", "--r", "2", "--batch", "4"];
const finetune = finetuneWith("--data", "rows.jsonl", ...SMALL);
/** Learns so fast that soon nothing gets better. */
const HASTY = "--eval-data other.jsonl --lr 0.01 --epochs 9 --eval-every 4 --patience 2".split(" ");

const aRun = suite("a run on rows");

const { stdout } = await succeed(folder, finetune("first"));

aRun("is of three epochs, measured after each, and writes the best adapter, the last, figures and a page", () => {
  assert.deepEqual(filesBelow(at("first")), [
    "adapter-last/adapter_config.json",
    "adapter-last/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "checkpoint.safetensors",
    "loss.svg",
    "metrics.jsonl",
    "report.html",
    "result.json",
  ]);
  const result = json("first", "result.json");
  // 48 rows, of which 5 are held out: 11 steps of at most 4 an epoch.
  assert.equal(rows.length, 48);
  assert.equal(result.losses.length, 33);
  assert.deepEqual(
    result.evaluations.map(({ step }: train.Evaluation) => step),
    [0, 11, 22, 33],
  );
  const losses = result.evaluations.map(({ loss }: train.Evaluation) => loss);
  assert.equal(result.best.loss, Math.min(...losses));
  assert.match(stdout, /^Loading m \.\.\.\nReading rows\.jsonl \.\.\.\nEncoding rows\.jsonl, 48 rows \.\.\.\n/);
  assert.match(stdout, /^Data rows\.jsonl: 43 rows to train on, 5 rows held out, /m);
  assert.match(stdout, /^Training: 33 steps, learning rate 0\.005, an evaluation every 11 steps$/m);
});

aRun("metrics.jsonl has each step's epoch, tokens and scored tokens, and each evaluation where it was", () => {
  const objects = text("first", "metrics.jsonl")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    objects.map(({ step, evalLoss }) => (evalLoss === undefined ? step : `evaluation ${step}`)),
    ["evaluation 0", 11, 22, 33].flatMap((end) =>
      typeof end === "string" ? [end] : [...Array.from({ length: 11 }, (_, i) => end - 10 + i), `evaluation ${end}`],
    ),
  );
  const steps = objects.filter(({ evalLoss }) => evalLoss === undefined);
  for (const { step, epoch } of steps) assert.ok(Math.abs(epoch - step / 11) < 1e-12);
  // A character is a token. Of begin of text, what is asked, answer and end of text, the last two are scored.
  const [asked, scored] = ["prompt", "completion"].map((key) =>
    rows.reduce((n, row) => n + row[key as "prompt"].length, 0),
  );
  const heldOutRows = 5;
  const sum = (key: string): number => steps.slice(0, 11).reduce((n, step) => n + step[key], 0);
  assert.ok(sum("scored") < scored! + rows.length && sum("scored") > ((scored! + rows.length) * 30) / rows.length);
  assert.ok(sum("tokens") > sum("scored") && sum("tokens") < asked! + scored! + 2 * (rows.length - heldOutRows));
});

aRun("adapter/ is the best and adapter-last/ the last, to the bit", async () => {
  // Held-out rows that contradict the others: what is learned makes them worse, sooner or later.
  writeFileSync(at("other.jsonl"), lines(rows.slice(0, 6).map(({ prompt }) => ({ prompt, completion: " aeiou." }))));
  const options = ["--eval-data", "other.jsonl", "--lr", "0.01", "--epochs", "4", "--eval-every", "4"];
  await succeed(folder, finetune("judged", ...options));
  const { best, losses } = json("judged", "result.json");
  assert.ok(best.step > 0 && best.step < losses.length, JSON.stringify(best));
  const factors = (adapter: string): string =>
    [...peft.readPeftAdapter(at("judged", adapter)).tensors.values()].map(({ data }) => data.join()).join();
  assert.notEqual(factors("adapter"), factors("adapter-last"));

  const { model } = models.loadModel(at("m"), { head: "causal-lm" });
  const tokenizer = data.loadTokenizer(at("m"));
  const read = async (file: string): Promise<data.TrainingRow[]> => {
    const examples = data.readExamples(await data.parseRows(readFileSync(at(file)), file));
    return data.tokenizeExamples(examples, tokenizer, { eosTokenIds: [1] }).rows;
  };
  const run = new train.Finetuning(
    model as models.Llama,
    { train: await read("rows.jsonl"), test: await read("other.jsonl") },
    { adapter: { r: 2, baseModelNameOrPath: "m" }, lr: 0.01, batch: 4, epochs: 4, evalEvery: 4 },
  );
  run.evaluate();
  while (!run.isComplete) {
    run.step();
    if (run.isEvaluationDue) run.evaluate();
  }
  assert.deepEqual(run.best, best);
  const mine = (): string => {
    run.adapted.savePretrained("memory:mine");
    return [...peft.readPeftAdapter("memory:mine").tensors.values()].map(({ data }) => data.join()).join();
  };
  assert.equal(factors("adapter-last"), mine());
  assert.equal(factors("adapter"), run.withBest(mine));
});

aRun("stops early where nothing gets better, and says so", async () => {
  const { stdout } = await succeed(folder, finetune("early", ...HASTY));
  const { best, stoppedEarly, evaluations, losses } = json("early", "result.json");
  assert.equal(stoppedEarly, true);
  assert.equal(losses.length, best.step + 8);
  assert.equal(evaluations.at(-1).step, losses.length);
  assert.match(stdout, /^Held out after step \d+: .*so the run stops$/m);
  assert.match(text("early", "report.html"), /stopped early/);
});

aRun("the memory planned is the memory taken", async () => {
  for (const [i, options] of [[], ["--no-packing"], ["--accumulation", "3"]].entries()) {
    const { stdout, stderr } = await succeed(folder, finetune(`memory${i}`, "--steps", "14", ...options));
    const [, planned] = /^Memory: (\d+\.\d) MB at the peak, as planned/m.exec(stdout) ?? [];
    assert.equal(/ 14\/14 .* peak (\d+\.\d) MB/.exec(stderr)?.[1], planned, options.join(" "));
  }
});

aRun("without evaluations adapter/ is the last, and there is no other", async () => {
  await succeed(folder, finetune("unjudged", "--eval-every", "0", "--steps", "5"));
  assert.ok(!filesBelow(at("unjudged")).some((file) => file.startsWith("adapter-last")));
  const { best, evaluations } = json("unjudged", "result.json");
  assert.equal(best, null);
  assert.deepEqual(
    evaluations.map(({ step }: train.Evaluation) => step),
    [0, 5],
  );
});

aRun("one row: nothing is held out, and it is trained on", async () => {
  writeFileSync(at("one.jsonl"), lines(rows.slice(0, 1)));
  await succeed(folder, ["finetune", "--data", "one.jsonl", "--out", "one", ...SMALL]);
  const { losses, evaluations, heldOutBefore, best } = json("one", "result.json");
  assert.equal(losses.length, 3);
  assert.deepEqual([evaluations, heldOutBefore, best], [[], null, null]);
  assert.doesNotMatch(text("one", "report.html") + text("one", "loss.svg"), /NaN|undefined|Infinity/);
});

aRun("rows of 100,000 characters are shown by their starts", async () => {
  const long = { prompt: "ann met ben. ".repeat(8_000), completion: " yes. ".repeat(20) };
  writeFileSync(at("long.jsonl"), lines([long, { ...rows[0], completion: " no. ".repeat(20_000) }, rows[1]!]));
  const options = ["--max-length", "120", "--skip-unusable", "--eval-data", "long.jsonl"];
  const { stdout } = await succeed(folder, ["finetune", "--data", "long.jsonl", "--out", "long", ...SMALL, ...options]);
  assert.match(stdout, /, 2 rows cut at their end, 2 rows left out$/m);
  assert.ok(stdout.length < 5_000 && text("long", "report.html").length < 40_000);
  assert.match(stdout, /^In the data: ".* no\. no\. .* \.\.\."$/m);
});

aRun("a folder of rows is measured on its valid file", async () => {
  mkdirSync(at("folder"));
  writeFileSync(at("folder/train.jsonl"), lines(rows.slice(0, 20)));
  writeFileSync(at("folder/valid.jsonl"), lines(rows.slice(20, 30)));
  const { stdout } = await succeed(folder, ["finetune", "--data", "folder", "--out", "of-folder", ...SMALL]);
  assert.match(stdout, /^Data folder: 20 rows to train on, 10 rows held out, /m);
  // What is held out is shown as it was written.
  assert.ok(text("of-folder", "report.html").includes(rows[20]!.prompt));
});

aRun("packing decides no bit", async () => {
  await succeed(folder, finetune("padded", "--no-packing"));
  for (const file of ["adapter/adapter_model.safetensors", "adapter-last/adapter_model.safetensors"])
    assert.deepEqual(readFileSync(at("padded", file)), readFileSync(at("first", file)));
});

aRun("what options say is in the adapter's config and in the run", async () => {
  await succeed(
    folder,
    finetune(
      "options",
      ...["--dora", "--rslora", "--init", "gaussian", "--lora-plus", "4", "--schedule", "linear", "--warmup", "0.5"],
      ...["--accumulation", "2", "--steps", "4", "--weight-decay", "0.1", "--max-grad-norm", "0.01", "--lr", "0.001"],
      "--group-by-length",
    ),
  );
  const config = json("options", "adapter", "adapter_config.json");
  assert.deepEqual([config.use_dora, config.use_rslora, config.init_lora_weights], [true, true, "gaussian"]);
  const { settings, learningRate } = json("options", "result.json");
  assert.equal(learningRate, 0.001);
  for (const [key, value] of Object.entries({
    loraPlus: 4,
    schedule: "linear",
    accumulation: 2,
    steps: 4,
    weightDecay: 0.1,
    maxGradNorm: 0.01,
    groupByLength: true,
  }))
    assert.equal(settings[key], value, key);
  const rates = text("options", "metrics.jsonl")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
    .filter(({ learningRate }) => learningRate !== undefined);
  // In two of four steps it rises, and then falls in a line.
  for (const [i, rate] of [0.001 / 3, 0.002 / 3, 0.001, 0.0005].entries())
    assert.ok(Math.abs(rates[i].learningRate - rate) < 1e-12, `${rates[i].learningRate}`);
  // Eight rows a step.
  assert.ok(rates.every(({ epoch, step }) => Math.abs(epoch - step / 6) < 1e-12));
});

aRun("options of the other kind of data, two lengths and a patience without evaluations are refused", async () => {
  for (const [option, value] of [
    ["--seq", "16"],
    ["--prompt", "call"],
    ["--test-windows", "4"],
  ] as const)
    await refuse(folder, finetune("refused", option, value), "ArgumentError", option, "rows.jsonl is read as rows");
  const onText = finetuneWith("--data", "text.txt", ...SMALL);
  for (const options of [
    ["--epochs", "2"],
    ["--no-packing"],
    ["--group-by-length"],
    ["--eval-data", "rows.jsonl"],
    ["--feature", "prompt=question"],
    ["--max-length", "64"],
    ["--skip-unusable"],
  ])
    await refuse(folder, onText("refused", ...options), "ArgumentError", options[0]!, "text.txt is read as a text");
  await refuse(folder, finetune("refused", "--epochs", "2", "--steps", "3"), "error", "--epochs and --steps");
  await refuse(folder, finetune("refused", "--patience", "2", "--eval-every", "0"), "ArgumentError", "--eval-every");
  assert.deepEqual(filesBelow(at("refused")), []);
});

aRun("rows that are none are named by their file and line", async () => {
  writeFileSync(at("bad.jsonl"), `${lines(rows.slice(0, 2))}{"prompt": 5, "completion": "x"}\n`);
  await refuse(folder, ["finetune", "--data", "bad.jsonl", "--out", "bad", ...SMALL], "FormatError", "bad.jsonl:3");
  writeFileSync(at("none.jsonl"), "");
  await refuse(folder, ["finetune", "--data", "none.jsonl", "--out", "bad", ...SMALL], "FormatError", "none.jsonl");
  await refuse(folder, ["finetune", "--data", "no.jsonl", "--out", "bad", ...SMALL], "FileError", "no.jsonl");
  assert.deepEqual(filesBelow(at("bad")), []);
});

aRun("Ctrl-C between two evaluations, then --resume: the bytes of an uninterrupted run", async () => {
  const stopped = await wasmLora(folder, finetune("stopped", ...HASTY), async (child) => {
    // The sixth step is there.
    const isThere = (): boolean => {
      try {
        return text("stopped", "metrics.jsonl").includes('{"step":6,');
      } catch {
        return false;
      }
    };
    while (!isThere() && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 1));
    child.kill("SIGINT");
  });
  assert.equal(stopped.code, 130, stopped.stderr);
  assert.match(
    stopped.stderr,
    /^Stopped after step \d+; go on with: .* finetune --data rows\.jsonl --out stopped --resume$/m,
  );
  await succeed(folder, ["finetune", "--out", "stopped", "--resume"]);
  assert.deepEqual(filesBelow(at("stopped")), filesBelow(at("early")));
  for (const file of filesBelow(at("early")))
    assert.deepEqual(readFileSync(at("stopped", file)), readFileSync(at("early", file)), file);
});

aRun("--resume refuses other rows, and settings of before", async () => {
  await refuse(folder, ["finetune", "--out", "first", "--resume", "--data", "one.jsonl"], "ArgumentError", "one.jsonl");
  await refuse(
    folder,
    ["finetune", "--out", "first", "--resume", "--epochs", "7"],
    "ArgumentError",
    "epochs = 3",
    "got 7",
  );
});
aRun.run();

test("the report is one file that asks nobody for anything, and shows nothing of a stranger's as a tag", async () => {
  const evil = '<script>alert(1)</script> & "x" <img src=//y>';
  writeFileSync(
    at("evil.jsonl"),
    lines(rows.slice(0, 12).map(({ completion }) => ({ prompt: evil.replace(/[^a-z <>/]/g, ""), completion }))),
  );
  await writeTinyModel(at("wide"), {
    config: { vocab_size: 37 },
    characters: [..."\u0000\u0001"]
      .map((_, i) => ["<s>", "</s>"][i]!)
      .concat([..."abcdefghijklmnopqrstuvwxyz .,'\n<>/"]),
  });
  await succeed(folder, ["finetune", "--data", "evil.jsonl", "--out", "evil", ...SMALL, "--model", "wide"]);
  const page = text("evil", "report.html");
  assert.match(page, /^<!doctype html>\n<html lang="en">/);
  assert.ok(page.includes("&lt;script&gt;alert"), "what is asked is shown");
  assert.doesNotMatch(page, /<script|<img|<link|<iframe|src=|href=|url\(|@import|https?:/);
  assert.match(page, /Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/);
  // Every tag that opens closes.
  const open: string[] = [];
  for (const [, close, tag, empty] of page
    .replace(/<!doctype html>|<style>[^]*?<\/style>/g, "")
    .matchAll(/<(\/?)([\w:]+)(?:\s[^<>]*?)?(\/?)>/g)) {
    if (close) assert.equal(open.pop(), tag);
    else if (!empty && tag !== "meta") open.push(tag!);
  }
  assert.deepEqual(open, []);
});

test.run();

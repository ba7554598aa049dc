/** inspect --data: rows as a model sees them, marked by colour or by brackets, counts, and lengths as bars. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { histogramLines, marksFor, rowLines } from "../../src/cli/rows_shown.js";
import { refuse, succeed, temporaryFolder, writeText } from "../support/cli.js";
import { ROOT } from "../support/root.js";
import { writeTinyModel } from "../support/tiny_model.js";

const folder = temporaryFolder();
await writeTinyModel(join(folder, "model"));
const rows = (name: string, all: readonly object[]): void =>
  writeFileSync(join(folder, name), all.map((row) => `${JSON.stringify(row)}\n`).join(""));
const INSPECT = ["inspect", "--model", "model", "--data"];

test("three rows with what is scored in brackets, counts, and a histogram", async () => {
  const completions = ["b", "cc", "ddd", "e e", "f\ng"];
  rows(
    "sums.jsonl",
    completions.map((completion) => ({ prompt: "what is it", completion: ` ${completion}` })),
  );
  const { stdout, stderr } = await succeed(folder, [...INSPECT, "sums.jsonl"]);
  assert.equal(stderr, "");
  assert.equal(
    stdout,
    `As the model sees them; scored text is in ⟦brackets⟧:

sums.jsonl:1  14 tokens, 3 scored
  <s>what is it⟦ b</s>⟧

sums.jsonl:3  16 tokens, 5 scored
  <s>what is it⟦ ddd</s>⟧

sums.jsonl:5  16 tokens, 5 scored
  <s>what is it⟦ f↵
  g</s>⟧

sums.jsonl
  rows        5
  tokens     77  14 to 16 a row, 15.4 on average
  scored     22  28.6 % of them
  truncated   0
  skipped     0

Rows by their tokens
  14  ${"█".repeat(13)}▍ 1
  15  ${"█".repeat(13)}▍ 1
  16  ${"█".repeat(40)} 3

`,
  );
});

test("what cannot be trained on is told row by row, and what is too long is counted", async () => {
  const message = (role: string, content: string, weight?: 0): object => ({ role, content, weight });
  const user = message("user", "hi");
  writeFileSync(
    join(folder, "t.jinja"),
    "{% for m in messages %}{{ bos_token }}{{ m.content }}{{ eos_token }}{% endfor %}",
  );
  rows("chats.jsonl", [
    { messages: [user, message("assistant", "hello")] },
    { messages: [user] },
    { messages: [user, message("assistant", "hello", 0)] },
    { messages: [user, message("assistant", "h".repeat(300))] },
  ]);
  const args = [...INSPECT, "chats.jsonl", "--template", "t.jinja"];
  const { stdout } = await succeed(folder, args);
  assert.match(stdout, /^ {2}rows +2$/m);
  assert.match(stdout, /^ {2}truncated +1 {2}.*--max-length 1024/m, "the model has 128 positions");
  assert.match(stdout, /^ {2}tokens +140 {2}11 to 129 a row/m);
  assert.match(stdout, /^ {2}skipped +2 {2}.*--skip-unusable/m);
  assert.match(stdout, /^ {4}chats\.jsonl:2: no message is the assistant's$/m);
  assert.match(stdout, /^ {4}chats\.jsonl:3: .*weights/m);
  const short = (await succeed(folder, [...args, "--max-length", "20", "--loss-on", "last"])).stdout;
  assert.match(short, /^ {2}tokens +31 {2}11 to 20 a row/m);
});

test("of a folder the rows of each file are counted, and those to train on are shown", async () => {
  mkdirSync(join(folder, "data"), { recursive: true });
  writeFileSync(join(folder, "data/train.csv"), "q,completion\nab,c\r\nde,f\r\n");
  rows("data/valid.jsonl", [{ q: "x", completion: "y" }]);
  const { stdout } = await succeed(folder, [...INSPECT, "data", "--feature", "prompt=q"]);
  assert.match(stdout, /<s>ab⟦c<\/s>⟧/);
  assert.match(stdout, /^data\/train\.csv\n {2}rows +2$/m);
  assert.match(stdout, /^data\/valid\.jsonl\n {2}rows +1$/m);
  assert.ok(!stdout.includes("⟦y"));
});

test("a text is shown in parts, and no weight of a model is read", async () => {
  writeText(join(folder, "book.txt"));
  const { stdout } = await succeed(folder, ["inspect", "--data", "book.txt"]);
  assert.match(stdout, /^token 0 {2}64 tokens, 63 scored$/m);
  assert.match(stdout, /a text of [\d,]+ tokens/);
});

test("what it cannot show is refused in one line", async () => {
  rows("mixed.jsonl", [{ text: "a" }, { prompt: "a", completion: "b" }]);
  rows("none.jsonl", [{ messages: [{ role: "user", content: "x" }] }]);
  writeFileSync(join(folder, "empty.jsonl"), "");
  const cases: [string[], string, ...string[]][] = [
    [[...INSPECT, "mixed.jsonl"], "FormatError", "mixed.jsonl:2"],
    [[...INSPECT, "none.jsonl"], "FormatError", "none.jsonl:1", "--template"],
    [[...INSPECT, "gone.jsonl"], "FileError", "gone.jsonl"],
    [["inspect", "--model", "gone", "--data", "mixed.jsonl"], "FileError", "gone"],
    [["inspect"], "error", "path", "--data"],
    [["inspect", "model", "--data", "mixed.jsonl"], "error", "--data"],
    [["inspect", "model", "--format", "text"], "error", "--format", "--data"],
    [[...INSPECT, "mixed.jsonl", "--format", "words"], "error", "--format", "messages"],
    [[...INSPECT, "mixed.jsonl", "--feature", "prompt"], "error", "--feature", "name=field"],
    [[...INSPECT, "mixed.jsonl", "--date", "2024-02-31"], "error", "--date", "2024-07-26"],
  ];
  for (const [args, name, ...words] of cases) await refuse(folder, args, name, ...words);
});

const stream = (isTTY: boolean, colors: boolean) => ({ isTTY, hasColors: () => colors });
const RUNS = [
  { text: "a\u001b[31m\n", scored: false },
  { text: "b\nc", scored: true },
];

test("colours are for terminals that have them, a line at a time; what a terminal would obey is shown", () => {
  const [first, second] = rowLines(RUNS, marksFor(stream(true, true)));
  assert.equal(first, "  \u001b[2ma\\u001b[31m↵\u001b[22m");
  assert.equal(second, "  \u001b[1m\u001b[32mb↵\u001b[39m\u001b[22m");
  for (const plain of [stream(false, true), stream(true, false)])
    assert.deepEqual(rowLines(RUNS, marksFor(plain)), ["  a\\u001b[31m↵", "  ⟦b↵", "  c⟧"]);
});

test("of long parts the ends are shown, and of many parts the first", () => {
  const marks = marksFor(stream(false, false));
  const [long] = rowLines([{ text: `start${"x".repeat(100_000)}end`, scored: true }], marks);
  assert.match(long!, /^ {2}⟦startx+ \.\.\. 98,808 characters \.\.\. x+end⟧$/);
  const many = Array.from({ length: 200 }, (_, i) => ({ text: "z", scored: i % 2 === 1 }));
  assert.match(rowLines(many, marks)[0]!, /⟦z⟧ \.\.\. and 140 parts more$/);
});

test("bars are as long as their rows, and a few of many are seen", () => {
  const histogram = [
    { from: 0, to: 999, rows: 0 },
    { from: 1_000, to: 1_999, rows: 1 },
    { from: 2_000, to: 2_999, rows: 100_000 },
  ];
  assert.deepEqual(histogramLines({ histogram }), [
    "        0 .. 999  0",
    "  1,000 .. 1,999  ▏ 1",
    `  2,000 .. 2,999  ${"█".repeat(40)} 100,000`,
  ]);
});

test("in a terminal there are colours, and with NO_COLOR there are none", () => {
  const main = new URL("dist/src/cli/main.js", ROOT).pathname;
  const inTerminal = (env: Record<string, string>): string => {
    const command = [process.execPath, main, ...INSPECT, "sums.jsonl"].join(" ");
    const { stdout, error } = spawnSync("script", ["-qec", command, "/dev/null"], {
      cwd: folder,
      env: { ...process.env, TERM: "xterm-256color", ...env },
      encoding: "utf8",
    });
    return error ? "" : stdout;
  };
  const coloured = inTerminal({});
  // Not everywhere is there a program that makes a terminal.
  if (coloured === "") return;
  assert.match(coloured, /\u001b\[32m b<\/s>/);
  assert.match(inTerminal({ NO_COLOR: "1" }), /⟦ b<\/s>⟧/);
});

test.run();

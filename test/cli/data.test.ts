/** Rows from files and folders: src/cli/data.ts on a tokenizer of letters. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { dataFiles, leadsToRows, loadFile, loadRows, type RowsWatch } from "../../src/cli/data.js";
import type { ReadingSettings } from "../../src/cli/data_options.js";
import type { TextCodec } from "../../src/cli/text.js";
import { ArgumentError, data, FileError, FormatError } from "../../src/index.js";
import { refuse } from "../support/cli.js";
import { says } from "../support/refuses.js";

const LETTERS = ["</s>", ..."abcdefghijklmnopqrstuvwxyz .:\n", "<new>"];
const model = { type: "BPE", vocab: Object.fromEntries(LETTERS.map((letter, id) => [letter, id])), merges: [] };
const added_tokens = ["</s>", "<new>"].map((content) => ({ id: LETTERS.indexOf(content), content, special: true }));
const tokenizer = new data.Tokenizer({ model, added_tokens, decoder: { type: "Fuse" } });
// The model has no row for the last of them.
const codec: TextCodec = {
  tokenizer,
  stopToken: [0],
  bosTokenId: null,
  vocabSize: LETTERS.length - 1,
  positions: 1_000,
};
const ids = (text: string): Int32Array => Int32Array.from([...tokenizer.encode(text), 0]);

const READING: ReadingSettings = {
  format: "auto",
  features: {},
  maxLength: 64,
  templateArgs: {},
  skipUnusable: false,
};
const SILENT: RowsWatch = { began: () => {}, progress: () => {}, ended: () => {} };

const root = mkdtempSync(join(tmpdir(), "wasm-lora-data-"));
test.after(() => rmSync(root, { recursive: true }));
let folders = 0;
/** A folder with these files. */
function folderOf(files: Record<string, string>): string {
  const folder = join(root, String(folders++));
  mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}
const load = (path: string, options: Partial<ReadingSettings & { evalData: string }> = {}, watch = SILENT) =>
  loadRows("finetune", path, codec, { ...READING, ...options }, watch);
const texts = (rows: data.TokenizedData | null): string[] | undefined =>
  rows?.rows.map((row) => tokenizer.decode(row.ids, { skipSpecialTokens: true }));

test("a file holds rows to train on, and --eval-data others to measure on", async () => {
  const folder = folderOf({ "a.jsonl": '{"text": "a"}\n{"text": "b"}\n', "b.csv": "text\nc\n" });
  const alone = await load(`${folder}/a.jsonl`);
  assert.deepEqual(
    alone.train.rows.map((row) => [row.ids, row.where]),
    [
      [ids("a"), `${folder}/a.jsonl:1`],
      [ids("b"), `${folder}/a.jsonl:2`],
    ],
  );
  assert.equal(alone.test, null);
  assert.deepEqual(
    alone.examples.map((example) => example.kind === "text" && example.text),
    ["a", "b"],
  );
  const measured = await load(`${folder}/a.jsonl`, { evalData: `${folder}/b.csv` });
  assert.deepEqual([texts(measured.train), texts(measured.test)], [["a", "b"], ["c"]]);
  assert.deepEqual(
    measured.examples.map(({ where }) => where),
    [`${folder}/a.jsonl:1`, `${folder}/a.jsonl:2`, `${folder}/b.csv:2`],
  );
});

test("a folder holds train, valid or validation, and test, which is left alone", async () => {
  const files = { "train.csv": "text\na\n", "valid.jsonl": '{"text": "b"}', "test.json": "broken", "notes.txt": "x" };
  const folder = folderOf(files);
  const read = await load(folder);
  assert.deepEqual([texts(read.train), texts(read.test)], [["a"], ["b"]]);
  const other = await load(folder, { evalData: `${folder}/train.csv` });
  assert.deepEqual(texts(other.test), ["a"]);
  const validation = folderOf({ "train.json": '[{"text": "a"}]', "validation.json": '[{"text": "b"}]' });
  assert.deepEqual(texts((await load(validation)).test), ["b"]);
  assert.equal((await load(folderOf({ "train.jsonl": '{"text": "a"}' }))).test, null);
  assert.deepEqual(dataFiles("eval", `${folder}/`), {
    train: `${folder}/train.csv`,
    valid: `${folder}/valid.jsonl`,
    test: `${folder}/test.json`,
  });
});

test("a folder without rows, without any to train on, or with two files for one purpose is refused", async () => {
  await assert.rejects(
    load(folderOf({ "notes.txt": "x" })),
    says(FileError, "finetune: ", "without rows", "train.jsonl"),
  );
  await assert.rejects(load(folderOf({ "test.jsonl": "" })), says(FileError, "no train.jsonl"));
  const both = folderOf({ "train.jsonl": "", "valid.csv": "", "validation.csv": "" });
  await assert.rejects(load(both), says(FileError, "valid.csv and validation.csv", "one file for valid"));
  await assert.rejects(
    load(folderOf({ "train.jsonl": "", "train.csv": "" })),
    says(FileError, "train.csv and train.jsonl"),
  );
});

test("what leads to rows is told by its name's end, or since it is a folder", () => {
  assert.deepEqual(["a.jsonl", "A.CSV", "a.parquet", "a.txt", "a", root].map(leadsToRows), [
    true,
    true,
    true,
    false,
    false,
    true,
  ]);
});

test("a row's options are handed on: format, columns, what is scored, length", async () => {
  const folder = folderOf({ "a.jsonl": '{"text": "a", "q": "ab", "a": "cd"}\n' });
  const features = { prompt: "q", completion: "a" };
  const path = `${folder}/a.jsonl`;
  const [row] = (await load(path, { features, format: "completion" })).train.rows;
  assert.deepEqual([...row!.labels], [-100, -100, ...ids("cd")]);
  const [all] = (await load(path, { features, format: "completion", lossOn: "all", maxLength: 3 })).train.rows;
  assert.deepEqual([...all!.labels], [...ids("abc")].slice(0, 3));
  assert.deepEqual(texts((await load(path, { format: "text" })).train), ["a"]);
});

test("a chat goes through the tokenizer's template, with its arguments", async () => {
  const chat = {
    messages: [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
    ],
  };
  const folder = folderOf({ "a.jsonl": JSON.stringify(chat) });
  const source =
    "{% for m in messages %}{{ lead }}{{ m.role }}:{{ m.content }}</s>{% endfor %}" +
    "{% if add_generation_prompt %}{{ lead }}assistant:{% endif %}";
  tokenizer.chatTemplate = new data.ChatTemplate(source);
  const { train } = await load(`${folder}/a.jsonl`, { templateArgs: { lead: ". " } });
  tokenizer.chatTemplate = null;
  assert.deepEqual(texts(train), [". user:a. assistant:b"]);
  assert.deepEqual(
    [...train.rows[0]!.labels].filter((id) => id >= 0),
    [...ids("b")],
  );
  await assert.rejects(load(`${folder}/a.jsonl`), says(FormatError, `${folder}/a.jsonl:1`, "chat template"));
});

test("a token that the model has no row for is named by its row", async () => {
  const folder = folderOf({ "a.jsonl": '{"text": "a"}\n{"text": "a<new>"}', "b.jsonl": '{"input_ids": [1, 99]}' });
  await assert.rejects(
    load(`${folder}/a.jsonl`),
    says(FormatError, "a.jsonl:2: token 31", "<new>", "vocabulary of 31"),
  );
  await assert.rejects(load(`${folder}/b.jsonl`), says(FormatError, "b.jsonl:1: token 99"));
});

test("rows that nothing can be learnt from are refused, or left out and counted, but not all of them", async () => {
  const rows = ['{"prompt": "a", "completion": "b"}', `{"prompt": "${"a".repeat(90)}", "completion": "b"}`];
  const folder = folderOf({ "a.jsonl": rows.join("\n"), "b.jsonl": rows[1]! });
  await assert.rejects(load(`${folder}/a.jsonl`), says(FormatError, "a.jsonl:2"));
  const { train } = await load(`${folder}/a.jsonl`, { skipUnusable: true });
  assert.deepEqual([train.rows.length, train.skipped.map(({ where }) => where)], [1, [`${folder}/a.jsonl:2`]]);
  const none = says(FormatError, "b.jsonl: no row can be trained on", "b.jsonl:1");
  await assert.rejects(load(`${folder}/b.jsonl`, { skipUnusable: true }), none);
});

test("its watch is told of each file, of each row, and of the end, also of a failed one", async () => {
  const told: unknown[][] = [];
  const watch: RowsWatch = {
    began: (file, rows) => told.push([file, rows]),
    progress: (done, all) => told.push([done, all]),
    ended: () => told.push(["ended"]),
  };
  const folder = folderOf({ "train.csv": "text\na\nb\n", "valid.csv": "text\n<new>\n" });
  await assert.rejects(load(folder, {}, watch), FormatError);
  assert.deepEqual(told, [
    [`${folder}/train.csv`, 2],
    [1, 2],
    [2, 2],
    ["ended"],
    [`${folder}/valid.csv`, 1],
    [1, 1],
    ["ended"],
  ]);
});

test("files that are not there, or no rows, are refused", async () => {
  await assert.rejects(load(`${root}/none.jsonl`), says(FileError, "none.jsonl"));
  const folder = folderOf({ "a.jsonl": '{"text": "a"}', "b.txt": "b", "c.jsonl": "", "d.jsonl": '{"text": 5}' });
  await assert.rejects(
    load(`${folder}/a.jsonl`, { evalData: `${folder}/b.txt` }),
    says(ArgumentError, "--eval-data", "b.txt"),
  );
  await assert.rejects(load(`${folder}/c.jsonl`), says(FormatError, "c.jsonl", "no rows"));
  await assert.rejects(
    loadFile(`${folder}/d.jsonl`, codec, READING, SILENT),
    says(FormatError, "d.jsonl:1: text is 5"),
  );
});

// What else is refused, and where, is told in unit/data/rows.test.ts.
const BROKEN: [name: string, bytes: string | Uint8Array, ...mentions: (string | RegExp)[]][] = [
  ["cut.jsonl", '{"text": "a"}\n{"text": "b', "cut.jsonl: line 2, column 12", "the end of the text"],
  ["mixed.jsonl", '{"text": "a"}\n{"prompt": "a", "completion": "b"}', "mixed.jsonl:2: ", "mixed.jsonl:1 of text"],
  ["list.csv", "messages\n\"[{'role': 'user'}]\"\n", "list.csv:2", "not JSON", "json.dumps"],
  ["escape.jsonl", '{"text": "a", "\\u001b]0;x\\u0007": 1, "messages": []}', "escape.jsonl:1", /^[^\u001b\u0007]*$/],
  ["cut.parquet", Uint8Array.of(80, 65, 82, 49, 80, 65, 82, 49), "cut.parquet", "not a Parquet file"],
];
for (const [name, bytes, ...mentions] of BROKEN) {
  test(`the command refuses ${name} in one line`, async () => {
    const folder = folderOf({});
    writeFileSync(join(folder, name), bytes);
    await refuse(folder, ["inspect", "--data", name], "FormatError", ...mentions);
  });
}

test.run();

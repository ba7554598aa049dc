/**
 * Rows of training data in every format. What is taken as JSON is what JSON.parse makes of it, line by line; what a
 * table was written from is what is read of it; and examples of them hold what their kind says.
 */
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { data } from "../../../src/index.js";
import { ROOT } from "../../support/root.js";
import { damage, damageBytes, damageText, textOf, treeOf, type Tree } from "../json_tree.js";
import type { Random } from "../random.js";
import { must, refusal, type Target } from "../target.js";
import { encode } from "../weights.js";

const user = { role: "user", content: "What is 2 + 2?" };
const assistant = { role: "assistant", content: "It is 4." };
const ROWS: readonly object[] = [
  { text: "One, two.\nThree." },
  { messages: [user, assistant] },
  {
    messages: [{ role: "system", content: "" }, user, { ...assistant, weight: 0 }, { ...user, train: true }],
    tools: [{ type: "function", function: { name: "add" } }],
    chat_template_kwargs: { enable_thinking: false },
  },
  {
    messages: [
      {
        role: "assistant",
        content: null,
        tool_calls: [{ type: "function", function: { name: "add", arguments: {} } }],
      },
      { role: "user", content: [{ type: "text", text: "a" }] },
    ],
  },
  { messages: '[{"role":"user","content":"a"}]' },
  { prompt: "2 + 2 =", completion: " 4" },
  { prompt: [user], completion: [assistant] },
  { instruction: "Add.", input: "2, 2", output: "4", system: "s", history: [["a", "b"]] },
  {
    conversations: [
      { from: "human", value: "a" },
      { from: "gpt", value: "b" },
    ],
  },
  { input_ids: [1, 2, 3], labels: [-100, 2, 3] },
];
const WORDS = [
  ...["text", "messages", "prompt", "completion", "conversations", "instruction", "output", "input_ids", "labels"],
  ...["role", "content", "from", "value", "weight", "train", "tools", "tool_calls", "history", "user", "human"],
  ..."[{'role': 'user'}]|[1, 2]|[|-100|text ".split("|"),
].map((word) => JSON.stringify(word));
const FORMATS: readonly data.RowFormat[] = ["text", "messages", "completion", "alpaca", "sharegpt", "tokens"];
const CELLS = ["", "a", "ü, b", 'say "x"', "two\nlines", "\r\n", "\u2028", " c ", "=1;2\t3", '"', '5" pipe', "0042"];
const CODECS = ["none", "snappy", "gzip", "zstd", "lz4"];

interface Input {
  name: string;
  bytes: Uint8Array;
  options: data.ReadExamplesOptions;
  /** The rows that a table was written from. */
  rows?: Record<string, string>[];
}

let parquet: Uint8Array[] = [];

const quoted = (field: string): string => `"${field.replaceAll('"', '""')}"`;

/** A table as RFC 4180 writes it, but for a " within a field, which many leave as it is. */
function table(random: Random, separator: string): { text: string; rows: Record<string, string>[] } {
  const columns = ["prompt", "completion", "system", "id"].slice(0, random.integer(1, 4));
  const rows = Array.from({ length: random.integer(1, 6) }, () =>
    Object.fromEntries(columns.map((column) => [column, random.pick(CELLS)])),
  );
  // A line of nothing but a blank field is a blank line.
  const kept = columns.length > 1 ? rows : rows.filter((row) => row.prompt!.trim() !== "");
  if (kept.length === 0) kept.push({ prompt: "a" });
  const end = random.pick(["\n", "\r\n"]);
  const field = (value: string): string => (/^"|[\r\n,;\t]/.test(value) || random.once(3) ? quoted(value) : value);
  const lines = [columns.join(separator), ...kept.map((row) => columns.map((c) => field(row[c]!)).join(separator))];
  return { text: lines.join(end) + (random.once(2) ? end : ""), rows: kept };
}

function generate(random: Random): Input {
  const options: data.ReadExamplesOptions = random.once(3) ? { format: random.pick(FORMATS) } : {};
  if (random.once(6)) options.features = { prompt: random.pick(["text", "instruction", "none"]), completion: "output" };
  const kind = random.pick(["jsonl", "jsonl", "json", "csv", "tsv", "parquet"]);
  const name = `a.${kind}`;
  const mark = random.once(10) ? "\ufeff" : "";
  if (kind === "parquet")
    return { name, bytes: damageBytes(random.pick(parquet), random.integer(1, 4), random), options };
  if (kind === "csv" || kind === "tsv") {
    const { text, rows } = table(random, kind === "tsv" ? "\t" : ",");
    return random.once(2)
      ? { name, bytes: encode(mark + text), options, rows }
      : { name, bytes: encode(damageText(mark + text, random)), options };
  }
  const row = random.pick(ROWS);
  const trees = Array.from({ length: random.integer(1, 4) }, () =>
    damage(treeOf(random.once(8) ? random.pick(ROWS) : row), random.few(4), random, WORDS),
  );
  const end = random.pick(["\n", "\r\n", "\n\n"]);
  const list: Tree = { list: trees };
  const text =
    kind === "jsonl" ? trees.map(textOf).join(end) : textOf(random.once(4) ? { members: [['"data"', list]] } : list);
  return { name, bytes: encode(mark + (random.once(6) ? damageText(text, random) : text)), options };
}

async function run({ name, bytes, options, rows: written }: Input): Promise<string | undefined> {
  let rows: data.DataRow[];
  try {
    rows = await data.parseRows(bytes, name);
  } catch (error) {
    const refused = refusal(error);
    const { message } = error as Error;
    must(message.startsWith(name), () => `an error does not begin with the file's name: ${message}`);
    must(written === undefined, () => `a table is refused: ${message}`);
    return refused;
  }
  must(rows.length > 0, () => "no rows are taken for some");
  for (const { where } of rows) must(where.startsWith(name), () => `a row's place is ${where}`);
  if (written)
    must(
      isDeepStrictEqual(
        rows.map(({ value }) => value),
        written,
      ),
      () => `a table is read as ${JSON.stringify(rows)}`,
    );
  if (name.endsWith(".jsonl")) {
    const lines = new TextDecoder().decode(bytes).split(/\r\n?|\n/);
    for (const { value, where } of rows) {
      const line = lines[Number(where.split(":")[1]) - 1]!;
      must(isDeepStrictEqual(JSON.parse(line), value), () => `${where} is read as ${JSON.stringify(value)}`);
    }
    must(lines.filter((line) => line.trim() !== "").length === rows.length, () => "a line is lost");
  }
  // An error from here on is a refusal, if it names a row.
  let examples: data.Example[];
  try {
    examples = data.readExamples(rows, options);
  } catch (error) {
    const { message } = error as Error;
    must(
      rows.some(({ where }) => message.startsWith(`${where}: `)),
      () => `an error names no row: ${message}`,
    );
    throw error;
  }
  must(examples.length === rows.length, () => "there are more or fewer examples than rows");
  for (const [i, example] of examples.entries()) {
    must(example.where === rows[i]!.where, () => "an example is of another place");
    check(example);
  }
  return undefined;
}

const mustBeText = (value: unknown): void => must(typeof value === "string", () => `${String(value)} is no text`);

function check(example: data.Example): void {
  switch (example.kind) {
    case "text":
      return mustBeText(example.text);
    case "messages":
      return checkMessages(example.messages);
    case "completion":
      mustBeText(example.prompt);
      return mustBeText(example.completion);
    case "chatCompletion":
      checkMessages(example.prompt);
      return checkMessages(example.completion);
    case "tokens": {
      const { inputIds, labels } = example;
      must(inputIds.length > 0 && inputIds.every((id) => id >= 0), () => "tokens are none");
      must(labels?.length === inputIds.length || labels === null, () => "labels are of another length");
      must(labels?.every((label, i) => label === -100 || label === inputIds[i]) ?? true, () => "labels are others");
    }
  }
}

const mustBeWeight = (weight: unknown): void =>
  must(weight === undefined || weight === 0 || weight === 1, () => `a weight is ${String(weight)}`);

function checkMessages(messages: readonly data.ChatMessage[]): void {
  must(messages.length > 0, () => "there are no messages");
  for (const { role, content, weight, train } of messages) {
    must(typeof role === "string" && role !== "", () => "a role is none");
    mustBeWeight(weight);
    must(train === undefined, () => "train is left");
    if (content === null || typeof content === "string") continue;
    for (const part of content) {
      must(part.type === "text", () => "a part is no text");
      mustBeText(part.text);
      must(part.weight == null && part.train == null, () => "a part has a weight");
    }
  }
}

export const rows: Target<Input> = {
  name: "rows",
  inputs: 10_000,
  prepare() {
    const read = (codec: string): Uint8Array =>
      new Uint8Array(readFileSync(new URL(`test/fixtures/rows/chats_${codec}.parquet`, ROOT)));
    parquet = CODECS.map(read);
  },
  generate,
  run,
};

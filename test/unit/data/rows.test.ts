/**
 * src/data/rows.ts: files to rows. Tables come from pandas and pyarrow (test/fixtures/rows/make.py), with their rows as
 * Python's json wrote them; lines and columns are counted by hand.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { ArgumentError, data, FormatError } from "../../../src/index.js";
import { ROOT } from "../../support/root.js";
import { says } from "../../support/refuses.js";

const fixture = (name: string): Uint8Array => new Uint8Array(readFileSync(new URL(`test/fixtures/rows/${name}`, ROOT)));
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const parse = (text: string, name: string): Promise<data.DataRow[]> => data.parseRows(bytesOf(text), name);
const valuesOf = (rows: data.DataRow[]): unknown[] => rows.map(({ value }) => value);
const placesOf = (rows: data.DataRow[]): string[] => rows.map(({ where }) => where);

const expected = JSON.parse(new TextDecoder().decode(fixture("expected.json"))) as {
  alpaca: Record<string, string>[];
  chats: { messages: Record<string, unknown>[]; score: number | null }[];
};

for (const name of [
  "alpaca_excel.csv",
  "alpaca_quoted.csv",
  "alpaca.tsv",
  "alpaca_utf16.csv",
  "alpaca.jsonl",
  "alpaca.json",
]) {
  test(`${name} by pandas holds what it was written from`, async () => {
    assert.deepEqual(valuesOf(await data.parseRows(fixture(name), name)), expected.alpaca);
  });
}

test("a CSV's column without a name, as pandas writes its row numbers, is left out", async () => {
  const rows = await data.parseRows(fixture("alpaca.csv"), "alpaca.csv");
  assert.deepEqual(valuesOf(rows), expected.alpaca);
  // The second row holds two ends of lines, the third one.
  assert.deepEqual(placesOf(rows), ["alpaca.csv:2", "alpaca.csv:3", "alpaca.csv:7", "alpaca.csv:9"]);
});

for (const codec of ["none", "snappy", "gzip", "zstd", "lz4"]) {
  test(`chats_${codec}.parquet by pyarrow holds what it was written from, but for absent fields`, async () => {
    const rows = await data.parseRows(fixture(`chats_${codec}.parquet`), "chats.parquet");
    const chats = expected.chats.map(({ messages, score }) => ({
      messages: messages.map((message) => Object.fromEntries(Object.entries(message).filter(([, v]) => v !== null))),
      ...(score !== null && { score }),
    }));
    assert.deepEqual(valuesOf(rows), chats);
    assert.deepEqual(placesOf(rows), ["chats.parquet: row 1", "chats.parquet: row 2"]);
  });
}

test("Parquet's integers of 64 bits are numbers, its times texts", async () => {
  const rows = await data.parseRows(fixture("tokens.parquet"), "tokens.parquet");
  assert.deepEqual(valuesOf(rows), [
    { input_ids: [5, 6, 7], labels: [-100, 6, 7], id: 2 ** 60, when: "2024-02-03T04:05:06.000Z" },
    { input_ids: [1, 2147483647], id: -1 },
  ]);
});

test("a Parquet file that is cut, damaged or compressed by Brotli is refused by name", async () => {
  const whole = fixture("chats_snappy.parquet");
  await assert.rejects(
    data.parseRows(fixture("chats_brotli.parquet"), "b.parquet"),
    says(FormatError, "b.parquet", "BROTLI"),
  );
  await assert.rejects(data.parseRows(whole.subarray(0, 1000), "c.parquet"), says(FormatError, "c.parquet"));
  await assert.rejects(data.parseRows(new Uint8Array(0), "e.parquet"), says(FormatError, "e.parquet"));
  await assert.rejects(parse('{"text": "a"}', "j.parquet"), says(FormatError, "j.parquet"));
  const damaged = whole.slice();
  damaged.fill(255, 40, 200);
  await assert.rejects(data.parseRows(damaged, "d.parquet"), says(FormatError, "d.parquet"));
});

test("a Parquet file of few bytes that stand for very many rows is refused by name", async () => {
  const bytes = fixture("many.parquet");
  assert.ok(bytes.length < 20_000);
  const refused = says(FormatError, "many.parquet", "5000000 rows", "at most 4194304");
  await assert.rejects(data.parseRows(bytes, "many.parquet"), refused);
});

test("JSON Lines: ends of lines of every system, blank lines, marks and UTF-16 are no matter", async () => {
  for (const end of ["\n", "\r\n", "\r"]) {
    const text = `{"text": "a\\n\u2028b"}${end} \t${end}${end}{"text": "ü"}`;
    for (const given of [text, `\ufeff${text}${end}`]) {
      const rows = await parse(given, "a.jsonl");
      assert.deepEqual(valuesOf(rows), [{ text: "a\n\u2028b" }, { text: "ü" }]);
      assert.deepEqual(placesOf(rows), ["a.jsonl:1", "a.jsonl:4"]);
    }
  }
  const utf16 = Uint8Array.from(
    [...'\ufeff{"text": "ü"}\n'].flatMap((c) => [c.charCodeAt(0) & 255, c.charCodeAt(0) >> 8]),
  );
  assert.deepEqual(valuesOf(await data.parseRows(utf16, "a.NDJSON")), [{ text: "ü" }]);
});

test("JSON: a list, an object with one list, or JSON Lines by that name", async () => {
  const rows = [{ text: "a" }, { text: "b" }];
  const one = await parse(JSON.stringify(rows), "a.json");
  assert.deepEqual([valuesOf(one), placesOf(one)], [rows, ["a.json: row 1", "a.json: row 2"]]);
  assert.deepEqual(valuesOf(await parse(JSON.stringify({ version: 1, data: rows }, null, 2), "a.json")), rows);
  const lines = await parse('\n{"text": "a"}\n{"text": "b"}\n', "a.json");
  assert.deepEqual([valuesOf(lines), placesOf(lines)], [rows, ["a.json:2", "a.json:3"]]);
});

test("CSV: separators by the header, quotes, ends of lines in fields, blank lines, spaces around names", async () => {
  const cases: [string, unknown[]][] = [
    [
      "prompt, completion\na,b\n\n\nc, d \n",
      [
        { prompt: "a", completion: "b" },
        { prompt: "c", completion: " d " },
      ],
    ],
    ['prompt;completion\r\n"1,5\r\n";x;\r\n'.replace("x;", "x"), [{ prompt: "1,5\r\n", completion: "x" }]],
    ["prompt\tcompletion\na,b;c\td", [{ prompt: "a,b;c", completion: "d" }]],
    ['text\n5" pipe\n"6"" pipe"\n', [{ text: '5" pipe' }, { text: '6" pipe' }]],
    [
      'size,name\r\n5" pipe,a\r\n"6"" pipe\r\n",b\r\n"","""c""\r\n"\r\n7"",d""\r\n8,e\r\n',
      [
        { size: '5" pipe', name: "a" },
        { size: '6" pipe\r\n', name: "b" },
        { size: "", name: '"c"\r\n' },
        { size: '7""', name: 'd""' },
        { size: "8", name: "e" },
      ],
    ],
    ["text\r\nmixed\nends\r\n", [{ text: "mixed" }, { text: "ends" }]],
    ["text\rof an\rold system", [{ text: "of an" }, { text: "old system" }]],
    [
      "__proto__,text\na,b",
      [
        Object.fromEntries([
          ["__proto__", "a"],
          ["text", "b"],
        ]),
      ],
    ],
  ];
  for (const [text, rows] of cases) assert.deepEqual(valuesOf(await parse(text, "a.csv")), rows, text);
});

const FAULTS: [name: string, text: string, ...words: string[]][] = [
  ["a.jsonl", '{"text": "a"}\n{"text": "b",}', "a.jsonl: line 2, column 14", "expected a string"],
  ["a.jsonl", '{"text": "a"}\r\n\r\n{"text": "b"', "line 3, column 13", "the end of the text", ".json file"],
  ["a.jsonl", '{\n "text": "a"\n}', "line 1, column 2", ".json file"],
  ["a.jsonl", '{"text": "a"} {"text": "b"}', "line 1, column 15", "expected nothing more"],
  ["a.jsonl", "{'text': 'a'}", "line 1, column 2", "expected a string"],
  ["a.jsonl", '{"text": "a\tb"}', "line 1, column 12", "escape sequence"],
  ["a.jsonl", '{"text": "\\x"}', "line 1, column 10", "valid escapes"],
  ["a.jsonl", '{"text": NaN}', "line 1, column 10", "expected a value"],
  ["a.jsonl", '{"text": 01}', "line 1, column 10", "expected a value"],
  ["a.jsonl", '{"text": "a", "n": {"k": 1, "k": 2}}', "line 1, column 29", "does not have already", '"k"'],
  ["a.jsonl", '{"text": "a"}\n["b"]', "a.jsonl:2", "an object"],
  ["a.jsonl", '"b"', "a.jsonl:1", "an object"],
  ["a.jsonl", "null", "a.jsonl:1", "null", "an object"],
  ["a.jsonl", `{"text": ${"[".repeat(100000)}`, "line 1", "500 levels"],
  ["a.jsonl", "", "a.jsonl", "no rows"],
  ["a.jsonl", " \n\n", "a.jsonl", "no rows"],
  ["a.json", "", "a.json: line 1, column 1", "the end of the text"],
  ["a.json", "[]", "a.json", "no rows"],
  ["a.json", '[\n {"text": "a"},\n 5]', "a.json: row 2", "5", "an object"],
  ["a.json", '[\n {"text": "a"},\n]', "a.json: line 3, column 1", "expected a value"],
  ["a.json", '{"text": "a"}', "a.json", "a list of objects"],
  ["a.json", '{"a": [1], "b": []}', "a.json", '"a", "b"', "one such list"],
  ["a.json", '{"text": "a"}\n{"text": "b"', "a.json: line 2, column 13"],
  ["a.csv", "", "a.csv", "no rows"],
  ["a.csv", "text\n", "a.csv", "no rows"],
  ["a.csv", 'a,b\n"1\n2",3\n"x" y,4\n', "a.csv: line 4, column 1", "follows its closing"],
  ["a.csv", 'a,b\n1,"2\n3,4\n', "a.csv: line 2, column 3", "no closing"],
  ["a.csv", 'a,b\n"1\n2",3\n4\n', "a.csv: line 4", "1 fields", "2"],
  ["a.csv", "a,b\n1,2,3\n", "a.csv: line 2", "3 fields", "in quotes"],
  ["a.csv", "a,b,a\n1,2,3\n", "a.csv: line 1", 'two columns "a"'],
];
for (const [name, text, ...words] of FAULTS) {
  test(`${name} of ${JSON.stringify(text.slice(0, 60))} is refused by its place`, async () => {
    await assert.rejects(parse(text, name), says(FormatError, ...words));
  });
}

test("bytes that are no text are refused by their place, line and column", async () => {
  const late = says(FormatError, "a.csv", "byte 12 (line 3, column 3) is 0xff");
  await assert.rejects(data.parseRows(Uint8Array.of(...bytesOf("text\na,b\nü,"), 0xff), "a.csv"), late);
  const half = Uint8Array.from(
    [..."\ufeff[\n5\ud800"].flatMap((unit) => [unit.charCodeAt(0) & 255, unit.charCodeAt(0) >> 8]),
  );
  await assert.rejects(data.parseRows(half, "a.json"), says(FormatError, "byte 8 (line 2, column 2)", "UTF-16LE"));
  for (const name of ["a.jsonl", "a.json", "a.csv", "a.tsv"]) {
    await assert.rejects(
      data.parseRows(Uint8Array.of(0x7b, 0xff, 0x7d), name),
      says(FormatError, name, "byte 1", "0xff"),
    );
    await assert.rejects(parse('{"text": "\0"}', name), says(FormatError, name, "byte 10", "NUL"));
  }
});

test("long rows, and many, are read", async () => {
  const long = "ab ü\\n".repeat(200_000);
  const [row] = await parse(`{"text": "${long}"}`, "a.jsonl");
  assert.equal(row!.value.text, "ab ü\n".repeat(200_000));
  const [cell] = await parse(`text\n"${"ab, ü\n".repeat(200_000)}"`, "a.csv");
  assert.equal(cell!.value.text, "ab, ü\n".repeat(200_000));
  const many = await parse('{"text": "a"}\n'.repeat(100_000), "a.jsonl");
  assert.equal(many.at(-1)!.where, "a.jsonl:100000");
});

test("another end of a name, and what is no bytes, are refused", async () => {
  await assert.rejects(parse("a", "novel.txt"), says(ArgumentError, "novel.txt", ".jsonl", ".parquet"));
  await assert.rejects(parse("a", "jsonl"), says(ArgumentError, "jsonl"));
  await assert.rejects(data.parseRows("a" as never, "a.jsonl"), says(ArgumentError, "Uint8Array"));
  await assert.rejects(data.parseRows(bytesOf("a"), 5 as never), says(ArgumentError, "name"));
  assert.deepEqual(
    ["x/y.JSONL", "a.parquet", "a.jsonl/b", "constructor", "a.constructor", ".txt"].map(data.isRowsFile),
    [true, true, false, false, false, false],
  );
});

test.run();

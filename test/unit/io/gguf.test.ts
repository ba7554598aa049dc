/** GGUF headers: what gguf-py wrote is read as gguf-py reads it, and what is damaged is refused by its place. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { io } from "../../../src/index.js";
import { openGguf } from "../../../src/io/gguf/files.js";
import { readGgufHeader, readStreamedGgufHeader } from "../../../src/io/gguf/header.js";
import { StreamReader } from "../../../src/io/streamed_file.js";
import { FormatError } from "../../../src/runtime/errors.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

const bytesOf = (name: string) => new Uint8Array(readFileSync(new URL(`test/fixtures/gguf/${name}`, ROOT)));
const open = (bytes: Uint8Array) => {
  io.memoryFiles.set("memory:test.gguf", bytes);
  return openGguf("memory:test.gguf");
};
const refuses = (bytes: Uint8Array, ...words: string[]) =>
  assert.throws(() => open(bytes), says(FormatError, "memory:test.gguf: ", ...words));

type Value = [types: string[], value: unknown];
type Tensor = [name: string, dtype: string, shape: number[], begin: number, length: number];
const expected = JSON.parse(readFileSync(new URL("test/fixtures/gguf/headers.json", ROOT), "utf8")) as Record<
  string,
  { values: Record<string, Value>; tensors: Tensor[] }
>;
const DTYPES: Record<string, string> = { F32: "float32", BF16: "bfloat16" };

for (const [name, { values, tensors }] of Object.entries(expected)) {
  test(`${name} has what gguf-py finds in it`, () => {
    const bytes = bytesOf(name);
    const header = readGgufHeader({
      path: name,
      size: bytes.length,
      read: (at, into) => into.set(bytes.subarray(at, at + into.length)),
      close() {},
    });
    assert.deepEqual([...header.metadata.keys()], Object.keys(values));
    for (const [key, [types, value]] of Object.entries(values)) {
      const found = header.metadata.get(key)!;
      assert.deepEqual(found.type === "array" ? ["ARRAY", found.of.toUpperCase()] : [found.type.toUpperCase()], types);
      assert.deepEqual(found.value, value, key);
    }
    assert.deepEqual(
      [...header.tensors.values()].map((t) => [t.name, t.dtype, t.shape, t.begin, t.length]),
      tensors.map(([name, dtype, ...rest]) => [name, DTYPES[dtype], ...rest]),
    );
    assert.equal(header.version, 3);
    assert.equal(header.alignment, 32);
  });
}

test("a stream in parts of one byte gives the header of the file, and then its data", async () => {
  const bytes = bytesOf("llama_bf16.gguf");
  const whole = open(bytes);
  for (const size of [bytes.length, null]) {
    const reader = new StreamReader(
      (async function* () {
        for (let i = 0; i < bytes.length; i++) yield bytes.subarray(i, i + 1);
      })(),
    );
    const header = await readStreamedGgufHeader("memory:test.gguf", size, reader);
    assert.deepEqual([...header.metadata], [...whole.metadata]);
    const [first] = header.tensors.values();
    assert.equal(header.dataStart, first!.begin);
    assert.deepEqual(await reader.take(first!.length), bytes.slice(first!.begin, first!.begin + first!.length));
  }
});

test("a file that was split is read whole, whichever part is named", () => {
  const parts = [1, 2, 3].map((i) => `qwen3_split-0000${i}-of-00003.gguf`);
  for (const part of parts) io.memoryFiles.set(`memory:${part}`, bytesOf(part));
  const whole = open(bytesOf("qwen3.gguf"));
  for (const part of parts) {
    const { path, metadata, tensors, sizes, read } = openGguf(`memory:${part}`);
    assert.equal(path, `memory:${parts[0]}`);
    assert.equal(sizes.size, 3);
    assert.equal(metadata.get("qwen3.embedding_length")!.value, 48);
    assert.deepEqual([...tensors.keys()].sort(), [...whole.tensors.keys()].sort());
    for (const [name, { file, begin, length }] of tensors) {
      const [here, there] = [new Uint8Array(length), new Uint8Array(length)];
      read(file, begin, here);
      const { file: other, begin: from } = whole.tensors.get(name)!;
      whole.read(other, from, there);
      assert.deepEqual(here, there, name);
    }
  }
  io.memoryFiles.set(`memory:${parts[1]}`, bytesOf(parts[2]!));
  assert.throws(() => openGguf(`memory:${parts[0]}`), says(FormatError, parts[1]!, "split.no", "part 3", "part 2"));
  io.memoryFiles.delete(`memory:${parts[1]}`);
  assert.throws(() => openGguf(`memory:${parts[0]}`), new RegExp(parts[1]!));
  refuses(bytesOf(parts[0]!), "split.count", "3 files");
});

/** A file's header by its parts, and data. */
const le = (bytes: number, value: number | bigint) => {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, BigInt(value), true);
  return new Uint8Array(view.buffer, 0, bytes);
};
const text = (value: string) => [le(8, new TextEncoder().encode(value).length), new TextEncoder().encode(value)];
const join = (...parts: (Uint8Array | Uint8Array[])[]) => Uint8Array.from(parts.flat().flatMap((part) => [...part]));
const head = (tensors: number | bigint, values: number | bigint) =>
  join(new TextEncoder().encode("GGUF"), le(4, 3), le(8, tensors), le(8, values));
const info = (name: string, sizes: (number | bigint)[], type: number, offset: number | bigint) =>
  join(
    text(name),
    le(4, sizes.length),
    sizes.map((size) => le(8, size)),
    le(4, type),
    le(8, offset),
  );
/** Padded to 32 bytes, with so many bytes of data. */
const file = (header: Uint8Array, data: number) =>
  join(header, new Uint8Array(-header.length & 31), new Uint8Array(data));

test("a file that is cut off anywhere says so", () => {
  const bytes = file(
    join(
      head(1, 2),
      text("a.b"),
      le(4, 8),
      text("value"),
      text("list"),
      le(4, 9),
      le(4, 4),
      le(8, 2),
      le(4, 1),
      le(4, 2),
      info("w", [2, 3], 0, 0),
    ),
    24,
  );
  assert.equal(open(bytes).tensors.get("w")!.length, 24);
  for (let length = 4; length < bytes.length; length++) refuses(bytes.slice(0, length), "cut off");
  for (let length = 0; length < 4; length++) refuses(bytes.slice(0, length), "expected a GGUF file");
  const other = join(bytes, new Uint8Array(31));
  assert.equal(open(other).tensors.size, 1);
  refuses(join(other, le(1, 0)), "ends at byte", "goes on");
});

test("what is no header is refused by its place", () => {
  const list = (of: number, length: number | bigint, ...rest: Uint8Array[]) =>
    join(head(0, 1), text("k"), le(4, 9), le(4, of), le(8, length), ...rest);
  const cases: [bytes: Uint8Array, ...words: string[]][] = [
    [new TextEncoder().encode("<!DOCTYPE html><html><body>not found</body></html>"), "a web page"],
    [join(new TextEncoder().encode("GGUF"), le(4, 1), le(8, 0), le(8, 0)), "version is 1"],
    [join(new TextEncoder().encode("GGUF"), le(4, 0x03000000), le(8, 0), le(8, 0)), "big-endian"],
    [head(0n, 0xffff_ffff_ffff_ffffn), "number of metadata values is 18446744073709551615"],
    [head(0, 1_000_000), "key 1 of 1000000", "cut off"],
    [join(head(0, 1), le(8, 1n << 62n)), "the length of key 1 of 1", "4611686018427387904"],
    [join(head(0, 1), le(8, 0)), "key 1 of 1", "0 characters"],
    [join(head(0, 1), le(8, 1), le(1, 0xff), le(4, 4), le(4, 1)), "not valid UTF-8"],
    [join(head(0, 1), text("k"), le(4, 13)), 'the value of "k" has type 13'],
    [join(head(0, 1), text("k"), le(4, 7), le(1, 2)), 'the value of "k" is 2; expected 0 or 1'],
    [
      join(head(0, 2), text("k"), le(4, 0), le(1, 2), text("k"), le(4, 0), le(1, 2)),
      '"k" of the metadata occurs twice',
    ],
    [list(9, 1), "list of lists"],
    [list(4, 1n << 50n), 'the value of "k"', "cut off"],
    [list(8, 1n << 50n), 'the value of "k"', "cut off"],
    [
      join(head(0, 1), text("general.alignment"), le(4, 4), le(4, 24)),
      "general.alignment is 24 (uint32)",
      "power of two",
    ],
    [file(join(head(2, 0), info("w", [4], 0, 0), info("w", [4], 0, 32)), 64), 'tensor "w" occurs twice'],
    [file(join(head(1, 0), info("w", [1, 1, 1, 1, 1], 0, 0)), 32), "has 5 dimensions"],
    [file(join(head(1, 0), info("w", [4], 99, 0)), 32), 'tensor "w" has type 99'],
    [file(join(head(1, 0), info("w", [48], 8, 0)), 64), "rows of q8_0 are multiples of 32"],
    [file(join(head(1, 0), info("w", [4], 0, 32)), 64), "begins at byte 32", "expected 0"],
    [file(join(head(1, 0), info("w", [1 << 30, 1 << 30], 0, 0)), 64), "more than 2^53 bytes"],
    [file(join(head(1, 0), info("w", [1 << 20], 0, 0)), 64), "cut off"],
    [file(join(head(1, 0), info("w".repeat(64), [1], 0, 0)), 64), "64 bytes"],
  ];
  for (const [bytes, ...words] of cases) refuses(bytes, ...words);
});

test("integers of 64 bits are kept whole", () => {
  const { metadata } = open(
    join(head(0, 2), text("a"), le(4, 10), le(8, (1n << 64n) - 1n), text("b"), le(4, 11), le(8, 7)),
  );
  assert.deepEqual(metadata.get("a"), { type: "uint64", value: 18446744073709551615n });
  assert.deepEqual(metadata.get("b"), { type: "int64", value: 7 });
});

test.run();

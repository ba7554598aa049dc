/**
 * src/io/safetensors.ts. Byte vectors come from the reference's own tests (huggingface/safetensors,
 * tensor.rs: test_serialization, test_empty, test_serialization_forced_alignement) and from torch's files in
 * test/fixtures.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "uvu";
import fc from "fast-check";
import {
  parseSafetensors,
  serializeSafetensors,
  toFloat32,
  toInt32,
  type SafetensorsDtype,
  type TensorToWrite,
  type TensorView,
} from "../../../src/io/safetensors.js";
import { ArgumentError, DTypeError, FormatError, ShapeError } from "../../../src/runtime/errors.js";
import { BufferLike } from "../../support/buffer_like.js";
import { readGolden } from "../../support/golden.js";
import { ROOT } from "../../support/root.js";

const FIXTURES = new URL("test/fixtures/", ROOT);

/** A file from a header's text (or bytes) and a number of data bytes; the length is the header's unless given. */
function fileOf(header: string | Uint8Array, dataBytes = 0, n?: bigint): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + text.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, n ?? BigInt(text.length), true);
  file.set(text, 8);
  return file;
}

function one(fields: string, dataBytes: number): Uint8Array {
  return fileOf(`{"a":{${fields}}}`, dataBytes);
}

function view(dtype: SafetensorsDtype, bytes: Uint8Array): TensorView {
  return { name: "t", dtype, shape: [], bytes };
}

const F32_2 = '"dtype":"F32","shape":[2],"data_offsets":[0,8]';

const accepted: Record<string, [Uint8Array, string[]]> = {
  "no tensors": [fileOf("{}"), []],
  "trailing spaces": [fileOf("{}      "), []],
  "white space inside": [fileOf(`{ "a" :\n{"dtype" :\t"U8", "shape": [ 1 , 1 ] ,"data_offsets":[0, 1]\r} }`, 1), ["a"]],
  "fields in any order": [one('"data_offsets":[0,8],"shape":[2],"dtype":"F32"', 8), ["a"]],
  "rank 0": [one('"dtype":"F64","shape":[],"data_offsets":[0,8]', 8), ["a"]],
  "zero size": [one('"dtype":"F32","shape":[3,0,2],"data_offsets":[0,0]', 0), ["a"]],
  "zero sizes between others": [
    fileOf(
      '{"z":{"dtype":"U8","shape":[0],"data_offsets":[1,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},' +
        '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      2,
    ),
    ["a", "z", "b"],
  ],
  "a zero size at the offset of the tensor listed before it": [
    fileOf(
      '{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
      1,
    ),
    ["z", "b"],
  ],
  "sub-byte elements that fill bytes": [one('"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]', 3), ["a"]],
  "data order differs from the header's": [
    fileOf(
      '{"b":{"dtype":"I16","shape":[1],"data_offsets":[4,6]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
      6,
    ),
    ["a", "b"],
  ],
  "names of Object.prototype": [
    fileOf(
      '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},' +
        '"constructor":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},' +
        '"toString":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}',
      2,
    ),
    ["__proto__", "constructor", "toString"],
  ],
  "escapes and Unicode in names": [
    fileOf(String.raw`{"a\"\\\/\n\u00e9\ud83d\ude00é😀":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
    ['a"\\/\né😀é😀'],
  ],
  "an empty name": [fileOf('{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1), [""]],
  "metadata only": [fileOf('{"__metadata__":{}}'), []],
};

for (const [what, [file, names]] of Object.entries(accepted)) {
  test(`reads: ${what}`, () => assert.deepEqual([...parseSafetensors(file).tensors.keys()], names));
}

const U8_1 = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';
const refused: Record<string, [Uint8Array, RegExp]> = {
  "fewer than 8 bytes": [new Uint8Array(7), /7 bytes/],
  "header length beyond the limit": [fileOf("{}", 0, 100_000_001n), /100000001 bytes; at most 100000000/],
  "header length of 2^64 - 1": [fileOf("{}", 0, 0xffffffffffffffffn), /18446744073709551615 bytes; at most/],
  "header length of 2^32 + 2, 2 when narrowed": [fileOf("{}", 0, 0x100000002n), /4294967298 bytes; at most/],
  "header length beyond the file": [fileOf("{}", 0, 3n), /3 bytes, but only 2 follow/],
  "an empty header": [fileOf(""), /start with "\{"/],
  "invalid UTF-8": [fileOf(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d)), /UTF-8/],
  "UTF-8 of a surrogate": [fileOf(Uint8Array.of(0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x7d)), /UTF-8/],
  "a byte order mark": [fileOf("\ufeff{}"), /start with "\{"/],
  "a leading space": [fileOf(" {}"), /start with "\{"/],
  "a header that is an array": [fileOf("[]"), /start with "\{"/],
  "no closing brace": [fileOf("{"), /column 2: expected a string, got the end/],
  "a trailing line break": [fileOf("{}\n"), /expected nothing more/],
  "a second value": [fileOf("{}{}"), /expected nothing more/],
  "a trailing comma": [fileOf(`{"a":${U8_1},}`, 1), /expected a string/],
  "a comment": [fileOf("{/**/}"), /expected a string/],
  "a control character in a name": [fileOf(`{"a\tb":${U8_1}}`, 1), /control characters/],
  "an unknown escape": [fileOf(String.raw`{"\x":${U8_1}}`, 1), /escape/],
  "a lone surrogate": [fileOf(String.raw`{"\ud800":${U8_1}}`, 1), /lone surrogate/],
  "nesting instead of a tensor": [fileOf(`{"a":${"[".repeat(100_000)}`), /expected "\{", got "\["/],
  "a tensor twice": [fileOf(`{"a":${U8_1},"a":${U8_1}}`, 1), /key "a" occurs twice/],
  "a tensor twice, spelt differently": [fileOf(String.raw`{"a":${U8_1},"\u0061":${U8_1}}`, 1), /key "a" occurs twice/],
  "metadata twice": [fileOf('{"__metadata__":{},"__metadata__":{}}'), /"__metadata__" occurs twice/],
  "a metadata key twice": [fileOf('{"__metadata__":{"k":"1","k":"2"}}'), /key "k" of __metadata__ occurs twice/],
  "a metadata key __proto__ twice": [fileOf('{"__metadata__":{"__proto__":"1","__proto__":"2"}}'), /occurs twice/],
  "a field twice": [one(`${F32_2},"dtype":"F32"`, 8), /key "dtype" of tensor "a" occurs twice/],
  "metadata that is a number": [fileOf('{"__metadata__":{"k":1}}'), /expected a string, got "1"/],
  "metadata that is null": [fileOf('{"__metadata__":null}'), /expected "\{"/],
  "an unknown field": [one(`${F32_2},"x":1`, 8), /field "x"/],
  "no dtype": [one('"shape":[1],"data_offsets":[0,1]', 1), /"a" has no dtype/],
  "no shape": [one('"dtype":"U8","data_offsets":[0,1]', 1), /"a" has no shape/],
  "no data_offsets": [one('"dtype":"U8","shape":[1]', 1), /"a" has no data_offsets/],
  "a hexadecimal size": [one('"dtype":"U8","shape":[0x1],"data_offsets":[0,1]', 1), /expected "]", got "x"/],
  "an unknown dtype": [one('"dtype":"Q4_K","shape":[1],"data_offsets":[0,1]', 1), /tensor "a" has dtype "Q4_K"/],
  "a dtype of Object.prototype": [
    one('"dtype":"constructor","shape":[1],"data_offsets":[0,1]', 1),
    /dtype "constructor"/,
  ],
  "a dtype in lower case": [one('"dtype":"f32","shape":[2],"data_offsets":[0,8]', 8), /dtype "f32"/],
  "three offsets": [one('"dtype":"U8","shape":[1],"data_offsets":[0,1,1]', 1), /3 data_offsets/],
  "one offset": [one('"dtype":"U8","shape":[1],"data_offsets":[0]', 1), /1 data_offsets/],
  "a hole at the start": [
    one('"dtype":"U8","shape":[1],"data_offsets":[1,2]', 2),
    /begins at byte 1 of the data; expected 0/,
  ],
  "a hole between": [
    fileOf(`{"a":${U8_1},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3),
    /"b" begins at byte 2 of the data; expected 1/,
  ],
  "an overlap": [
    fileOf(`{"a":${U8_1},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
    /"b" begins at byte 0 of the data; expected 1/,
  ],
  "offsets in reverse": [one('"dtype":"U8","shape":[0],"data_offsets":[1,0]', 1), /end before they begin/],
  "a size beyond the shape's": [
    one('"dtype":"F32","shape":[2],"data_offsets":[0,12]', 12),
    /12 bytes; F32 of shape \[2\] takes 8/,
  ],
  "a size below the shape's": [
    one('"dtype":"F32","shape":[2,2],"data_offsets":[0,8]', 8),
    /8 bytes; F32 of shape \[2,2\] takes 16/,
  ],
  "a shape whose product overflows to 0": [
    one('"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]', 0),
    /overflows/,
  ],
  "elements that end within a byte": [
    one('"dtype":"F4","shape":[3],"data_offsets":[0,1]', 1),
    /12 bits; expected whole bytes/,
  ],
  "an end beyond the file": [one(F32_2, 7), /ends at byte 8 of the data, but there are only 7/],
  "bytes after the last tensor": [one(F32_2, 9), /end at byte 8 of the data, the file at 9/],
  "data without tensors": [fileOf("{}", 1), /end at byte 0 of the data, the file at 1/],
};
for (const number of [
  "1.0",
  "-0",
  "-1",
  "1e0",
  "+1",
  "01",
  "9007199254740992",
  "99999999999999999999",
  '"1"',
  "null",
  "",
]) {
  refused[`the size ${number || "(none)"}`] = [
    one(`"dtype":"U8","shape":[1,${number}],"data_offsets":[0,1]`, 1),
    /expected an integer/,
  ];
  refused[`the offset ${number || "(none)"}`] = [
    one(`"dtype":"U8","shape":[1],"data_offsets":[0,${number}]`, 1),
    /expected an integer/,
  ];
}

for (const [what, [file, message]] of Object.entries(refused)) {
  test(`refuses: ${what}`, () => {
    assert.throws(
      () => parseSafetensors(file, { name: "dir/x.safetensors" }),
      (error: unknown) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.match(error.message, message);
        assert.ok(error.message.startsWith("dir/x.safetensors: "), error.message);
        assert.ok(error.message.length < 500, "the message is short, whatever the file");
        return true;
      },
    );
  });
}

test("2^53 - 1 is the greatest integer read", () => {
  assert.throws(
    () => parseSafetensors(one('"dtype":"U8","shape":[9007199254740991],"data_offsets":[0,9007199254740991]', 0)),
    /overflows/,
  );
});

test("metadata has no prototype, and any key is safe", () => {
  const { metadata } = parseSafetensors(fileOf('{"__metadata__":{"__proto__":"x","format":"pt","toString":""}}'));
  assert.equal(Object.getPrototypeOf(metadata), null);
  assert.deepEqual(Object.entries(metadata), [
    ["__proto__", "x"],
    ["format", "pt"],
    ["toString", ""],
  ]);
});

test("tensors are views of the file, wherever it lies in its buffer", () => {
  const file = one('"dtype":"U8","shape":[3],"data_offsets":[0,3]', 3);
  const buffer = new Uint8Array(file.length + 9);
  buffer.set(file, 5);
  buffer.set([7, 8, 9], 5 + file.length - 3);
  const tensor = parseSafetensors(buffer.subarray(5, 5 + file.length)).tensors.get("a")!;
  assert.equal(tensor.bytes.buffer, buffer.buffer);
  assert.deepEqual([...tensor.bytes], [7, 8, 9]);
  assert.deepEqual(tensor.shape, [3]);
});

test("shared memory is read too", () => {
  const file = one('"dtype":"U8","shape":[1],"data_offsets":[0,1]', 1);
  // WebKitGTK has no SharedArrayBuffer by name, even in an isolated page.
  const shared = new Uint8Array(
    new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer,
    0,
    file.length,
  );
  shared.set(file);
  assert.equal(parseSafetensors(shared).tensors.size, 1);
});

test("hostile sizes take time by their length only: many tensors, dimensions, escapes, digits", () => {
  const entries = Array.from({ length: 200_000 }, (_, i) => `"${i}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`);
  const start = performance.now();
  assert.equal(parseSafetensors(fileOf(`{${entries.join(",")}}`)).tensors.size, 200_000);
  assert.throws(
    () => parseSafetensors(fileOf(`{"a":{"dtype":"U8","shape":[${"1,".repeat(1_000_000)}1],"data_offsets":[0,2]}}`, 2)),
    FormatError,
  );
  assert.throws(
    () => parseSafetensors(fileOf(`{"${"\\\\".repeat(2_000_000)}":${"1".repeat(2_000_000)}}`)),
    FormatError,
  );
  assert.throws(() => parseSafetensors(fileOf(`{"a":{"dtype":"U8","shape":[${"1".repeat(4_000_000)}]}}`)), FormatError);
  assert.ok(performance.now() - start < 10_000);
});

test("writes the bytes of the reference's test_serialization and forced_alignement", () => {
  const data = Float32Array.of(0, 1, 2, 3, 4, 5);
  const values = [0, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64, 0, 0, 160, 64];
  const ascii = (text: string): number[] => [...text].map((char) => char.charCodeAt(0));
  assert.deepEqual(
    [...serializeSafetensors([{ name: "attn.0", dtype: "F32", shape: [1, 2, 3], data }])],
    [64, 0, 0, 0, 0, 0, 0, 0, ...ascii('{"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}}'), ...values],
  );
  assert.deepEqual(
    [...serializeSafetensors([{ name: "attn0", dtype: "F32", shape: [1, 1, 2, 3], data }])],
    [
      72,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      ...ascii('{"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}}       '),
      ...values,
    ],
  );
});

test("writes the bytes of the reference's test_empty", () => {
  assert.deepEqual([...serializeSafetensors([])], [8, 0, 0, 0, 0, 0, 0, 0, 123, 125, 32, 32, 32, 32, 32, 32]);
  assert.deepEqual(
    [...serializeSafetensors([], { framework: "pt" })],
    [
      40, 0, 0, 0, 0, 0, 0, 0, 123, 34, 95, 95, 109, 101, 116, 97, 100, 97, 116, 97, 95, 95, 34, 58, 123, 34, 102, 114,
      97, 109, 101, 119, 111, 114, 107, 34, 58, 34, 112, 116, 34, 125, 125, 32, 32, 32, 32, 32,
    ],
  );
});

test("writes by descending alignment, then by name in UTF-8 order, whatever order came", () => {
  const tensors: TensorToWrite[] = [
    { name: "\u{1f600}", dtype: "F32", shape: [1], data: Float32Array.of(1) },
    { name: "\uffee", dtype: "F32", shape: [1], data: Float32Array.of(2) },
    { name: "a", dtype: "BF16", shape: [1], data: Float32Array.of(3) },
    { name: "b", dtype: "I64", shape: [1], data: new Uint8Array(8) },
    { name: "ab", dtype: "F32", shape: [1], data: Float32Array.of(4) },
    { name: "i", dtype: "I32", shape: [1], data: Int32Array.of(-1) },
    { name: "u", dtype: "U8", shape: [1], data: Uint8Array.of(9) },
  ];
  const file = serializeSafetensors(tensors, { b: "2", a: "1" });
  assert.deepEqual([...parseSafetensors(file).tensors.keys()], ["b", "ab", "\uffee", "\u{1f600}", "i", "a", "u"]);
  assert.deepEqual(serializeSafetensors([...tensors].reverse(), { a: "1", b: "2" }), file);
  assert.deepEqual([...toInt32(parseSafetensors(file).tensors.get("i")!)], [-1]);
});

const writerRefuses: Record<string, [object, typeof ArgumentError]> = {
  "the name __metadata__": [{ name: "__metadata__" }, ArgumentError],
  "a lone surrogate": [{ name: "\ud800" }, ArgumentError],
  "too little data": [{ data: Float32Array.of(1) }, ShapeError],
  "a negative size": [{ shape: [-2, -1] }, ShapeError],
  "a fractional size": [{ shape: [0.5, 4] }, ShapeError],
  "an overflowing shape": [{ shape: [2 ** 40, 2 ** 40] }, ShapeError],
  "an unknown dtype": [{ dtype: "toString" }, DTypeError],
  "floats for I32": [{ dtype: "I32" }, DTypeError],
  "ints for F32": [{ data: Int32Array.of(1, 2) }, DTypeError],
  doubles: [{ data: Float64Array.of(1, 2) }, DTypeError],
};
for (const [what, [change, errorClass]] of Object.entries(writerRefuses)) {
  test(`the writer refuses: ${what}`, () => {
    const tensor = { name: "a", dtype: "F32", shape: [2], data: Float32Array.of(1, 2), ...change } as TensorToWrite;
    assert.throws(() => serializeSafetensors([tensor]), errorClass);
  });
}

test("the writer refuses: one name twice, metadata that is not a string", () => {
  const tensor: TensorToWrite = { name: "a", dtype: "F32", shape: [], data: Float32Array.of(1) };
  assert.throws(() => serializeSafetensors([tensor, { ...tensor, dtype: "BF16" }]), ArgumentError);
  assert.throws(() => serializeSafetensors([], { a: 1 } as never), ArgumentError);
});

test("F16 to float32: every one of the 65536 values", () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const floats = toFloat32(view("F16", new Uint8Array(halves.buffer)));
  for (let i = 0; i < 65536; i++) {
    const sign = i & 0x8000 ? -1 : 1;
    const exponent = (i >> 10) & 31;
    const fraction = i & 1023;
    const expected =
      exponent === 31
        ? fraction
          ? NaN
          : sign * Infinity
        : sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
    assert.ok(Object.is(floats[i], expected), `0x${i.toString(16)}: ${floats[i]}, expected ${expected}`);
  }
});

test("F16: every value is restored, and what lies between two goes to the nearest, ties to even", () => {
  const bitsOf = (data: Float32Array): Uint16Array => {
    const file = serializeSafetensors([{ name: "a", dtype: "F16", shape: [data.length], data }]);
    return new Uint16Array(parseSafetensors(file).tensors.get("a")!.bytes.slice().buffer);
  };
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const floats = toFloat32(view("F16", new Uint8Array(halves.buffer)));
  const back = bitsOf(floats);
  for (let i = 0; i < 65536; i++) {
    const isSignalling = (i & 0x7fff) > 0x7c00 && (i & 0x200) === 0;
    assert.equal(back[i], isSignalling ? i | 0x200 : i);
  }
  // Above 65504 comes what would be 65536, were there room for it.
  const middles = Float32Array.from(
    { length: 0x7c00 },
    (_, i) => (floats[i]! + (i === 0x7bff ? 65536 : floats[i + 1]!)) / 2,
  );
  const above = bitsOf(new Float32Array(new Int32Array(middles.slice().buffer).map((bits) => bits + 1).buffer));
  const below = bitsOf(new Float32Array(new Int32Array(middles.slice().buffer).map((bits) => bits - 1).buffer));
  const at = bitsOf(middles);
  const negative = bitsOf(middles.map((x) => -x));
  for (let i = 0; i < 0x7c00; i++) {
    assert.deepEqual([below[i], above[i]], [i, i + 1]);
    assert.equal(at[i], i + (i & 1));
    assert.equal(negative[i], 0x8000 + i + (i & 1));
  }
  assert.deepEqual([...bitsOf(Float32Array.of(1e38, -Infinity, 1e-45, -1e-30))], [0x7c00, 0xfc00, 0, 0x8000]);
});

test("BF16: the upper half of a float32; reading and writing every value restores it", () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const floats = toFloat32(view("BF16", new Uint8Array(halves.buffer)));
  assert.deepEqual(
    [...new Uint32Array(floats.buffer)],
    Array.from({ length: 65536 }, (_, i) => i * 65536),
  );
  const file = serializeSafetensors([{ name: "a", dtype: "BF16", shape: [65536], data: floats }]);
  const written = parseSafetensors(file).tensors.get("a")!.bytes;
  const back = new Uint16Array(written.slice().buffer);
  for (let i = 0; i < 65536; i++) {
    const isSignalling = (i & 0x7fff) > 0x7f80 && (i & 0x40) === 0;
    assert.equal(back[i], isSignalling ? i | 0x40 : i);
  }
});

test("BF16 rounds to nearest, ties to even", () => {
  // [float32 bits, bfloat16 bits]
  const cases = [
    [0x3f800000, 0x3f80],
    [0x3f807fff, 0x3f80],
    [0x3f808000, 0x3f80],
    [0x3f808001, 0x3f81],
    [0x3f818000, 0x3f82],
    [0x3f817fff, 0x3f81],
    [0xbf808000, 0xbf80],
    [0xbf818000, 0xbf82],
    [0x7f7fffff, 0x7f80],
    [0xff7fffff, 0xff80],
    [0x00000001, 0x0000],
    [0x00008001, 0x0001],
    [0x80000001, 0x8000],
    [0x7f800000, 0x7f80],
    [0xff800000, 0xff80],
    [0x7f800001, 0x7fc0],
    [0xffffffff, 0xffff],
  ];
  const data = new Float32Array(Uint32Array.from(cases, ([bits]) => bits!).buffer);
  const bytes = parseSafetensors(
    serializeSafetensors([{ name: "a", dtype: "BF16", shape: [cases.length], data }]),
  ).tensors.get("a")!.bytes;
  assert.deepEqual(
    [...new Uint16Array(bytes.slice().buffer)],
    cases.map(([, bits]) => bits),
  );
});

test("conversions read data at any address, keep NaN payloads and refuse the rest by name", () => {
  const unaligned = (bytes: ArrayBuffer): Uint8Array => {
    const copy = new Uint8Array(bytes.byteLength + 1);
    copy.set(new Uint8Array(bytes), 1);
    return copy.subarray(1);
  };
  const bits = Uint32Array.of(0x7f800001, 0x80000000, 0xffc12345);
  assert.deepEqual([...new Uint32Array(toFloat32(view("F32", unaligned(bits.buffer))).buffer)], [...bits]);
  assert.deepEqual(
    [...toFloat32(view("F64", unaligned(Float64Array.of(0.1, -0, Infinity, 1 + 2 ** -24).buffer)))],
    [Math.fround(0.1), -0, Infinity, 1],
  );
  assert.throws(
    () => toFloat32(view("F64", new Uint8Array(Float64Array.of(1, 3.5e38).buffer))),
    (error: unknown) => error instanceof FormatError && error.message.includes("element 1 is 3.5e+38"),
  );
  assert.deepEqual([...toFloat32(view("F16", unaligned(Uint16Array.of(0x3c00).buffer)))], [1]);
  const inBuffer = BufferLike.of(0, 0x80, 0x3f).subarray(1);
  assert.deepEqual([...toFloat32(view("BF16", inBuffer))], [1]);
  assert.deepEqual([...toInt32(view("I32", unaligned(Int32Array.of(-5, 5).buffer)))], [-5, 5]);
  assert.deepEqual(
    [...toInt32(view("I64", unaligned(BigInt64Array.of(-5n, 0x7fffffffn, -0x80000000n).buffer)))],
    [-5, 0x7fffffff, -0x80000000],
  );
  assert.deepEqual([...toInt32(view("U8", Uint8Array.of(0, 255)))], [0, 255]);
  for (const value of [0x80000000n, -0x80000001n, 1n << 62n]) {
    assert.throws(
      () => toInt32(view("I64", unaligned(BigInt64Array.of(0n, value).buffer))),
      (error: unknown) => error instanceof FormatError && error.message.includes(`element 1 is ${value}`),
    );
  }
  for (const dtype of ["I32", "I64", "F8_E4M3", "BOOL", "C64", "F4"] as const) {
    assert.throws(
      () => toFloat32(view(dtype, new Uint8Array(8))),
      (error: unknown) => error instanceof FormatError && error.message.includes(dtype),
    );
  }
  for (const dtype of ["F32", "U64", "I8", "I16"] as const) {
    assert.throws(
      () => toInt32(view(dtype, new Uint8Array(8))),
      (error: unknown) => error instanceof FormatError && error.message.includes(dtype),
    );
  }
});

test("every fixture: the same tensors as the independent reader's", () => {
  const names = readdirSync(FIXTURES).filter((name) => name.endsWith(".safetensors"));
  assert.ok(names.length > 0);
  for (const file of names) {
    const golden = readGolden(file.replace(".safetensors", ""));
    const { metadata, tensors } = parseSafetensors(readFileSync(new URL(file, FIXTURES)), { name: file });
    assert.deepEqual({ ...metadata }, golden.metadata);
    assert.deepEqual([...tensors.keys()].sort(), [...golden.tensors.keys()].sort());
    for (const [name, { dtype, shape, data }] of golden.tensors) {
      const tensor = tensors.get(name)!;
      assert.equal(tensor.dtype, dtype);
      assert.deepEqual(tensor.shape, shape);
      if (data instanceof Float32Array) assert.deepEqual(toFloat32(tensor), data);
      else if (data instanceof Uint8Array) assert.deepEqual(Uint8Array.from(tensor.bytes), data);
      else if (dtype === "I64") assert.deepEqual([...toInt32(tensor)].map(BigInt), [...data]);
    }
  }
});

test("a file cut at any byte is refused", () => {
  const file = readFileSync(new URL("linear_22.safetensors", FIXTURES));
  parseSafetensors(file);
  for (let length = 0; length < file.length; length++) {
    assert.throws(() => parseSafetensors(file.subarray(0, length)), FormatError, `cut to ${length} bytes`);
  }
});

/** A value or a FormatError, nothing else. */
function readsOrRefuses(file: Uint8Array): void {
  try {
    for (const tensor of parseSafetensors(file).tensors.values()) assert.ok(tensor.bytes.length <= file.length);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
  }
}

test("fuzz: changed bytes of a small file", () => {
  const small = serializeSafetensors(
    [
      { name: "a.lora_A", dtype: "F32", shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) },
      { name: "b", dtype: "BF16", shape: [], data: Float32Array.of(1) },
    ],
    { format: "pt" },
  );
  for (let i = 0; i < small.length; i++) {
    for (let bit = 0; bit < 8; bit++) {
      const copy = small.slice();
      copy[i]! ^= 1 << bit;
      readsOrRefuses(copy);
    }
  }
  const interesting = fc.oneof(
    fc.nat(255),
    fc.constantFrom(...[...'{}[]",:\\0129eE+-. u\n'].map((char) => char.charCodeAt(0))),
  );
  const change = fc.tuple(fc.nat(small.length - 1), interesting);
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), (changes) => {
      const copy = small.slice();
      for (const [at, byte] of changes) copy[at] = byte;
      readsOrRefuses(copy);
    }),
    { numRuns: 20_000, interruptAfterTimeLimit: 4000, markInterruptAsFailure: false },
  );
});

test("fuzz: headers of random JSON and random text", () => {
  const header = fc.oneof(
    fc.json(),
    fc.string({ unit: "binary" }),
    fc
      .dictionary(
        fc.string(),
        fc.record({
          dtype: fc.constantFrom("U8", "F32", "F4", "x"),
          shape: fc.array(fc.nat(4)),
          data_offsets: fc.array(fc.nat(9), { maxLength: 3 }),
        }),
      )
      .map((value) => JSON.stringify(value)),
  );
  fc.assert(
    fc.property(header, fc.nat(16), (text, dataBytes) => readsOrRefuses(fileOf(text, dataBytes))),
    { numRuns: 5000, interruptAfterTimeLimit: 4000, markInterruptAsFailure: false },
  );
});

test("property: what is written is read; saving what was loaded gives the same bytes", () => {
  const widths: Partial<Record<SafetensorsDtype, number>> = {
    BOOL: 1,
    U8: 1,
    F8_E4M3: 1,
    I16: 2,
    F16: 2,
    BF16: 2,
    I32: 4,
    F32: 4,
    F64: 8,
    I64: 8,
  };
  const tensor = fc
    .tuple(
      fc.string({ unit: "grapheme" }).filter((name) => name !== "__metadata__"),
      fc.constantFrom(...(Object.keys(widths) as SafetensorsDtype[])),
      fc.array(fc.nat(4), { maxLength: 4 }),
      fc.nat(255),
    )
    .map(([name, dtype, shape, seed]): TensorToWrite => {
      const length = shape.reduce((a, b) => a * b, 1) * widths[dtype]!;
      return { name, dtype, shape, data: Uint8Array.from({ length }, (_, i) => (seed + 31 * i) & 255) };
    });
  const file = fc.uniqueArray(tensor, { maxLength: 8, selector: ({ name }) => name });
  const metadata = fc.option(fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" })), {
    nil: undefined,
  });
  fc.assert(
    fc.property(file, metadata, (tensors, extra) => {
      const bytes = serializeSafetensors(tensors, extra);
      const read = parseSafetensors(bytes);
      assert.deepEqual({ ...read.metadata }, { ...extra });
      assert.equal(read.tensors.size, tensors.length);
      for (const { name, dtype, shape, data } of tensors) {
        const back = read.tensors.get(name)!;
        assert.deepEqual([back.dtype, back.shape, back.bytes], [dtype, shape, data]);
      }
      const again = [...read.tensors.values()].map((back) => ({ ...back, data: back.bytes }));
      assert.deepEqual(serializeSafetensors(again, extra && read.metadata), bytes);
      assert.equal((bytes.length - tensors.reduce((sum, { data }) => sum + data.length, 0)) % 8, 0);
    }),
    { numRuns: 300, interruptAfterTimeLimit: 4000, markInterruptAsFailure: false },
  );
});

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));
const otherFiles: Record<string, [Uint8Array, RegExp]> = {
  "an empty file": [new Uint8Array(0), /it is empty/],
  "a git-lfs pointer": [
    ascii("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2200119864\n"),
    /git-lfs pointer.*git lfs pull/,
  ],
  "a web page": [ascii("<!doctype html><html><body>Sign in</body></html>"), /web page \(HTML\)/],
  "a server's error": [ascii('{"error":"Repository not found"}'), /it is text/],
  "a short text": [ascii("404"), /it is text/],
  "a zip archive": [Uint8Array.of(0x50, 0x4b, 3, 4, 20, 0, 0, 0, 8, 0), /zip archive.*torch\.save/],
  "a pickle": [Uint8Array.of(0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9), /pickle/],
  GGUF: [Uint8Array.of(0x47, 0x47, 0x55, 0x46, 3, 0, 0, 0, 1, 0, 0, 0), /GGUF/],
  gzip: [Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3), /gzip/],
};
for (const [name, [bytes, message]] of Object.entries(otherFiles)) {
  test(`refused, and named: ${name}`, () => {
    assert.throws(
      () => parseSafetensors(bytes, { name: "m.safetensors" }),
      (error: unknown) =>
        error instanceof FormatError && error.message.startsWith("m.safetensors: ") && message.test(error.message),
    );
  });
}
test("a header whose length has a pickle's first bytes is told by its own fault", () => {
  assert.throws(() => parseSafetensors(fileOf(`{}${" ".repeat(638)}`, 1)), /end at byte 0 of the data, the file at 1/);
});

test("arguments of another kind are refused by name", () => {
  const refusesArgument = (run: () => unknown, word: string): void =>
    assert.throws(
      run,
      (error: unknown) =>
        (error instanceof ArgumentError || error instanceof DTypeError) && error.message.includes(word),
    );
  for (const bytes of [null, undefined, "text", new ArrayBuffer(8), [1], new Float32Array(4)])
    refusesArgument(() => parseSafetensors(bytes as never), "bytes");
  for (const options of [null, 5, "m.safetensors", []])
    refusesArgument(() => parseSafetensors(fileOf("{}"), options as never), "options");
  refusesArgument(() => parseSafetensors(fileOf("{}"), { Name: "a" } as never), "Did you mean name?");
  for (const tensors of [null, undefined, 5, {}])
    refusesArgument(() => serializeSafetensors(tensors as never), "tensors must be a list");
  for (const one of [null, undefined, 5, {}, { name: "a", dtype: "F32", shape: 3, data: new Float32Array(3) }])
    refusesArgument(() => serializeSafetensors([one as never]), "a tensor is");
  for (const data of [null, undefined, [1], new Float64Array(1)])
    refusesArgument(() => serializeSafetensors([{ name: "a", dtype: "F32", shape: [1], data: data as never }]), '"a"');
  for (const metadata of [5, "pt", ["pt"]])
    refusesArgument(() => serializeSafetensors([], metadata as never), "metadata");
});

test.run();

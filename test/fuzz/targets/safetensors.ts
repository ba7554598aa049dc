/**
 * Safetensors files: what is taken must be taken by the reference as well, must come back the same when written and
 * read again, and its values must convert or be refused.
 */
import { io } from "../../../src/index.js";
import { damage, damageBytes, damageText, joined, textOf, treeOf } from "../json_tree.js";
import type { Random } from "../random.js";
import { referenceReads } from "../safetensors_reference.js";
import { Finding, must, type Target } from "../target.js";

const DTYPES = [
  "BOOL",
  "F4",
  "F6_E2M3",
  "F6_E3M2",
  "U8",
  "I8",
  "F8_E5M2",
  "F8_E4M3",
  "F8_E8M0",
  "F8_E4M3FNUZ",
  "F8_E5M2FNUZ",
  "I16",
  "U16",
  "F16",
  "BF16",
  "I32",
  "U32",
  "F32",
  "C64",
  "F64",
  "I64",
  "U64",
];
const BITS: Record<string, number> = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};
const WORDS = [
  ...DTYPES.map((dtype) => `"${dtype}"`),
  '"__metadata__"',
  '"dtype"',
  '"shape"',
  '"data_offsets"',
  "[0,0]",
  "[0,4]",
  "[4,4]",
  "[1]",
  "[2,2]",
  '{"F32":null}',
  '["U8",[0],[0,0]]',
  '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}',
  "[4294967296,4294967296,0]",
  "[0,9223372036854775808]",
];
const NAMES = [
  "w",
  "a.b",
  "é",
  "\ud83d\ude00",
  "__proto__",
  "constructor",
  "",
  " ",
  "\n",
  "0",
  "model.layers.0.weight",
];

interface Header {
  [name: string]: unknown;
}

/** A valid file's header, and how many bytes of data it wants. */
function valid(random: Random): { header: Header; bytes: number } {
  const header: Header = Object.create(null) as Header;
  if (random.once(2))
    header["__metadata__"] = Object.fromEntries(
      Array.from({ length: random.below(3) }, () => [random.pick(NAMES), random.pick(NAMES)]),
    );
  let at = 0;
  for (let i = random.below(5); i > 0; i--) {
    const dtype = random.pick(random.once(3) ? DTYPES : ["F32", "F16", "BF16", "F64", "I64", "I32", "U8"]);
    const shape = Array.from({ length: random.below(4) }, () => (random.once(8) ? 0 : random.integer(1, 4)));
    const bits = shape.reduce((n, size) => n * size, BITS[dtype] ?? 8);
    const end = at + Math.ceil(bits / 8);
    header[random.pick(NAMES) + (random.once(2) ? i : "")] = { dtype, shape, data_offsets: [at, end] };
    at = end;
  }
  return { header, bytes: at };
}

function generate(random: Random): Uint8Array {
  if (random.once(50)) return random.bytes(random.below(64));
  const { header, bytes } = valid(random);
  let text = textOf(damage(treeOf(header), random.few(4), random, WORDS));
  if (random.once(8)) text = damageText(text, random);
  if (random.once(8))
    text =
      random.pick(["", "", " ", "\n", "\ufeff"]) +
      text.replaceAll(",", random.pick([",", " ,", ",\t", ",\r\n"])) +
      random.pick([" ", "\n", "\0", "   "]);
  let encoded: Uint8Array = new TextEncoder().encode(text);
  encoded = joined(encoded, new Uint8Array(random.once(2) ? (8 - (encoded.length % 8)) % 8 : 0).fill(32));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(
    0,
    BigInt(encoded.length) + (random.once(20) ? BigInt(random.integer(-3, 3)) : 0n),
    true,
  );
  if (random.once(100)) length[random.below(8)] = random.below(256);
  const data = random.bytes(Math.min(100_000, bytes + (random.once(20) ? random.integer(0, 5) : 0)));
  const file = joined(length, encoded, data);
  return random.once(10) ? damageBytes(file, random.integer(1, 3), random) : file;
}

function run(file: Uint8Array): void {
  const reference = referenceReads(file);
  let read: io.SafetensorsFile;
  try {
    // At an odd address, as a view of a larger buffer may be.
    const moved = new Uint8Array(file.length + 3).subarray(3);
    moved.set(file);
    read = io.parseSafetensors(moved);
  } catch (error) {
    must(!reference.taken || reference.stricter.length > 0, () => `refused what the reference takes: ${String(error)}`);
    throw error;
  }
  if (!reference.taken) throw new Finding(`took what the reference refuses: ${reference.why}`);
  must(
    read.tensors.size === reference.tensors.size,
    () => `${read.tensors.size} tensors; the reference has ${reference.tensors.size}`,
  );
  for (const [name, tensor] of read.tensors) {
    const expected = reference.tensors.get(name);
    must(
      expected !== undefined &&
        tensor.dtype === expected.dtype &&
        tensor.shape.join() === expected.shape.join() &&
        same(tensor.bytes, expected.bytes),
      () => `tensor ${JSON.stringify(name)} is not what the reference reads`,
    );
    for (const convert of [io.toFloat32, io.toInt32]) {
      try {
        convert(tensor);
      } catch (error) {
        if ((error as Error).name !== "FormatError") throw error;
      }
    }
  }
  const again = io.parseSafetensors(
    io.serializeSafetensors(
      [...read.tensors.values()].map(({ bytes, ...t }) => ({ ...t, data: bytes })),
      read.metadata,
    ),
  );
  must(entries(again.metadata) === entries(read.metadata), () => "metadata changed in writing and reading");
  must(
    again.tensors.size === read.tensors.size &&
      [...again.tensors].every(([name, t]) => {
        const before = read.tensors.get(name);
        return (
          before !== undefined &&
          before.dtype === t.dtype &&
          before.shape.join() === t.shape.join() &&
          same(before.bytes, t.bytes)
        );
      }),
    () => "tensors changed in writing and reading",
  );
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function entries(metadata: Record<string, string>): string {
  return JSON.stringify(Object.entries(metadata).sort());
}

export const safetensors: Target<Uint8Array> = { name: "safetensors", inputs: 100_000, generate, run };

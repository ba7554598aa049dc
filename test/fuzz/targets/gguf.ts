/**
 * GGUF files: a header that is taken lies within its file, comes back the same when it is written and read again, and a
 * stream of it says the same; its config, its tokenizer and its model are made or refused, and give their memory back.
 */
import { data, init, io, memoryStats, models } from "../../../src/index.js";
import { openGguf } from "../../../src/io/gguf/files.js";
import { readStreamedGgufHeader } from "../../../src/io/gguf/header.js";
import { layOutGguf } from "../../../src/io/gguf/writer.js";
import { StreamReader } from "../../../src/io/streamed_file.js";
import { damageBytes, joined } from "../json_tree.js";
import type { Random } from "../random.js";
import { must, refusal, type Target } from "../target.js";

/** Of one file in so many lengths, whole blocks of 32 bytes, the stream is read too. */
const STREAMS = 32 * 4;
/** Of one header in so many lengths, whole blocks of 32 bytes, a tokenizer and a model are made. */
const MODELS = 32 * 8;
const PATH = "memory:fuzz.gguf";
/** Bytes of a value of each type; null: a text. */
const SIZES = [1, 1, 2, 2, 4, 4, 4, 1, null, 0, 8, 8, 8];
const [U32, F32, BOOL, TEXT, LIST] = [4, 6, 7, 8, 9] as const;

type Value = [type: number, value: number | bigint | string] | [type: 9, of: number, items: (number | string)[]];
interface Tensor {
  name: string;
  sizes: number[];
  type: number;
}

const ENCODER = new TextEncoder();
const WORD = new DataView(new ArrayBuffer(8));
function le(bytes: number, value: number | bigint): Uint8Array {
  WORD.setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true);
  return new Uint8Array(WORD.buffer.slice(0, bytes));
}
function float(value: number): Uint8Array {
  return new Uint8Array(Float32Array.of(value).buffer);
}
function text(value: string): Uint8Array {
  const bytes = ENCODER.encode(value);
  return joined(le(8, bytes.length), bytes);
}
function scalar(type: number, value: number | bigint | string): Uint8Array {
  if (type === TEXT) return text(String(value));
  if (type === F32) return float(Number(value));
  return le(SIZES[type] ?? 4, typeof value === "string" ? 0 : typeof value === "number" ? Math.trunc(value) : value);
}

const ARCHITECTURES = [
  "llama",
  "llama",
  "qwen2",
  "qwen3",
  "gemma",
  "gemma2",
  "gemma3",
  "phi3",
  "gpt2",
  "gptneox",
  "olmo2",
  "granite",
  "smollm3",
  "mamba",
];
const KEYS = [
  "context_length",
  "embedding_length",
  "block_count",
  "feed_forward_length",
  "attention.head_count",
  "attention.head_count_kv",
  "attention.key_length",
  "attention.value_length",
  "attention.layer_norm_rms_epsilon",
  "attention.layer_norm_epsilon",
  "rope.freq_base",
  "rope.dimension_count",
  "rope.scaling.type",
  "rope.scaling.factor",
  "rope.scaling.original_context_length",
  "attention.sliding_window",
  "attention.sliding_window_pattern",
  "attention.causal",
  "expert_count",
  "final_logit_softcapping",
];
const WORDS = [
  "",
  "llama",
  "gpt2",
  "default",
  "qwen2",
  "none",
  "yarn",
  "linear",
  "longrope",
  "a b",
  "é",
  "▁",
  "<s>",
  "\u0000",
  "{{ x }}",
];
const NUMBERS = [0, 1, 2, 3, 4, 8, 16, 255, 65536, 0x7fffffff, 0xffffffff, -1, 2 ** 31, 2 ** 53, -(2 ** 31)];

/** The metadata and the tensors of a small model. */
function valid(random: Random): { values: [string, Value][]; tensors: Tensor[] } {
  const architecture = random.pick(ARCHITECTURES);
  const tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab"];
  const of = (key: string): string => `${architecture}.${key}`;
  const isBpe = random.once(2);
  const values: [string, Value][] = [
    ["general.architecture", [TEXT, architecture]],
    [of("context_length"), [U32, 16]],
    [of("embedding_length"), [U32, 8]],
    [of("block_count"), [U32, 1]],
    [of("feed_forward_length"), [U32, 8]],
    [of("attention.head_count"), [U32, 2]],
    [of("attention.head_count_kv"), [U32, random.integer(1, 2)]],
    [of("attention.layer_norm_rms_epsilon"), [F32, 1e-5]],
    [of("attention.layer_norm_epsilon"), [F32, 1e-5]],
    [of("rope.dimension_count"), [U32, 4]],
    ["tokenizer.ggml.model", [TEXT, isBpe ? "gpt2" : "llama"]],
    ["tokenizer.ggml.pre", [TEXT, random.pick(["default", "qwen2", "llama-bpe", "bloom"])]],
    ["tokenizer.ggml.tokens", [LIST, TEXT, tokens]],
    ["tokenizer.ggml.token_type", [LIST, 5, [2, 3, 3, 1, 1, 1, 1, random.integer(1, 6)]]],
    ["tokenizer.ggml.scores", [LIST, F32, tokens.map((_, i) => -i)]],
    ["tokenizer.ggml.merges", [LIST, TEXT, ["a b"]]],
    ["tokenizer.ggml.bos_token_id", [U32, 1]],
    ["tokenizer.ggml.eos_token_id", [U32, 2]],
    ["tokenizer.ggml.add_bos_token", [BOOL, 1]],
    ["tokenizer.chat_template", [TEXT, "{{ messages[0].content }}"]],
  ];
  const type = random.pick([0, 0, 1, 30, 8]);
  const matrix = (name: string, rows: number): Tensor => ({ name: `blk.0.${name}.weight`, sizes: [8, rows], type });
  const norm = (name: string): Tensor => ({ name: `${name}.weight`, sizes: [8], type: 0 });
  const tensors = [
    { name: "token_embd.weight", sizes: [8, 8], type },
    norm("blk.0.attn_norm"),
    ...["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"].map((name) => matrix(name, 8)),
    norm("blk.0.ffn_norm"),
    norm("output_norm"),
    ...(random.once(8) ? [{ name: "rope_freqs.weight", sizes: [2], type: 0 }] : []),
  ];
  return { values, tensors };
}

function damaged(value: Value, random: Random): Value {
  const type = random.below(14);
  switch (random.below(4)) {
    case 0:
      return [TEXT, random.pick(WORDS)];
    case 1:
      return [
        LIST,
        random.pick([0, U32, F32, BOOL, TEXT, LIST]),
        Array.from({ length: random.below(4) }, () => random.pick(NUMBERS)),
      ];
    case 2:
      return value[0] === LIST
        ? [LIST, value[1] as number, (value[2] as number[]).slice(random.below(2), random.below(9))]
        : [value[0], random.pick(NUMBERS)];
    default:
      return [type === LIST ? U32 : type, random.pick(NUMBERS)];
  }
}

const LENGTHS: Readonly<Record<number, readonly [values: number, bytes: number]>> = {
  0: [1, 4],
  1: [1, 2],
  8: [32, 34],
  28: [1, 8],
  30: [1, 2],
};

function generate(random: Random): Uint8Array {
  if (random.once(50)) return random.bytes(random.below(64));
  const { values, tensors } = valid(random);
  for (let n = random.few(4); n > 0; n--) {
    const at = random.below(values.length);
    const architecture = String(values[0]![1][1]);
    switch (random.below(4)) {
      case 0:
        values.splice(at, 1);
        break;
      case 1:
        values.push([`${architecture}.${random.pick(KEYS)}`, damaged([U32, 0], random)]);
        break;
      default:
        values[at] = [values[at]![0], damaged(values[at]![1], random)];
    }
    if (values.length === 0) break;
  }
  for (let n = random.few(3); n > 0 && tensors.length > 0; n--) {
    const at = random.below(tensors.length);
    const tensor = tensors[at]!;
    switch (random.below(4)) {
      case 0:
        tensors.splice(at, 1);
        break;
      case 1:
        tensor.sizes = Array.from({ length: random.below(5) }, () => random.pick([0, 1, 2, 8, 16, 2 ** 30, 2 ** 40]));
        break;
      case 2:
        tensor.type = random.pick([0, 1, 2, 8, 12, 28, 30, 99]);
        break;
      default:
        tensors.push({ ...tensor, name: random.pick([tensor.name, "x", `${tensor.name}.y`, "blk.1.attn_q.weight"]) });
    }
  }
  const parts: Uint8Array[] = [new TextEncoder().encode("GGUF"), le(4, random.once(30) ? random.below(5) : 3)];
  parts.push(le(8, tensors.length + (random.once(40) ? random.integer(-1, 2) : 0)), le(8, values.length));
  for (const [key, value] of values) {
    parts.push(text(key), le(4, value[0]));
    if (value[0] !== LIST) parts.push(scalar(value[0], value[1] as number));
    else {
      const [, of, items] = value as [9, number, (number | string)[]];
      parts.push(le(4, of), le(8, items.length), ...items.map((item) => scalar(of, item)));
    }
  }
  let offset = 0;
  for (const { name, sizes, type } of tensors) {
    parts.push(text(name), le(4, sizes.length), ...sizes.map((size) => le(8, size)), le(4, type), le(8, offset));
    const [count, bytes] = LENGTHS[type] ?? [1, 4];
    offset += Math.ceil(sizes.reduce((a, b) => a * b, 1 / count) * bytes);
    offset += -offset & 31;
    if (offset > 1e6) break;
  }
  const header = joined(...parts);
  const file = joined(header, new Uint8Array(-header.length & 31), new Uint8Array(Math.min(offset, 20_000)));
  return random.once(3) ? damageBytes(file, random.integer(1, 3), random) : file;
}

async function* piecesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 1021) yield bytes.subarray(at, at + 1021);
}

function attempt(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    refusal(error);
    return undefined;
  }
}

async function run(file: Uint8Array): Promise<string | undefined> {
  io.memoryFiles.set(PATH, file);
  let streamed: Awaited<ReturnType<typeof readStreamedGgufHeader>> | string | undefined;
  try {
    if (file.length % STREAMS === 0)
      streamed = await readStreamedGgufHeader(PATH, file.length, new StreamReader(piecesOf(file)));
  } catch (error) {
    streamed = (error as Error).message;
  }
  let index: ReturnType<typeof openGguf>;
  try {
    index = openGguf(PATH);
  } catch (error) {
    const { message } = error as Error;
    must(
      streamed === undefined || (typeof streamed === "string" ? streamed === message : /split/.test(message)),
      () => `the file was refused with ${message}, the stream ${JSON.stringify(streamed)}`,
    );
    throw error;
  }
  must(typeof streamed !== "string", () => `the file was taken, and its stream refused: ${String(streamed)}`);
  const all = [...index.tensors.values()];
  for (const { name, begin, length } of all)
    must(begin + length <= file.length, () => `tensor ${JSON.stringify(name)} ends behind the file`);
  const metadata = new Map([...index.metadata].filter(([key]) => key !== "general.alignment"));
  const { header, size } = layOutGguf(metadata, all);
  const written = new Uint8Array(size);
  written.set(header);
  io.memoryFiles.set(PATH, written);
  const again = openGguf(PATH);
  must(
    said([...again.metadata]) === said([...metadata]) &&
      said([...again.tensors.values()].map(({ begin: _, ...t }) => t)) === said(all.map(({ begin: _, ...t }) => t)),
    () => "the header changed in writing and reading",
  );
  // What takes a hundred times as long is tried of some.
  if (header.length % MODELS !== 0) return undefined;
  io.memoryFiles.set(PATH, file);
  attempt(() => data.loadTokenizer(PATH).encode("ab a\n"));
  const before = memoryStats().liveBytes;
  attempt(() => models.loadModel(PATH).model.dispose());
  must(memoryStats().liveBytes === before, () => "loading kept memory");
  return undefined;
}

function said(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) =>
    typeof item === "bigint" || (typeof item === "number" && !Number.isFinite(item)) ? String(item) : item,
  );
}

export const gguf: Target<Uint8Array> = {
  name: "gguf",
  inputs: 20_000,
  prepare: async () => {
    await init();
  },
  generate,
  run,
};

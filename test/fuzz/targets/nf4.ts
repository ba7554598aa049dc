/**
 * Checkpoints in bitsandbytes' NF4: a weight's codes with the parts beside them, whole or in shards, in any order of
 * the data, from files and from streams. What is as it should be is taken; what is taken has the values that a slow
 * reading of the same bytes gives, to the bit; the stream says what the file says.
 */
import { models, noGrad, scope, tensor, type nn } from "../../../src/index.js";
import { damage, damageBytes, damageText, joined, textOf, treeOf } from "../json_tree.js";
import type { Random } from "../random.js";
import { referenceReads, type ReferenceTensor } from "../safetensors_reference.js";
import { must, refusal, type Files, type Target } from "../target.js";
import { encode, FOLDER, withFiles } from "../weights.js";

const STATE = ".quant_state.bitsandbytes__nf4";
const PARTS = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", STATE];
const SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const BLOCK = 64;
const NESTED = 256;
/** Source: bitsandbytes, functional.py (get_4bit_type). */
const TABLE = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/** A tensor of a file. */
interface Stored {
  name: string;
  dtype: string;
  shape: number[];
  data: Uint8Array;
  /** Bytes that the header says, where the file has fewer. */
  claimed?: number;
}

interface Input {
  files: Files;
  /** Whether it must be taken: nothing is damaged, and nothing asked that there may be no matrix for. */
  valid: boolean;
  quantize: "q8_0" | "nf4" | null;
  /** Bytes in a part of the stream; 0: it is read as a file only. */
  piece: number;
  /** Whether the stream says its length. */
  sized: boolean;
}

const floats = (values: ArrayLike<number>): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
/** As many, of which few are drawn: that of all of them takes longer than their run. */
function many(length: number, random: Random): Uint8Array {
  const drawn = random.bytes(32);
  return new Uint8Array(length).map((_, i) => drawn[i & 31]! ^ ((i >> 5) * 29));
}
/** About as large as weights are, in bfloat16. */
function halves(size: number, random: Random): Uint8Array {
  const bytes = many(2 * size, random);
  for (let i = 1; i < bytes.length; i += 2) bytes[i] = (bytes[i]! & 0x81) | 0x3c;
  return bytes;
}

/** A matrix's codes and what lies beside them. */
function quantised(name: string, shape: [number, number], random: Random): Stored[] {
  const size = shape[0] * shape[1];
  const blocks = size / BLOCK;
  const state: Record<string, unknown> = { quant_type: "nf4", blocksize: BLOCK, dtype: "bfloat16", shape };
  const stored: Stored[] = [
    { name, dtype: "U8", shape: [size / 2, 1], data: many(size / 2, random) },
    { name: `${name}.quant_map`, dtype: "F32", shape: [16], data: floats(TABLE) },
  ];
  if (random.once(2)) {
    const scales = Math.ceil(blocks / NESTED);
    Object.assign(state, { nested_blocksize: NESTED, nested_dtype: "float32", nested_offset: random.uniform() / 16 });
    const map = Float32Array.from({ length: 256 }, (_, i) => (i - 127.3) / 128);
    stored.push(
      { name: `${name}.absmax`, dtype: "U8", shape: [blocks], data: many(blocks, random) },
      {
        name: `${name}.nested_absmax`,
        dtype: "F32",
        shape: [scales],
        data: floats(Array.from({ length: scales }, () => random.uniform() / 32)),
      },
      { name: `${name}.nested_quant_map`, dtype: "F32", shape: [256], data: floats(map) },
    );
  } else
    stored.push({
      name: `${name}.absmax`,
      dtype: "F32",
      shape: [blocks],
      data: floats(Array.from({ length: blocks }, () => random.uniform() / 16)),
    });
  const json = encode(JSON.stringify(state));
  stored.push({ name: `${name}${STATE}`, dtype: "U8", shape: [json.length], data: json });
  return stored;
}

/** A Llama of one layer: its config.json and its tensors. */
function valid(random: Random): { config: object; tensors: Stored[] } {
  const tied = random.once(2);
  // The larger has more blocks in a matrix than share a nested scale.
  const width = random.once(8) ? 320 : 64;
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: 8,
    hidden_size: 64,
    intermediate_size: width,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 8,
    rms_norm_eps: 0.01,
    tie_word_embeddings: tied,
    quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" },
  };
  const plain = (name: string, ...shape: number[]): Stored => ({
    name,
    dtype: "BF16",
    shape,
    data: halves(
      shape.reduce((a, b) => a * b, 1),
      random,
    ),
  });
  const matrix = (name: string, rows: number, columns: number, odds: number): Stored[] =>
    random.once(odds) ? [plain(name, rows, columns)] : quantised(name, [rows, columns], random);
  const layer = "model.layers.0";
  const table = matrix("model.embed_tokens.weight", 8, 64, random.once(4) ? 4 : 1);
  const tensors = [
    ...table,
    ...matrix(`${layer}.self_attn.q_proj.weight`, 64, 64, 5),
    ...matrix(`${layer}.self_attn.k_proj.weight`, 32, 64, 5),
    ...matrix(`${layer}.self_attn.v_proj.weight`, 32, 64, 5),
    ...matrix(`${layer}.self_attn.o_proj.weight`, 64, 64, 5),
    ...matrix(`${layer}.mlp.gate_proj.weight`, width, 64, 5),
    ...matrix(`${layer}.mlp.up_proj.weight`, width, 64, 5),
    ...matrix(`${layer}.mlp.down_proj.weight`, 64, width, 5),
    plain(`${layer}.input_layernorm.weight`, 64),
    plain(`${layer}.post_attention_layernorm.weight`, 64),
    plain("model.norm.weight", 64),
  ];
  if (!tied) tensors.push(...matrix("lm_head.weight", 8, 64, 2));
  // Both stored, with one's codes.
  else if (random.once(4))
    tensors.push(
      ...table.map((t) => ({
        ...t,
        name: t.name.replace("model.embed_tokens", "lm_head"),
        data: t.name.endsWith(".absmax") && random.once(2) ? random.bytes(t.data.length) : t.data,
      })),
    );
  return { config, tensors };
}

const VALUES = [NaN, Infinity, -Infinity, 3e38, 1e-45, -0, 0, -1];
const DTYPES = ["U8", "I8", "F32", "BF16", "F16", "F64", "I64", "BOOL", "F8_E4M3", "X"];
const BYTES: Readonly<Record<string, number>> = { F32: 4, BF16: 2, F16: 2, F64: 8, I64: 8 };
const WORDS = [
  '"nf4"',
  '"fp4"',
  '"quant_type"',
  '"blocksize"',
  '"shape"',
  '"nested_blocksize"',
  '"nested_offset"',
  '"nested_quant_type"',
  "64",
  "64.0",
  "128",
  "256",
  "4096",
  "[64,64]",
  "[32,64]",
  "[64,32]",
  "[4096]",
  "1e39",
  "1e-46",
  "0.05",
];
const NAMES = ["", ...PARTS, ".quant_state.bitsandbytes__fp4", "__proto__", "constructor", "model.norm.weight"];

function damaged(list: Stored[], random: Random): void {
  const at = random.below(list.length);
  const one = list[at]!;
  const { name, dtype, shape, data } = one;
  const cut = (bytes: Uint8Array): Stored => ({ ...one, shape: [bytes.length / (BYTES[dtype] ?? 1)], data: bytes });
  const unit = BYTES[dtype] ?? 1;
  switch (random.below(13)) {
    case 0:
      list.splice(at, 1);
      break;
    case 1:
    case 2: {
      const base = PARTS.reduce((all, part) => (all.endsWith(part) ? all.slice(0, -part.length) : all), name);
      const other = random.pick([
        `${base}${random.pick(NAMES)}`,
        `${name}${random.pick(NAMES)}`,
        random.pick(NAMES),
        random.pick(list).name,
        name.replace(/^model\./, ""),
        damageText(name, random),
      ]);
      if (random.once(2)) list[at] = { ...one, name: other };
      else list.push({ ...one, name: other });
      break;
    }
    case 3: {
      const n = unit * random.pick([0, 1, 2, 16, 64, data.length / unit - 1, data.length / unit / 2]);
      list[at] = cut(data.slice(0, n - (n % unit)));
      break;
    }
    case 4:
      list[at] = cut(joined(data, new Uint8Array(unit * random.pick([1, 2, 64, 4096, data.length / unit]))));
      break;
    case 5: {
      const other = random.pick(DTYPES);
      if (data.length % (BYTES[other] ?? 1) === 0)
        list[at] = { ...one, dtype: other, shape: [data.length / (BYTES[other] ?? 1)] };
      break;
    }
    case 6: {
      const n = shape.reduce((a, b) => a * b, 1);
      list[at] = { ...one, shape: random.pick([[n], [n, 1], [1, n], [1, 1, n], [n / 64, 64], [...shape].reverse()]) };
      break;
    }
    case 7:
      if (dtype === "F32" && data.length > 0 && data.length % 4 === 0) {
        const values = new Float32Array(new Uint8Array(data).buffer);
        values[random.below(values.length)] = random.pick(VALUES);
        list[at] = { ...one, data: floats(values) };
      }
      break;
    case 8: {
      const other = random.pick(list);
      [one.data, other.data] = [other.data, one.data];
      break;
    }
    case 9:
      one.claimed = unit * random.pick([data.length + 1, 2 ** 20, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 49]);
      one.shape = [one.claimed / unit];
      // Behind the others' data.
      list.push(...list.splice(at, 1));
      break;
    default: {
      const states = list.filter((t) => t.name.endsWith(STATE));
      if (states.length === 0) break;
      const state = random.pick(states);
      let json: unknown;
      try {
        json = JSON.parse(new TextDecoder().decode(state.data));
      } catch {
        json = {};
      }
      let text = textOf(damage(treeOf(json), random.integer(1, 3), random, WORDS));
      if (random.once(8)) text = damageText(text, random);
      if (random.once(20)) text += " ".repeat(5000);
      const bytes = random.once(10) ? damageBytes(encode(text), 1, random) : encode(text);
      Object.assign(state, { data: bytes, shape: [bytes.length] });
    }
  }
}

/** A file of these tensors, their data in this order. */
function fileOf(tensors: readonly Stored[]): Uint8Array {
  let at = 0;
  const header = tensors.map(({ name, dtype, shape, data, claimed = data.length }): [string, object] => [
    name,
    { dtype, shape, data_offsets: [at, (at += claimed)] },
  ]);
  // A name may be there twice, as in no object.
  const text = header.map(([name, info]) => `${JSON.stringify(name)}:${JSON.stringify(info)}`).join(",");
  const json = encode(`{${text}}`);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true);
  return joined(length, json, ...tensors.map(({ data }) => data));
}

function shuffled<T>(list: readonly T[], random: Random): T[] {
  const left = [...list];
  return list.map(() => left.splice(random.below(left.length), 1)[0]!);
}

function generate(random: Random): Input {
  const { config, tensors } = valid(random);
  const list = shuffled(tensors, random);
  const damages = random.few(4);
  for (let i = 0; i < damages && list.length > 0; i++) damaged(list, random);
  const isOdd = random.once(30);
  const text = JSON.stringify(config);
  const files: Files = {
    "config.json": encode(isOdd ? textOf(damage(treeOf(config), 1, random, ["64", "128", "63", "320"])) : text),
  };
  const isBroken = random.once(20);
  const file = (some: readonly Stored[]): Uint8Array => {
    const bytes = fileOf(some);
    return isBroken ? damageBytes(bytes, random.integer(1, 3), random) : bytes;
  };
  if (random.once(2)) files["model.safetensors"] = file(list);
  else {
    const at = random.below(list.length + 1);
    const names = list.map(({ name }, i) => [name, SHARDS[i < at ? 0 : 1]]);
    files[SHARDS[0]!] = file(list.slice(0, at));
    files[SHARDS[1]!] = file(list.slice(at));
    files["model.safetensors.index.json"] = encode(JSON.stringify({ weight_map: Object.fromEntries(names) }));
    // An index is of the files that it names.
    if (at === 0) delete files[SHARDS[0]!];
    if (at === list.length) delete files[SHARDS[1]!];
  }
  const quantize = random.once(8) ? random.pick(["q8_0", "nf4"] as const) : null;
  return {
    files,
    valid: damages === 0 && !isOdd && !isBroken && quantize === null,
    quantize,
    piece: random.once(3) ? random.pick([1021, 4099, 65536]) : 0,
    sized: random.once(2),
  };
}

/** What a weight of a file stands for: bitsandbytes' dequantize_4bit in float32, a value at a time. */
function valuesOf(name: string, tensors: ReadonlyMap<string, ReferenceTensor>): Float32Array | undefined {
  const { dtype, bytes } = tensors.get(name)!;
  if (dtype === "BF16")
    return new Float32Array(
      Uint32Array.from({ length: bytes.length / 2 }, (_, i) => (bytes[2 * i]! | (bytes[2 * i + 1]! << 8)) << 16).buffer,
    );
  // How other types are read is another target's.
  if (dtype !== "U8") return undefined;
  const part = (end: string): Uint8Array => tensors.get(name + end)?.bytes ?? new Uint8Array(0);
  const list = (end: string): Float32Array => new Float32Array(new Uint8Array(part(end)).buffer);
  const state = JSON.parse(new TextDecoder().decode(part(STATE))) as Record<string, number>;
  const isNested = tensors.has(`${name}.nested_absmax`);
  const [absmax, codes, scales, levels] = [
    isNested ? new Float32Array(0) : list(".absmax"),
    part(".absmax"),
    isNested ? list(".nested_absmax") : absent,
    isNested ? list(".nested_quant_map") : absent,
  ];
  must(list(".quant_map").join() === TABLE.join(), () => `${name} was taken with another table`);
  must(state["quant_type"] === ("nf4" as unknown) && state["blocksize"] === BLOCK, () => `${name} was taken as NF4`);
  const values = new Float32Array(2 * bytes.length);
  for (let i = 0; i < values.length; i++) {
    const block = Math.floor(i / BLOCK);
    const scale = isNested
      ? Math.fround(levels[codes[block]!]! * scales[Math.floor(block / NESTED)]!) + Math.fround(state["nested_offset"]!)
      : absmax[block]!;
    const byte = bytes[i >> 1]!;
    values[i] = TABLE[i % 2 === 0 ? byte >> 4 : byte & 15]! * Math.fround(scale);
  }
  return values;
}
const absent = new Float32Array(0);

/** Every parameter has the file's values; and the model computes. */
function check({ model, config }: models.AnyLoadedModel, input: Input): void {
  const { files, quantize } = input;
  const tensors = new Map<string, ReferenceTensor>();
  for (const [file, bytes] of Object.entries(files)) {
    if (!file.endsWith(".safetensors")) continue;
    const read = referenceReads(bytes);
    must(read.taken, () => `${file} was taken, which the reference refuses`);
    for (const [name, one] of read.tensors) tensors.set(name, one);
  }
  for (const [key, p] of (model as nn.Module).namedParameters()) {
    const name = [key, key.replace(/^model\./, ""), "lm_head.weight"].find((one) => tensors.has(one))!;
    const expected = valuesOf(name, tensors);
    const isNf4 = tensors.get(name)!.dtype === "U8";
    must(!isNf4 || p.dtype === "nf4", () => `${key} is NF4 in the file, and ${p.dtype} in memory`);
    if (expected === undefined || (quantize !== null && !isNf4 && p.rank === 2)) continue;
    const values = p.toFloat32();
    must(values.length === expected.length, () => `${key} has ${values.length} values; expected ${expected.length}`);
    const at = values.findIndex((value, i) => !Object.is(value, expected[i]));
    must(at < 0, () => `${key}[${at}] is ${values[at]}; expected ${expected[at]}`);
  }
  const [table, head] = ["model.embed_tokens.weight", "lm_head.weight"];
  if (config.tieWordEmbeddings && tensors.has(table) && tensors.has(head))
    must(
      valuesOf(table, tensors)?.join() === valuesOf(head, tensors)?.join(),
      () => "table and head were taken as one, and are not",
    );
  const logits = noGrad(() => scope(() => model.forward(tensor(Int32Array.of(0), [1, 1])).size));
  must(logits === config.vocabSize, () => `${logits} logits`);
}

/** What `openModel` takes for a file, in parts of a given length. */
function fileLike(name: string, bytes: Uint8Array, { piece, sized }: Input): File {
  const slice = (from: number): object => ({
    stream: () => {
      let at = from;
      return new ReadableStream<Uint8Array>({
        pull(controller) {
          if (at >= bytes.length) return controller.close();
          controller.enqueue(bytes.slice(at, at + piece));
          at += piece;
        },
      });
    },
  });
  return { name, size: sized || name.endsWith(".json") ? bytes.length : null, slice } as unknown as File;
}

async function attempt<T>(work: () => T | Promise<T>): Promise<T | { refused: string; message: string }> {
  try {
    return await work();
  } catch (error) {
    return { refused: refusal(error), message: (error as Error).message };
  }
}

async function run(input: Input): Promise<string | undefined> {
  const { files, valid, piece } = input;
  const options = input.quantize === null ? {} : { quantize: input.quantize };
  return withFiles(files, async () => {
    const verdicts: (string | undefined)[] = [];
    for (const isStream of piece > 0 ? [false, true] : [false]) {
      const loaded = await attempt(() =>
        isStream
          ? models.openModel(
              Object.entries(files).map(([name, bytes]) => fileLike(name, bytes, input)),
              options,
            )
          : models.loadModel(FOLDER, options),
      );
      if ("refused" in loaded) {
        must(!valid, () => `what is as it should be was refused: ${loaded.message}`);
        must(!loaded.message.includes("\n"), () => `an error of several lines: ${JSON.stringify(loaded.message)}`);
        verdicts.push(loaded.refused);
        continue;
      }
      try {
        check(loaded, input);
      } finally {
        (loaded.model as nn.Module).dispose();
      }
      verdicts.push(undefined);
    }
    must(
      verdicts.length < 2 || (verdicts[0] === undefined) === (verdicts[1] === undefined),
      () => `the file was ${verdicts[0] ?? "taken"}, its stream ${verdicts[1] ?? "taken"}`,
    );
    return verdicts[0];
  });
}

export const nf4: Target<Input> = {
  // Each of two loads reads through a buffer of 4 MB, and compares through another.
  allowance: 32e6,
  name: "nf4",
  inputs: 1000,
  generate,
  run,
};

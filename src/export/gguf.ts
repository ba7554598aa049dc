/**
 * LoRA adapters in GGUF, as llama.cpp and all that is made of it read them (node-llama-cpp, wllama, Ollama):
 *
 *   general.architecture  the base's          adapter.lora.alpha  one alpha; scaling = alpha / rank, of each tensor
 *   general.type          "adapter"           <tensor>.lora_a     A [rank, in]
 *   adapter.type          "lora"              <tensor>.lora_b     B [out, rank], its rows in the order of the tensor's
 *
 * Source: ggml-org/llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp.
 */
import { serializeGguf, type GgufTensorToWrite } from "../io/gguf/writer.js";
import type { GgufValue } from "../io/gguf/types.js";
import { readGgufHeader } from "../io/gguf/header.js";
import { ggufArchitecture, ggufName, ggufRowOrder } from "../models/gguf_names.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import type { FloatType } from "../tensor/dtype.js";
import { headsOfConfig } from "./base.js";
import { float32, text, uint32 } from "./gguf_metadata.js";
import { atScaling, mostFrequent } from "./scaling.js";
import type { Update } from "./source.js";
import type { Task, Written } from "./target.js";
import { fromBytes, toBytes } from "./values.js";

/** llama.cpp's numbers of what most of a file is stored in (llama_ftype). */
export const FILE_TYPES = { float32: 0, float16: 1, q8_0: 7, bfloat16: 32 } as const;
/** Of ggml's ways to quantise. */
export const QUANTIZATION_VERSION = 2;

export const GGUF_ADAPTER_FILE = "adapter.gguf";

export function writeGgufAdapter({ where, updates, dtype, base }: Task): Written {
  const { modelType, tieWordEmbeddings } = base!;
  const architecture = ggufArchitecture(modelType);
  if (architecture === undefined)
    throw new ArgumentError(`${where}: the base is a ${modelType}, which has no architecture in GGUF here.`);
  const heads = headsOfConfig(base!);
  const names = updates.map(({ path }) => {
    const name = ggufName(architecture, `${path}.weight`);
    if (name === undefined)
      throw new ArgumentError(`${where}: the adapter is on ${path}, which has no name in GGUF's ${architecture}.`);
    if (name === "output.weight" && tieWordEmbeddings)
      throw new ArgumentError(
        `${where}: the adapter is on ${path}, and the base's head is its embedding table, which GGUF has once; merge ` +
          `it into the base instead (wasm-lora merge --to gguf).`,
      );
    return name;
  });
  // llama.cpp divides one alpha by each tensor's own rank.
  const alpha = mostFrequent(updates.map(({ scaling, rank }) => Math.fround(scaling * rank)));
  const orders = updates.map(({ outputs }, i) => ggufRowOrder(architecture, names[i]!, outputs, heads));
  let folded = 0;
  const tensors = updates.flatMap((update, i): GgufTensorToWrite[] => {
    const isOwn = Math.fround(update.scaling * update.rank) !== alpha;
    if (isOwn) folded++;
    const { a, b, rank, inputs, outputs } = isOwn ? atScaling(update, alpha / update.rank) : update;
    const order = orders[i];
    return [
      { name: `${names[i]}.lora_a`, dtype, shape: [rank, inputs], bytes: toBytes(a, dtype) },
      {
        name: `${names[i]}.lora_b`,
        dtype,
        shape: [outputs, rank],
        bytes: toBytes(order ? inOrder(b, rank, order) : b, dtype),
      },
    ];
  });
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", text(architecture)],
    ["general.type", text("adapter")],
    ["adapter.type", text("lora")],
    ["adapter.lora.alpha", float32(alpha)],
    ["general.file_type", uint32(FILE_TYPES[dtype])],
    ["general.quantization_version", uint32(QUANTIZATION_VERSION)],
  ]);
  const bytes = serializeGguf(metadata, tensors);
  return {
    files: new Map([[GGUF_ADAPTER_FILE, bytes]]),
    readBack: () => readGgufAdapter(bytes, updates, names, orders),
    folded,
    notes: [],
  };
}

/** Row i is row order[i] of values [rows, columns]. */
export function inOrder(values: Float32Array, columns: number, order: Int32Array): Float32Array {
  const out = new Float32Array(values.length);
  for (const [i, from] of order.entries()) out.set(values.subarray(from * columns, (from + 1) * columns), i * columns);
  return out;
}

/** As llama.cpp computes with it: scaling = alpha / rank, in float32. */
function readGgufAdapter(
  bytes: Uint8Array,
  sources: readonly Update[],
  names: readonly string[],
  orders: readonly (Int32Array | null)[],
): Update[] {
  const file = {
    path: GGUF_ADAPTER_FILE,
    size: bytes.length,
    read: (at: number, into: Uint8Array) => into.set(bytes.subarray(at, at + into.length)),
    close: () => {},
  };
  const { metadata, tensors } = readGgufHeader(file);
  const alpha = metadata.get("adapter.lora.alpha")!.value as number;
  const valuesOf = (name: string): { shape: readonly number[]; values: Float32Array } => {
    const tensor = tensors.get(name);
    if (!tensor) throw new StateError(`${GGUF_ADAPTER_FILE}: ${name} was written and is not there.`);
    const { begin, length, shape, dtype } = tensor;
    return { shape, values: fromBytes(bytes.slice(begin, begin + length), dtype as FloatType) };
  };
  return sources.map(({ path }, i) => {
    const a = valuesOf(`${names[i]}.lora_a`);
    const b = valuesOf(`${names[i]}.lora_b`);
    const [rank, inputs] = a.shape as [number, number];
    const outputs = b.shape[0]!;
    const order = orders[i];
    const back = order ? new Float32Array(b.values.length) : b.values;
    for (const [row, to] of (order ?? []).entries())
      back.set(b.values.subarray(row * rank, (row + 1) * rank), to * rank);
    return { path, rank, inputs, outputs, a: a.values, b: back, scaling: Math.fround(alpha / rank) };
  });
}

/** Safetensors files of models and adapters, as lists of tensors that can be damaged before they are written. */
import { io, type nn } from "../../src/index.js";
import { damageBytes, damageText } from "./json_tree.js";
import type { Random } from "./random.js";
import type { Files } from "./target.js";

export type Weight = io.TensorToWrite;

/** The folder whose files are in `io.memoryFiles` while an input runs. */
export const FOLDER = "memory:fuzz";

export function weightsOf(module: nn.Module): Weight[] {
  return [...module.stateDict()].map(([name, { shape, data }]) => ({ name, dtype: "F32", shape, data: data.slice() }));
}

const VALUES = [NaN, Infinity, -Infinity, 3e38, 1e-45, -0];

/** The tensors with `times` of them lost, doubled, renamed, reshaped, of another type, or holding what is no number. */
export function damageWeights(
  weights: readonly Weight[],
  times: number,
  random: Random,
  extra: readonly string[] = [],
): Weight[] {
  const list = [...weights];
  for (let i = 0; i < times && list.length > 0; i++) {
    const at = random.below(list.length);
    const { name, shape, data } = list[at]!;
    switch (random.below(8)) {
      case 0:
        list.splice(at, 1);
        break;
      case 1:
        list.push({
          ...list[at]!,
          name: extra.length > 0 && random.once(2) ? random.pick(extra) : damageText(name, random),
        });
        break;
      case 2:
        list[at] = { ...list[at]!, name: random.once(2) ? random.pick(list).name : damageText(name, random) };
        break;
      case 3:
        list[at] = zeros(
          name,
          shape.map((size) => Math.max(0, size + random.integer(-1, 1))),
        );
        break;
      case 4:
        list[at] = zeros(name, random.once(2) ? [...shape, 1] : shape.slice(1));
        break;
      case 5:
        list[at] = { ...list[at]!, shape: [...shape].reverse() };
        break;
      case 6:
        list[at] = {
          name,
          shape,
          dtype: random.pick(["BF16", "F16", "F64", "I64", "U8", "BOOL"] as const),
          data: random.bytes(0),
        };
        break;
      default: {
        const changed = (data as Float32Array).slice();
        if (changed instanceof Float32Array && changed.length > 0)
          changed[random.below(changed.length)] = random.pick(VALUES);
        list[at] = { ...list[at]!, data: changed };
      }
    }
  }
  const seen = new Set<string>();
  return list
    .filter(({ name }) => !seen.has(name) && !/\p{Surrogate}/u.test(name) && name !== "__metadata__" && seen.add(name))
    .map((weight) => fitted(weight, random));
}

function zeros(name: string, shape: readonly number[]): Weight {
  return { name, dtype: "F32", shape, data: new Float32Array(shape.reduce((n, size) => n * size, 1)) };
}

const BYTES: Record<string, number> = { BF16: 2, F16: 2, F64: 8, I64: 8, U8: 1, BOOL: 1, F32: 4 };

/** Raw bytes where the type is not float32, and there are not as many as it takes. */
function fitted(weight: Weight, random: Random): Weight {
  if (weight.dtype === "F32") return weight;
  const bytes = BYTES[weight.dtype]! * weight.shape.reduce((n, size) => n * size, 1);
  return weight.data.byteLength === bytes ? weight : { ...weight, data: random.bytes(bytes) };
}

/** The file, now and then with damaged bytes. */
export function fileOf(
  weights: readonly Weight[],
  random: Random,
  metadata: Record<string, string> = { format: "pt" },
): Uint8Array {
  const bytes = io.serializeSafetensors(weights, metadata);
  return random.once(12) ? damageBytes(bytes, random.integer(1, 3), random) : bytes;
}

export const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Runs with these files in the folder, and takes them all away again. */
export async function withFiles<T>(files: Files, run: () => T | Promise<T>): Promise<T> {
  for (const [name, bytes] of Object.entries(files)) io.memoryFiles.set(`${FOLDER}/${name}`, bytes);
  try {
    return await run();
  } finally {
    for (const key of [...io.memoryFiles.keys()]) if (key.startsWith(`${FOLDER}/`)) io.memoryFiles.delete(key);
  }
}

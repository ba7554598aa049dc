/**
 * loralib's factors as PEFT's: other shapes, the same weights. Entries are placed, never computed with.
 *
 *   Linear, Embedding    the same factors under other names
 *   MergedLinear         A (r g, in), B (out / n g, r), g of n blocks enabled: dW of block j is B_j A_j
 *                        -> A' = A, B' (out, r g) with B_j at block j's rows and columns j r ... (j + 1) r, else 0;
 *                        r' = r g, alpha' = alpha g
 *   Conv2d, kernel K     A (r K, in K), B (out K, r K), dW = (B A) viewed as (out, in, K, K)
 *                        -> A' = K copies of A on a diagonal, viewed as (r K^2, in, K, K), B' (out, r K^2, 1, 1) with
 *                        B's rows p, p + K, ... as columns p r K ... (p + 1) r K; r' = r K^2, alpha' = alpha K^2
 *
 * In all of them alpha' / r' = alpha / r. A grouped Conv2d has no such form: PEFT's A mixes the groups, loralib's does
 * not. Source: microsoft/LoRA, loralib/layers.py (merge_AB, zero_pad, ConvLoRA.forward); huggingface/peft 0.20,
 * src/peft/tuners/lora/layer.py (get_delta_weight).
 */
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import { checkOptions, type Options } from "../../runtime/options.js";
import type { StateEntry } from "../../runtime/state_entry.js";
import { show } from "../json.js";
import type { LoraConfig } from "../peft/config.js";
import { biasKey, factorKeys, baseKey, type NamedPeftTensor } from "../peft/keys.js";
import { escapePattern } from "../peft/regexp/pattern.js";
import { checkLoralib, loralibFactor, type LoralibState } from "./state.js";

/** Factors with the rank and alpha that go with them, which need not be loralib's: loraAlpha / r is. */
export interface PeftFactors {
  loraA: StateEntry;
  loraB: StateEntry;
  r: number;
  loraAlpha: number;
}

/** What `loralibToPeft` makes, for `writePeftAdapter`. */
export interface ConvertedAdapter {
  /** What the checkpoint and its layers tell; say the base's name besides. */
  config: Options<LoraConfig>;
  /** Factors and biases by PEFT's keys. */
  tensors: NamedPeftTensor[];
}

/** What a loralib layer was made with; its checkpoint does not tell. */
export type LoralibLayer = {
  /** loralib's rank. */
  r: number;
  /** loralib's alpha. */
  loraAlpha: number;
} & (
  | {
      /** loralib's class. */
      kind: "Linear";
      /** Whether the weight is stored [in, out]. Default false. */
      fanInFanOut?: boolean | undefined;
    }
  | {
      /** loralib's class. */
      kind: "Embedding";
    }
  | {
      /** loralib's class. */
      kind: "MergedLinear";
      /** Which of the equal blocks of outputs have factors. */
      enableLora: readonly boolean[];
      /** Number of outputs, all blocks together. */
      outFeatures: number;
      /** Whether the weight is stored [in, out]. Default false. */
      fanInFanOut?: boolean | undefined;
    }
  | {
      /** loralib's class. */
      kind: "Conv2d";
      /** Of the square kernel. */
      kernelSize: number;
      /** Default 1; others cannot be converted. */
      groups?: number | undefined;
    }
);

/** A description of one kind, for the functions of that kind. */
export type LayerOf<Kind> = Omit<Extract<LoralibLayer, { kind: Kind }>, "kind">;

/** What describes a layer of each kind. */
const FIELDS = {
  Linear: ["r", "loraAlpha"],
  Embedding: ["r", "loraAlpha"],
  MergedLinear: ["r", "loraAlpha", "enableLora", "outFeatures"],
  Conv2d: ["r", "loraAlpha", "kernelSize", "groups"],
} as const;

/**
 * A loralib checkpoint as a PEFT adapter, for writePeftAdapter.
 *
 * The first layer's rank and alpha are the config's; others stand in rankPattern and alphaPattern, by the module's
 * whole path. A bias of a layer becomes `<module>.base_layer.bias`; its alias `<module>.conv.bias`, which newer
 * loralib adds to a convolution's, is left out.
 *
 * @param layers every module that has factors in `state`, by its path
 * @throws ArgumentError if layers and state do not fit, a layer cannot be converted exactly, or layers differ in
 * fanInFanOut, of which a PEFT adapter has one; ShapeError
 *
 * @example
 * class Model extends nn.Module {
 *   cAttn = new lora.MergedLinear(8, 24, { r: 2, loraAlpha: 4, enableLora: [true, false, true] });
 * }
 * const { config, tensors } = peft.loralibToPeft(lora.loraStateDict(new Model()), {
 *   c_attn: { kind: "MergedLinear", r: 2, loraAlpha: 4, enableLora: [true, false, true], outFeatures: 24 },
 * });
 * peft.writePeftAdapter("adapter", { ...config, baseModelNameOrPath: "gpt2" }, tensors);
 */
export function loralibToPeft(state: LoralibState, layers: Readonly<Record<string, LoralibLayer>>): ConvertedAdapter {
  const fail = (message: string): never => {
    throw new ArgumentError(`loralibToPeft: ${message}.`);
  };
  checkLoralib(state, fail);
  if (typeof (layers as unknown) !== "object" || layers === null)
    fail(`layers is ${show(layers)}; expected an object of { kind, r, loraAlpha, ... } by module`);
  const described = new Map(Object.entries(layers));
  for (const [module, layer] of described) {
    const kind = (layer as LoralibLayer | null)?.kind;
    if (kind !== undefined && Object.hasOwn(FIELDS, kind))
      checkOptions(`loralibToPeft: ${show(module)}`, layer, ["kind", "fanInFanOut", ...FIELDS[kind]]);
    else fail(`${show(module)}: kind is ${show(kind)}; expected "Linear", "Embedding", "MergedLinear" or "Conv2d"`);
  }
  const tensors: NamedPeftTensor[] = [];
  const config = commonConfig(described, fail);
  const rankPattern: Record<string, number> = {};
  const alphaPattern: Record<string, number> = {};
  for (const [module, layer] of described) {
    const loraA = state.get(`${module}.lora_A`);
    const loraB = state.get(`${module}.lora_B`);
    if (!loraA || !loraB)
      return fail(`layers describes ${show(module)}, but the state has no ${show(`${module}.lora_A`)}`);
    const factors = toPeft(`loralibToPeft: ${show(module)}`, layer, loraA, loraB);
    config.r ??= factors.r;
    config.loraAlpha ??= factors.loraAlpha;
    const pattern = `^${escapePattern(module)}`;
    if (factors.r !== config.r) rankPattern[pattern] = factors.r;
    if (factors.loraAlpha !== config.loraAlpha) alphaPattern[pattern] = factors.loraAlpha;
    const [keyA, keyB] = factorKeys(module, layer.kind === "Embedding" ? "embedding" : "linear");
    tensors.push({ name: keyA, ...factors.loraA }, { name: keyB, ...factors.loraB });
  }
  const biases = biasesToPeft(state, described, fail);
  return {
    config: { ...config, rankPattern, alphaPattern, bias: biases.bias },
    tensors: [...tensors, ...biases.tensors],
  };
}

type Layers = ReadonlyMap<string, LoralibLayer>;
type Fail = (message: string) => never;

function commonConfig(layers: Layers, fail: Fail): Options<LoraConfig> {
  if (layers.size === 0) fail("layers is empty; expected the modules that have factors");
  if (layers.has("")) fail('layers describes the model itself, ""; a PEFT adapter needs the path of a module in it');
  const layouts = new Set(
    [...layers.values()].flatMap((layer) =>
      layer.kind === "Linear" || layer.kind === "MergedLinear" ? [layer.fanInFanOut ?? false] : [],
    ),
  );
  if (layouts.size > 1) fail("layers differ in fanInFanOut; a PEFT adapter has one for all");
  return { targetModules: [...layers.keys()], fanInFanOut: layouts.has(true) };
}

function toPeft(where: string, layer: LoralibLayer, loraA: StateEntry, loraB: StateEntry): PeftFactors {
  switch (layer.kind) {
    case "Linear":
    case "Embedding":
      return linearToPeft(where, loraA, loraB, layer);
    case "MergedLinear":
      return mergedLinearToPeft(where, loraA, loraB, layer);
    case "Conv2d":
      return conv2dToPeft(where, loraA, loraB, layer);
  }
}

function biasesToPeft(
  state: LoralibState,
  layers: Layers,
  fail: Fail,
): { bias: LoraConfig["bias"]; tensors: NamedPeftTensor[] } {
  const tensors: NamedPeftTensor[] = [];
  let bias: LoraConfig["bias"] = "none";
  for (const [key, { shape, data }] of state) {
    const factor = loralibFactor(key);
    if (factor) {
      if (!layers.has(factor.module))
        fail(`the state has ${show(key)}, but layers does not describe ${show(factor.module)}`);
      continue;
    }
    const module = key.endsWith(".bias") ? key.slice(0, -".bias".length) : "";
    if (module.endsWith(".conv") && layers.get(module.slice(0, -".conv".length))?.kind === "Conv2d") continue;
    if (!layers.has(module)) bias = "all";
    else if (bias === "none") bias = "lora_only";
    tensors.push({
      name: layers.has(module) ? biasKey(module, true) : baseKey(key),
      shape,
      data: data.slice(),
    });
  }
  return { bias, tensors };
}

/** The factors of Linear and of Embedding are PEFT's as they are: A [r, in], B [out, r]. */
export function linearToPeft(
  where: string,
  loraA: StateEntry,
  loraB: StateEntry,
  { r, loraAlpha }: LayerOf<"Linear" | "Embedding">,
): PeftFactors {
  checkScale(where, r, loraAlpha);
  checkShape(where, "loraA", loraA, [r, null]);
  checkShape(where, "loraB", loraB, [null, r]);
  return { loraA: copy(loraA), loraB: copy(loraB), r, loraAlpha };
}

/** MergedLinear's factors as those of one PEFT layer over the whole weight: A [r g, in], B [outFeatures, r g]. */
export function mergedLinearToPeft(
  where: string,
  loraA: StateEntry,
  loraB: StateEntry,
  { r, loraAlpha, enableLora, outFeatures }: LayerOf<"MergedLinear">,
): PeftFactors {
  checkScale(where, r, loraAlpha);
  checkCount(where, "outFeatures", outFeatures);
  if (!Array.isArray(enableLora) || !enableLora.every((on) => typeof on === "boolean") || !enableLora.includes(true)) {
    throw new ArgumentError(
      `${where}: enableLora is ${show(enableLora)}; expected a list of true and false with at least one true.`,
    );
  }
  const rows = outFeatures / enableLora.length;
  if (!Number.isInteger(rows)) {
    throw new ArgumentError(
      `${where}: outFeatures is ${outFeatures}; expected a multiple of ${enableLora.length}, the length of enableLora.`,
    );
  }
  const enabled = enableLora.flatMap((on, block) => (on ? [block] : []));
  const columns = r * enabled.length;
  checkShape(where, "loraA", loraA, [columns, null]);
  checkShape(where, "loraB", loraB, [rows * enabled.length, r]);
  const b = new Float32Array(outFeatures * columns);
  for (const [j, block] of enabled.entries()) {
    for (let i = 0; i < rows; i++) {
      const from = (j * rows + i) * r;
      b.set(loraB.data.subarray(from, from + r), (block * rows + i) * columns + j * r);
    }
  }
  return {
    loraA: copy(loraA),
    loraB: { shape: [outFeatures, columns], data: b },
    r: columns,
    loraAlpha: loraAlpha * enabled.length,
  };
}

/**
 * Conv2d's factors as the kernels of PEFT's two convolutions: A [r K^2, in, K, K], B [out, r K^2, 1, 1]. With a
 * dilation or a padding mode it is the merged weights that agree: before merging, PEFT gives neither to its first one.
 */
export function conv2dToPeft(
  where: string,
  loraA: StateEntry,
  loraB: StateEntry,
  { r, loraAlpha, kernelSize: k, groups = 1 }: LayerOf<"Conv2d">,
): PeftFactors {
  checkScale(where, r, loraAlpha);
  checkCount(where, "kernelSize", k);
  if (groups !== 1)
    throw new ArgumentError(
      `${where}: groups is ${groups}; only 1 can be converted exactly: PEFT's lora_A mixes the groups, loralib's ` +
        `does not.`,
    );
  const rows = r * k;
  checkShape(where, "loraA", loraA, [rows, null], k);
  checkShape(where, "loraB", loraB, [null, rows], k);
  const columns = loraA.shape[1]!;
  const rank = rows * k;
  const a = new Float32Array(rank * columns * k);
  for (let p = 0; p < k; p++) {
    for (let t = 0; t < rows; t++) {
      a.set(loraA.data.subarray(t * columns, (t + 1) * columns), ((p * rows + t) * k + p) * columns);
    }
  }
  // An output channel's K rows of B stand one after another, which is its row of B'.
  return {
    loraA: { shape: [rank, columns / k, k, k], data: a },
    loraB: { shape: [loraB.shape[0]! / k, rank, 1, 1], data: loraB.data.slice() },
    r: rank,
    loraAlpha: loraAlpha * k * k,
  };
}

function checkCount(where: string, argument: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new ArgumentError(`${where}: ${argument} is ${show(value)}; expected a positive integer.`);
}

function checkScale(where: string, r: number, loraAlpha: number): void {
  checkCount(where, "r", r);
  if (typeof loraAlpha !== "number" || !Number.isFinite(Math.fround(loraAlpha)))
    throw new ArgumentError(`${where}: loraAlpha is ${show(loraAlpha)}; expected a number that is finite in float32.`);
}

/** Two dimensions as expected, where null is any positive multiple of `multiple`; and the data of such a shape. */
function checkShape(
  where: string,
  argument: string,
  tensor: StateEntry,
  expected: readonly (number | null)[],
  multiple = 1,
): void {
  const { shape, data } = (tensor ?? {}) as Partial<StateEntry>;
  if (!Array.isArray(shape) || !(data instanceof Float32Array))
    throw new ArgumentError(`${where}: ${argument} must be { shape, data } with the values in a Float32Array.`);
  const fits =
    shape.length === 2 &&
    shape.every((size, i) => size > 0 && (expected[i] === null ? size % multiple === 0 : size === expected[i]));
  if (!fits) {
    const any = multiple === 1 ? "any" : `a multiple of ${multiple}`;
    throw new ShapeError(
      `${where}: ${argument} has shape ${show(shape)}; expected [${expected.map((size) => size ?? any).join(", ")}].`,
    );
  }
  if (data.length !== shape[0]! * shape[1]!)
    throw new ShapeError(
      `${where}: ${argument} has ${data.length} values; shape ${show(shape)} takes ${shape[0]! * shape[1]!}.`,
    );
}

function copy({ shape, data }: StateEntry): StateEntry {
  return { shape, data: data.slice() };
}

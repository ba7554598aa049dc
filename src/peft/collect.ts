/**
 * An adapter as plain data outside linear memory, in no format's words: what the writers of folders begin with.
 *
 * An adapter whose init took s B0 A0 out of the base weight here (pissa, olora) is given as the difference from
 * the base as it was: s (B A - B0 A0) = s [B, -B0] [A; A0], a plain LoRA of twice the rank.
 */
import type { LoraConfig } from "../io/peft/config.js";
import type { LayerKind } from "../io/peft/keys.js";
import { Matching } from "../io/peft/match.js";
import { lastName } from "../io/peft/paths.js";
import type { Parameter } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import type { StateEntry } from "../runtime/state_entry.js";
import { floatsOf } from "../tensor/tensor.js";
import type { Adapters } from "./adapters.js";
import type { Adapter, LoraLayer } from "./layer.js";
import { inputEmbeddings, outputEmbeddings, places } from "./places.js";

/** One layer's part of an adapter: y += scaling B A x, and DoRA's magnitude, if it has one. */
export interface CollectedPart {
  path: string;
  kind: LayerKind;
  loraA: StateEntry;
  loraB: StateEntry;
  /** loraB's own; one value for each output. */
  loraBias: Float32Array | null;
  scaling: number;
  /** One value for each output. */
  magnitude: Float32Array | null;
  /** The base weight that it is for, where that belongs to the adapter. */
  base: StateEntry | null;
}

/** A parameter of the base that was trained whole. */
export interface CollectedParameter {
  /** Of its module. */
  path: string;
  name: string;
  value: StateEntry;
}

export interface CollectedAdapter {
  config: LoraConfig;
  parts: CollectedPart[];
  /** Parameters of modulesToSave. */
  copies: CollectedParameter[];
  /** Rows of tables that were trained. */
  tokens: { path: string; rows: StateEntry }[];
  biases: CollectedParameter[];
}

/** @throws ArgumentError if there is no such adapter */
export function collect(
  adapters: Adapters,
  adapterName: string,
  saveEmbeddingLayers: boolean | "auto" = "auto",
): CollectedAdapter {
  const config = adapters.config(adapterName);
  const layers = adapters
    .layers(adapterName)
    .map(({ path, layer }) => ({ path, layer, adapter: layer.adapters.get(adapterName)! }));
  const isConverted = layers.some(({ adapter }) => adapter.initial?.factors);
  const adapted = layers.map(({ path }) => path);
  const isTargeted = saveEmbeddingLayers === "auto" ? targetsEmbeddings(adapters, config) : saveEmbeddingLayers;
  const ends = [inputEmbeddings(adapters.model), outputEmbeddings(adapters.model)];
  // What the folder of an adapter said of a table is written again, whatever its config says.
  const isSaved = (layer: LoraLayer, { initial }: Adapter): boolean =>
    ends.includes(layer)
      ? isTargeted || initial?.factors === null
      : layer.kind === "embedding" && initial?.factors === null;
  return {
    config: isConverted ? doubled(config) : config,
    parts: layers.map(({ path, layer, adapter }) => ({
      path,
      kind: layer.kind,
      ...(isConverted ? difference(adapter) : { loraA: entry(adapter.loraA), loraB: entry(adapter.loraB) }),
      loraBias: adapter.loraBias?.data.slice() ?? null,
      scaling: adapter.scaling,
      magnitude: adapter.magnitude?.data.slice() ?? null,
      base: isSaved(layer, adapter) ? baseOf(layer, adapter) : null,
    })),
    copies: adapters
      .copies(adapterName)
      .flatMap(({ path, module }) =>
        [...module.namedParameters()].map(([name, p]) => ({ path, name, value: entry(p) })),
      ),
    tokens: adapters.tokens(adapterName).map(({ path, rows }) => ({ path, rows: entry(rows) })),
    biases: [...adapters.biases(config, adapted)].map(([path, p]) => ({ path, name: "bias", value: entry(p) })),
  };
}

/** What embedding tables and heads are called that PEFT saves with an adapter on them. */
const EMBEDDING_LAYER_NAMES = ["embed_tokens", "lm_head"];

/** PEFT's save_embedding_layers = "auto": whether targetModules name one of these. */
function targetsEmbeddings({ model }: Adapters, config: LoraConfig): boolean {
  const { targetModules, trainableTokenIndices } = config;
  if (trainableTokenIndices !== null || targetModules === null) return false;
  if (typeof targetModules !== "string") return EMBEDDING_LAYER_NAMES.some((name) => targetModules.includes(name));
  const matching = new Matching({ ...config, excludeModules: null, modulesToSave: null }, (message) => {
    throw new ArgumentError(`savePretrained: ${message}.`);
  });
  return [...places(model)].some(
    ({ path }) => EMBEDDING_LAYER_NAMES.includes(lastName(path)) && matching.targets(path, false, false),
  );
}

/** The base weight that an adapter's part is for: before an init that the adapter is the difference from. */
function baseOf(layer: LoraLayer, { initial }: Adapter): StateEntry {
  const { weight } = layer;
  return { shape: weight.shape, data: initial?.factors ? floatsOf(initial.weight) : layer.unmergedData(weight) };
}

function entry(p: Parameter): StateEntry {
  return { shape: p.shape, data: p.toFloat32() };
}

/** [A; A0] and [B, -B0]; zeros for A0 and B0 in a layer whose weight was not changed. */
function difference({ loraA, loraB, r, initial }: Adapter): { loraA: StateEntry; loraB: StateEntry } {
  const rows = new Float32Array(2 * loraA.size);
  rows.set(loraA.data);
  const factors = initial?.factors;
  if (factors) rows.set(factors.loraA, loraA.size);
  const outputs = loraB.shape[0]!;
  const columns = new Float32Array(2 * loraB.size);
  for (let i = 0; i < outputs; i++) {
    columns.set(loraB.data.subarray(i * r, (i + 1) * r), i * 2 * r);
    if (factors)
      columns.set(
        factors.loraB.subarray(i * r, (i + 1) * r).map((b) => -b),
        (i * 2 + 1) * r,
      );
  }
  return {
    loraA: { shape: [2 * r, ...loraA.shape.slice(1)], data: rows },
    loraB: { shape: [outputs, 2 * r], data: columns },
  };
}

/** Twice the rank at the same scaling: alpha / r or alpha / sqrt(r). */
function doubled(config: LoraConfig): LoraConfig {
  const factor = config.useRslora ? Math.SQRT2 : 2;
  const times = (pattern: Readonly<Record<string, number>>, by: number): Record<string, number> =>
    Object.fromEntries(Object.entries(pattern).map(([key, value]) => [key, value * by]));
  return {
    ...config,
    r: 2 * config.r,
    loraAlpha: config.loraAlpha * factor,
    initLoraWeights: true,
    rankPattern: times(config.rankPattern, 2),
    alphaPattern: times(config.alphaPattern, factor),
  };
}

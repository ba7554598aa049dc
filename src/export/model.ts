/**
 * Whole models, with an adapter merged into them or as they are: as a folder of safetensors, or as one GGUF file. A
 * weight at a time is widened, merged and written: all of them may be more than memory holds.
 */
import { configPath } from "../io/gguf/files.js";
import type { GgmlType, GgufMetadata } from "../io/gguf/types.js";
import { GGML_TYPES } from "../io/gguf/types.js";
import { layOutGguf, type GgufEntry } from "../io/gguf/writer.js";
import { MODEL_FILE, INDEX_FILE } from "../io/huggingface.js";
import type { NewFile } from "../io/open_file.js";
import { SafetensorsWriter, type PlacedEntry } from "../io/safetensors_writer.js";
import { familyOf, fileNameOf, loadModel, type AnyLoadedModel, type ModelConfig } from "../models/families.js";
import { ggufArchitecture, ggufName, ggufOffset, ggufRowOrder, isTransposedInGguf } from "../models/gguf_names.js";
import { readConfig } from "../models/load.js";
import type { OnProgress } from "../models/load_progress.js";
import type { Parameter } from "../nn/module.js";
import { LoraModel } from "../peft/model.js";
import { ArgumentError, FormatError, StateError } from "../runtime/errors.js";
import { isCompact, storedBytes } from "../tensor/dtype.js";
import { widenedAt } from "../tensor/widened.js";
import { headsOfConfig } from "./base.js";
import { FILE_TYPES, inOrder, QUANTIZATION_VERSION } from "./gguf.js";
import { metadataOf, text, uint32 } from "./gguf_metadata.js";
import { vocabularyOf } from "./gguf_vocabulary.js";
import { Rounding } from "./rounding.js";
import type { ModelDType } from "./targets.js";
import { SAFETENSORS_DTYPES, toBytes, transposed } from "./values.js";

/** What is to be written. */
export interface ModelTask {
  /** The caller, for errors. */
  where: string;
  /** The folder of the model, or its GGUF file. */
  model: string;
  /** The folder of the adapter; undefined: the model as it is. */
  adapter: string | undefined;
  dtype: ModelDType;
  /** Makes a file of the result. */
  create(name: string): NewFile;
  /** Told the bytes of the model's files as they are read. */
  onProgress?: OnProgress | undefined;
  /** Told after each tensor how many are written, of how many. */
  onTensor?: ((done: number, total: number) => void) | undefined;
}

/** What was written. */
export interface WrittenModel {
  /** The files with weights. */
  files: string[];
  /** How many tensors they have. */
  tensors: number;
  /** What of the folder is not among them. */
  without: string | undefined;
  rounding: Rounding;
  /** The config.json of the result. */
  config: Record<string, unknown>;
  /** What should be known beside. */
  notes: string[];
}

/** A tensor that will be there. */
interface Planned {
  key: string;
  shape: readonly number[];
}

/** A model that is written a weight at a time. */
class Merging {
  readonly loaded: AnyLoadedModel;
  readonly planned: Planned[];
  readonly #adapted: LoraModel<AnyLoadedModel["model"]> | null;
  readonly #keys: Map<Parameter, string>;
  readonly #head: string | undefined;
  readonly #onTensor: ModelTask["onTensor"];

  constructor({ model: path, adapter, onProgress, onTensor }: ModelTask) {
    this.#onTensor = onTensor;
    this.loaded = loadModel(path, { onProgress });
    const { model } = this.loaded;
    const parameters = [...model.namedParameters()];
    this.#keys = new Map(parameters.map(([key, p]) => [p, key]));
    this.planned = parameters.map(([key, { shape }]) => ({ key, shape }));
    this.#adapted = adapter === undefined ? null : LoraModel.fromPretrained(model, adapter);
    const { tied } = familyOf(model.config.modelType)!;
    if (this.#adapted?.partsHead(["default"]) && tied) {
      this.#head = tied.head;
      this.planned.push({ key: tied.head, shape: this.planned.find(({ key }) => key === tied.table)!.shape });
    }
  }

  /** Calls `write` once for each planned tensor, with its values in place. */
  run(write: (key: string, parameter: Parameter) => void): void {
    const { model } = this.loaded;
    const written = new Set<string>();
    const one = (key: string, p: Parameter): void => {
      if (written.has(key)) return;
      written.add(key);
      write(key, p);
      this.#onTensor?.(written.size, this.planned.length);
    };
    // What is no parameter of the model's was made for a head that parts.
    this.#adapted?.unloadMerging(["default"], (p) => one(this.#keys.get(p) ?? this.#head!, p));
    for (const [key, p] of model.namedParameters()) one(key, p);
    if (written.size !== this.planned.length)
      throw new StateError(`merge: ${written.size} weights were written of ${this.planned.length} that were planned.`);
  }

  get without(): string | undefined {
    return familyOf(this.loaded.model.config.modelType)?.taken?.without;
  }

  /** The base's config with what is so now: the type of the weights, and whether the table is the head. */
  configAs(dtype: string): Record<string, unknown> {
    const { model, path, head } = this.loaded;
    const json = readConfig("merge", path) as Record<string, unknown>;
    const config = familyOf(model.config.modelType)?.taken?.configOf(json, head) ?? json;
    for (const key of ["dtype", "torch_dtype"]) if (key in config) config[key] = dtype;
    delete config["quantization_config"];
    // Encoders have no head that could be the table.
    const { tieWordEmbeddings } = model.config as Partial<ModelConfig>;
    if (tieWordEmbeddings !== undefined) config["tie_word_embeddings"] = tieWordEmbeddings;
    return config;
  }
}

/** Values at a time. */
const PART = 1 << 20;

/** A weight's values as float32, whole rows, a few MB at a time. */
function* partsOf({ address, bytes, dtype, size, shape }: Parameter): Generator<Float32Array, void> {
  const row = shape.at(-1) ?? 1;
  const step = Math.max(1, Math.floor(PART / row)) * row;
  for (let first = 0; first < size; first += step) {
    const count = Math.min(step, size - first);
    if (isCompact(dtype)) yield widenedAt(address + storedBytes(first, dtype), count, dtype);
    else yield new Float32Array(bytes.slice(4 * first, 4 * (first + count)).buffer);
  }
}

/** Bytes of a file with weights at most, as transformers cuts them. */
const SHARD_BYTES = 5_000_000_000;

/**
 * A folder's weights: model.safetensors, or shards of 5 GB and their index.
 * @throws FileError, FormatError, ArgumentError, OutOfMemoryError
 */
export function writeSafetensorsModel(task: ModelTask): WrittenModel {
  const { where, dtype, create } = task;
  if (dtype === "q8_0")
    throw new ArgumentError(`${where}: safetensors hold no q8_0; write GGUF (--to gguf), or f32, f16 or bf16.`);
  const merging = new Merging(task);
  const { config } = merging.loaded.model;
  const nameOf = (key: string): string => fileNameOf(config, key);
  const bytesOf = ({ shape }: Planned): number => shape.reduce((n, size) => n * size, dtype === "float32" ? 4 : 2);
  const shards: Planned[][] = [[]];
  let room = SHARD_BYTES;
  for (const one of merging.planned) {
    if (bytesOf(one) > room && shards.at(-1)!.length > 0) {
      shards.push([]);
      room = SHARD_BYTES;
    }
    shards.at(-1)!.push(one);
    room -= bytesOf(one);
  }
  const number = (i: number): string => String(i).padStart(5, "0");
  const files = shards.map((_, i) =>
    shards.length === 1 ? MODEL_FILE : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`,
  );
  const rounding = new Rounding(dtype);
  const open: NewFile[] = [];
  try {
    const writers = shards.map((shard, i) => {
      open.push(create(files[i]!));
      return new SafetensorsWriter(
        open[i]!,
        shard.map(({ key }) => nameOf(key)),
      );
    });
    const shardOf = new Map(shards.flatMap((shard, i) => shard.map(({ key }) => [key, i] as const)));
    const entries: PlacedEntry[][] = shards.map(() => []);
    merging.run((key, p) => {
      const i = shardOf.get(key)!;
      const place = writers[i]!.append(rounding.round(nameOf(key), partsOf(p)));
      entries[i]!.push({ name: nameOf(key), dtype: SAFETENSORS_DTYPES[dtype], shape: p.shape, ...place });
    });
    for (const [i, writer] of writers.entries()) writer.finish(entries[i]!, { format: "pt" });
    if (shards.length > 1) {
      const index = create(INDEX_FILE);
      open.push(index);
      const map = Object.fromEntries(entries.flatMap((list, i) => list.map(({ name }) => [name, files[i]!] as const)));
      const total = merging.planned.reduce((sum, one) => sum + bytesOf(one), 0);
      const json = `${JSON.stringify({ metadata: { total_size: total }, weight_map: map }, null, 2)}\n`;
      index.write(0, new TextEncoder().encode(json));
    }
  } finally {
    for (const file of open) file.close();
  }
  const { without } = merging;
  const tensors = merging.planned.length;
  return { files, tensors, without, rounding, config: merging.configAs(dtype), notes: [] };
}

/**
 * One GGUF file, as llama.cpp's converter makes it: matrices in the type asked for, all else in float32.
 * @param file its name
 * @throws as `writeSafetensorsModel`; ArgumentError, FormatError for what GGUF cannot say
 */
export function writeGgufModel(task: ModelTask, file: string): WrittenModel {
  const { where, model: path, dtype, create } = task;
  const merging = new Merging(task);
  const { config } = merging.loaded.model;
  const architecture = ggufArchitecture(config.modelType);
  if (architecture === undefined)
    throw new ArgumentError(`${where}: the model is a ${config.modelType}, which has no architecture in GGUF here.`);
  const notes: string[] = [];
  const entries = new Map<string, GgufEntry>();
  for (const { key, shape } of merging.planned) {
    const name = ggufName(architecture, key);
    if (name === undefined || (name === "output.weight" && ["gemma", "gemma2"].includes(architecture)))
      throw new ArgumentError(
        `${where}: the model has ${key}, which GGUF's ${architecture} has no place for; write safetensors instead.`,
      );
    const turned = isTransposedInGguf(architecture, name) ? [...shape].reverse() : shape;
    entries.set(key, { name, dtype: typeOf(name, turned, dtype), shape: turned });
  }
  const wide = [...entries.values()].filter((entry) => dtype === "q8_0" && entry.dtype === "float16").length;
  if (wide > 0) notes.push(`${wide} matrices have rows that are no multiple of 32 values: they are f16.`);
  const { values, factors } = metadataOf(where, architecture, config);
  const { slidingWindow = null } = config as { slidingWindow?: number | null };
  if (architecture === "llama" && slidingWindow !== null && slidingWindow < config.maxPositionEmbeddings)
    notes.push(`llama.cpp reads past this model's window: texts of more than ${slidingWindow} tokens differ there.`);
  const vocabulary = vocabularyOf(path, config);
  if (new Map(vocabulary).get("tokenizer.ggml.model")?.value === "none")
    notes.push(`${path} has no tokenizer: the file has token ids alone.`);
  const metadata: GgufMetadata = new Map([
    ["general.architecture", text(architecture)],
    ["general.type", text("model")],
    ["general.name", text(nameOf(path))],
    ...values,
    ["general.file_type", uint32(FILE_TYPES[dtype])],
    ["general.quantization_version", uint32(QUANTIZATION_VERSION)],
    ...vocabulary,
  ]);
  const { header, places, size } = layOutGguf(metadata, [
    ...factors.map(({ name, values: list }) => ({ name, dtype: "float32" as const, shape: [list.length] })),
    ...entries.values(),
  ]);
  const rounding = new Rounding(dtype);
  const to = create(file);
  try {
    to.write(0, header);
    // The last tensor is padded, too.
    to.write(size - 1, new Uint8Array(1));
    for (const { name, values: list } of factors) to.write(places.get(name)!.begin, toBytes(list, "float32"));
    const heads = headsOfConfig(config);
    merging.run((key, p) => {
      const entry = entries.get(key)!;
      let at = places.get(entry.name)!.begin;
      const parts = arranged(architecture, entry, p, heads);
      for (const bytes of new Rounding(entry.dtype as ModelDType, rounding).round(entry.name, parts)) {
        to.write(at, bytes);
        at += bytes.length;
      }
    });
  } finally {
    to.close();
  }
  return {
    files: [file],
    tensors: entries.size + factors.length,
    without: merging.without,
    rounding,
    config: merging.configAs("float32"),
    notes,
  };
}

/** As llama.cpp's converter decides it. */
function typeOf(name: string, shape: readonly number[], dtype: ModelDType): GgmlType {
  if (shape.length < 2 || name.endsWith("_norm.weight") || name === "position_embd.weight") return "float32";
  // What has no whole blocks becomes halves.
  return shape.at(-1)! % GGML_TYPES[dtype].values === 0 ? dtype : "float16";
}

/** A weight's values, as GGUF has them. */
function* arranged(
  architecture: string,
  { name }: GgufEntry,
  p: Parameter,
  heads: { heads: number; kvHeads: number },
): Generator<Float32Array, void> {
  const [rows, columns] = [p.shape[0] ?? 1, p.shape.length > 1 ? p.shape[1]! : 1];
  const order = ggufRowOrder(architecture, name, rows, heads);
  if (order) return yield inOrder(p.toFloat32(), columns, order);
  if (isTransposedInGguf(architecture, name)) return yield transposed(p.toFloat32(), rows, columns);
  const offset = ggufOffset(architecture, name);
  for (const part of partsOf(p)) yield offset === 0 ? part : part.map((value) => value + offset);
}

/** The last name of a path. */
function nameOf(path: string): string {
  return (
    path
      .replace(/\/+$|\.gguf$/i, "")
      .split("/")
      .at(-1) || "model"
  );
}

/** The text of a config.json that is written of a model's. @throws FormatError */
export function configText(model: string, config: Record<string, unknown>): string {
  try {
    return `${JSON.stringify(config, null, 2)}\n`;
  } catch (cause) {
    throw new FormatError(`${configPath(model)}: it is nested too deep to be written again.`, { cause });
  }
}

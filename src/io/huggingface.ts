/**
 * Weights of model folders as Hugging Face transformers writes them: model.safetensors, or shards listed in
 * model.safetensors.index.json:
 *
 *   {"metadata": ..., "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors", ...}}
 *
 * Source: huggingface/transformers, modeling_utils.py.
 */
import { FileError, FormatError } from "../runtime/errors.js";
import type { StateEntry } from "../runtime/state_entry.js";
import { exists, openFile, parseJson, readBytes } from "./files.js";
import { asObject, show } from "./json.js";
import type { OpenFile } from "./open_file.js";
import { toFloat32 } from "./safetensors.js";
import { readHeader, type SafetensorsDtype, type SafetensorsHeader, type StoredTensor } from "./safetensors_header.js";

export const MODEL_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";

/** What a weight may be stored in: as safetensors files call it, or in small letters what only GGUF files have. */
export type StoredDtype = SafetensorsDtype | Lowercase<string>;

/** How a tensor's values lie in another way in its file than in the model. */
export interface Arrangement {
  /** Which row of the model's tensor each row of the file is; null: the same. */
  rows(): Int32Array | null;
  /** Whether the file has a matrix [in, out] as [out, in]. */
  transposed: boolean;
  /** What the file's values have added. */
  offset: 0 | 1;
}

/** A tensor of a folder: where it is, not what it holds. */
export interface PlacedTensor extends Omit<StoredTensor, "dtype"> {
  /** What its values are stored in. */
  dtype: StoredDtype;
  /** Path of its file. */
  file: string;
  /** Left out: the values lie as the model has them. */
  arrangement?: Arrangement | undefined;
}

/** The weights of a folder by the headers of its files. */
export interface WeightIndex {
  /** By name, as the files have them. */
  tensors: Map<string, PlacedTensor>;
  /**
   * Tensors that the index lists and no shard has, and those that a shard has and the index does not list, with the
   * path of the shard.
   */
  astray: Map<string, string>;
  /** Bytes of each file, by its path. */
  sizes: Map<string, number>;
  /** All files' metadata: safetensors.torch.save_model keeps there which names stood for one tensor. */
  metadata: Map<string, string>;
  /** So many bytes may follow the last tensor of a file. Left out: none. */
  padding?: number | undefined;
  /** What says of which sizes the tensors are, for errors. Left out: the folder's config.json. */
  config?: string | undefined;
}

/**
 * What the headers of a folder's files say together.
 * @param headers by the paths of the files
 * @param shardOf each tensor's file by the folder's index, if it has one
 * @throws FormatError if a tensor is in another shard than the index says
 * @internal
 */
export function joinHeaders(
  directory: string,
  headers: ReadonlyMap<string, SafetensorsHeader>,
  shardOf?: ReadonlyMap<string, string>,
): WeightIndex {
  const tensors = new Map<string, PlacedTensor>();
  const astray = new Map<string, string>();
  const sizes = new Map<string, number>();
  const metadata = new Map<string, string>();
  for (const [path, header] of headers) {
    sizes.set(path, header.end);
    for (const [key, value] of Object.entries(header.metadata)) metadata.set(key, value);
    for (const [name, tensor] of header.tensors) {
      const shard = shardOf?.get(name);
      if (shard !== undefined && `${directory}/${shard}` !== path)
        throw new FormatError(
          `${path}: tensor ${show(name)} is here, but ${directory}/${INDEX_FILE} has it in ${shard}.`,
        );
      if (shardOf && shard === undefined) astray.set(name, path);
      tensors.set(name, { ...tensor, file: path });
    }
  }
  for (const [name, shard] of shardOf ?? []) {
    if (!tensors.has(name)) astray.set(name, `${directory}/${shard}`);
  }
  return { tensors, astray, sizes, metadata };
}

/** A folder's files with weights, open: their headers are read, their data when they are asked for. */
export interface OpenWeights extends WeightIndex {
  /** Reads a part of a tensor, from so many bytes behind its beginning. @throws FileError */
  read(tensor: PlacedTensor, from: number, into: Uint8Array): void;
  /** Whoever opened them closes them. */
  close(): void;
}

/**
 * Opens model.safetensors if that is there, else the shards of its index, and reads their headers.
 * @throws FileError if a file is missing, FormatError if one is damaged or a tensor is in another shard than the index
 * says
 * @internal
 */
export function openWeights(directory: string): OpenWeights {
  const indexPath = `${directory}/${INDEX_FILE}`;
  const isWhole = exists(`${directory}/${MODEL_FILE}`);
  if (!isWhole && !exists(indexPath)) {
    throw new FileError(
      `cannot read weights from ${directory}: neither ${MODEL_FILE} nor ${INDEX_FILE} is there; ` +
        "check the path, and save pickled weights (.bin) as safetensors.",
    );
  }
  const shardOf = isWhole ? undefined : readWeightMap(indexPath);
  const files = new Map<string, OpenFile>();
  const headers = new Map<string, SafetensorsHeader>();
  const close = (): void => {
    for (const file of files.values()) file.close();
  };
  try {
    for (const name of shardOf ? new Set(shardOf.values()) : [MODEL_FILE]) {
      const file = openFile(`${directory}/${name}`);
      files.set(file.path, file);
      headers.set(file.path, readHeader(file));
    }
    return {
      ...joinHeaders(directory, headers, shardOf),
      read: ({ file, begin }, from, into) => files.get(file)!.read(begin + from, into),
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Refuses a folder whose shards and index differ. @internal
 * @throws FormatError naming the first tensor that is astray
 */
export function refuseAstray(directory: string, { tensors, astray }: WeightIndex): void {
  for (const [name, path] of astray) {
    const index = `${directory}/${INDEX_FILE}`;
    throw new FormatError(
      `${path}: tensor ${show(name)} ${
        tensors.has(name) ? `is here, but ${index} does not ` + `list it` : `is missing; ${index} lists it`
      }.`,
    );
  }
}

/**
 * Weights of a folder as float32, from model.safetensors if it is there, else from the shards of its index. Of the
 * files only what is wanted is read.
 *
 * @param wanted which tensors to give; the others may be of any dtype
 * @throws FileError if a file is missing, FormatError if one is damaged or the index does not fit
 *
 * @example
 * const weights = io.loadWeights("models/base", (name) => name.includes("layers.0."));
 * console.log(weights.get("model.layers.0.input_layernorm.weight").shape.length); // 1
 */
export function loadWeights(
  directory: string,
  wanted: (name: string) => boolean = () => true,
): Map<string, StateEntry> {
  const files = openWeights(directory);
  try {
    refuseAstray(directory, files);
    const weights = new Map<string, StateEntry>();
    for (const [name, tensor] of files.tensors) {
      if (!wanted(name)) continue;
      const bytes = new Uint8Array(tensor.length);
      files.read(tensor, 0, bytes);
      weights.set(name, {
        shape: tensor.shape,
        data: toFloat32({ ...tensor, dtype: tensor.dtype as SafetensorsDtype, bytes }),
      });
    }
    return weights;
  } finally {
    files.close();
  }
}

/** The shard of each tensor, by an index. @throws FileError, FormatError @internal */
export function readWeightMap(path: string): Map<string, string> {
  return parseWeightMap(readBytes(path), path);
}

/** The shard of each tensor, from the bytes of an index. @throws FormatError @internal */
export function parseWeightMap(bytes: Uint8Array, path: string): Map<string, string> {
  const weightMap = asObject(asObject(parseJson(bytes, path))?.weight_map);
  if (!weightMap)
    throw new FormatError(`${path}: expected an object with weight_map, an object of tensor names and shards.`);
  const shardOf = new Map<string, string>();
  const plain = new Set<unknown>();
  for (const name in weightMap) {
    const shard = weightMap[name];
    // A plain name: no separators, drives or dots that could lead out of the folder.
    if (
      !plain.has(shard) &&
      (typeof shard !== "string" || shard.length > 255 || !/^\w[\w.-]*\.safetensors$/.test(shard))
    ) {
      throw new FormatError(
        `${path}: tensor ${show(name)} is in shard ${show(shard)}; expected the name of a .safetensors file in ` +
          `this folder.`,
      );
    }
    plain.add(shard);
    shardOf.set(name, shard as string);
  }
  return shardOf;
}

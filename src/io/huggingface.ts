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
import { exists, parseJson, readBytes } from "./files.js";
import { asObject, show } from "./json.js";
import { parseSafetensors, toFloat32, type TensorView } from "./safetensors.js";

export const MODEL_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";

/** The tensors of a folder, not copied. */
export interface WeightViews {
  /** By name, as the files have them. */
  tensors: Map<string, TensorView>;
  /**
   * Tensors that the index lists and no shard has, and those that a shard has and the index does not list, with the
   * path of the shard.
   */
  astray: Map<string, string>;
  /** All files' metadata: safetensors.torch.save_model keeps there which names stood for one tensor. */
  metadata: Map<string, string>;
}

/**
 * The tensors of model.safetensors if that is there, else of the shards of its index, each read once.
 * @throws FileError if a file is missing, FormatError if one is damaged or a tensor is in another shard than the index
 * says
 * @internal
 */
export function readWeightViews(directory: string): WeightViews {
  const tensors = new Map<string, TensorView>();
  const astray = new Map<string, string>();
  const metadata = new Map<string, string>();
  const whole = `${directory}/${MODEL_FILE}`;
  const indexPath = `${directory}/${INDEX_FILE}`;
  const read = (path: string): Iterable<TensorView> => {
    const file = parseSafetensors(readBytes(path), { name: path });
    for (const [key, value] of Object.entries(file.metadata)) metadata.set(key, value);
    return file.tensors.values();
  };
  if (exists(whole)) {
    for (const view of read(whole)) tensors.set(view.name, view);
    return { tensors, astray, metadata };
  }
  if (!exists(indexPath)) {
    throw new FileError(
      `cannot read weights from ${directory}: neither ${MODEL_FILE} nor ${INDEX_FILE} is there; ` +
        "check the path, and save pickled weights (.bin) as safetensors.",
    );
  }
  const shardOf = readWeightMap(indexPath);
  for (const shard of new Set(shardOf.values())) {
    const path = `${directory}/${shard}`;
    for (const view of read(path)) {
      const expected = shardOf.get(view.name);
      if (expected !== undefined && expected !== shard)
        throw new FormatError(`${path}: tensor ${show(view.name)} is here, but ${indexPath} has it in ${expected}.`);
      if (expected === undefined) astray.set(view.name, path);
      tensors.set(view.name, view);
    }
  }
  for (const [name, shard] of shardOf) {
    if (!tensors.has(name)) astray.set(name, `${directory}/${shard}`);
  }
  return { tensors, astray, metadata };
}

/**
 * Refuses a folder whose shards and index differ. @internal
 * @throws FormatError naming the first tensor that is astray
 */
export function refuseAstray(directory: string, { tensors, astray }: WeightViews): void {
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
 * All weights of a folder as float32, from model.safetensors if it is there, else from the shards of
 * its index, each read once.
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
  const views = readWeightViews(directory);
  const { tensors } = views;
  refuseAstray(directory, views);
  const weights = new Map<string, StateEntry>();
  for (const [name, view] of tensors) if (wanted(name)) weights.set(name, { shape: view.shape, data: toFloat32(view) });
  return weights;
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

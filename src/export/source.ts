/** An adapter as what it adds to each module's weight, from a folder or from a model. */
import type { LoraConfig } from "../io/peft/config.js";
import { readPeftAdapter } from "../io/peft/folder.js";
import { BASE_LAYER, parseFactorKey, PREFIX } from "../io/peft/keys.js";
import { Matching } from "../io/peft/match.js";
import { show } from "../io/json.js";
import { LoraModel } from "../peft/model.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";

/** What is added to one weight: scaling B A. */
export interface Update {
  /** Path of the module. */
  path: string;
  rank: number;
  inputs: number;
  outputs: number;
  /** [rank, inputs] */
  a: Float32Array;
  /** [outputs, rank] */
  b: Float32Array;
  scaling: number;
}

/** An adapter of nothing but such updates. */
export interface PlainAdapter {
  config: LoraConfig;
  updates: Update[];
}

/** What a target can be told; all else of an adapter is refused by name. */
const CANNOT = "only updates of linear layers, scaling B A, can be written";
const MERGE = "merge it into its base instead (wasm-lora merge --to gguf or --to safetensors)";

/**
 * An adapter of a folder or of a model.
 * @throws FileError, FormatError for a folder that is damaged; ArgumentError naming what is more than updates of linear
 * layers
 */
export function readSource(where: string, source: string | LoraModel, adapterName: string): PlainAdapter {
  if (!(source instanceof LoraModel) && typeof source !== "string")
    throw new ArgumentError(`${where}: adapter must be a folder's path or a LoraModel; got ${shown(source)}.`);
  const { config, updates } =
    typeof source === "string" ? ofFolder(where, source) : ofModel(where, source, adapterName);
  // Wherever it comes from, the same adapter makes the same files.
  const key = ({ path }: Update): string => path.replace(/\d+/g, (digits) => digits.padStart(9, "0"));
  return { config, updates: updates.sort((a, b) => (key(a) < key(b) ? -1 : 1)) };
}

/** An adapter that a target cannot be told. */
function refuse(where: string, what: string): never {
  throw new ArgumentError(`${where}: the adapter has ${what}; ${CANNOT}: ${MERGE}.`);
}

function refuseByConfig(where: string, config: LoraConfig): void {
  const { modulesToSave, trainableTokenIndices, layerReplication } = config;
  if (config.useDora) refuse(where, "DoRA's magnitudes (useDora)");
  if (modulesToSave?.length) refuse(where, `modules that were trained whole (modulesToSave: ${show(modulesToSave)})`);
  if (trainableTokenIndices !== null) refuse(where, "trained tokens (trainableTokenIndices)");
  if (layerReplication !== null) refuse(where, "layers that are there more than once (layerReplication)");
  if (config.bias !== "none") refuse(where, `trained biases (bias: ${show(config.bias)})`);
  if (config.loraBias) refuse(where, "biases of its own (loraBias)");
}

function ofModel(where: string, model: LoraModel, adapterName: string): PlainAdapter {
  const { config, parts } = model.collect(adapterName);
  refuseByConfig(where, config);
  const updates = parts.map(({ path, kind, loraA, loraB, scaling }): Update => {
    if (kind !== "linear")
      refuse(where, `factors of ${path}, which is ${kind === "conv" ? "a convolution" : "a table"}`);
    return updateOf(path, loraA, loraB, scaling);
  });
  return { config, updates };
}

function ofFolder(where: string, directory: string): PlainAdapter {
  const { config, tensors } = readPeftAdapter(directory);
  refuseByConfig(where, config);
  const { initLoraWeights: init } = config;
  if (typeof init === "string" && /^(pissa|olora)/.test(init))
    refuse(where, `base weights of its own (initLoraWeights: ${show(init)}), as PEFT saves it unless told to convert`);
  const matching = new Matching(config, (message) => {
    throw new FormatError(`${directory}: ${message}.`);
  });
  const updates: Update[] = [];
  for (const [name, tensor] of tensors) {
    const path = name.slice(PREFIX.length);
    const factor = parseFactorKey(path);
    if (!factor) {
      const module = path.replace(new RegExp(`\\.${BASE_LAYER}\\.\\w+$`), "");
      refuse(where, `a weight of the base's own for ${module}`);
    }
    const { module, kind, isA } = factor;
    if (kind === "embedding") refuse(where, `factors of ${module}, which is a table`);
    if (tensor.shape.length > 2) refuse(where, `factors of ${module}, which is a convolution`);
    if (!isA) continue;
    const b = tensors.get(`${name.slice(0, -"lora_A.weight".length)}lora_B.weight`)!;
    updates.push(updateOf(module, tensor, b, matching.scaling(module)));
  }
  return { config, updates };
}

interface Factor {
  shape: readonly number[];
  data: Float32Array;
}

function updateOf(path: string, { shape, data: a }: Factor, { shape: ofB, data: b }: Factor, scaling: number): Update {
  return { path, rank: shape[0]!, inputs: shape[1]!, outputs: ofB[0]!, a, b, scaling };
}

/**
 * LoRA adapters in PEFT's format: a folder with adapter_config.json and adapter_model.safetensors.
 *
 *   base_model.model.<module>.lora_A.weight          (r, in)        .lora_B.weight          (out, r)
 *   base_model.model.<module>.lora_embedding_A       (r, V)         .lora_embedding_B       (dim, r)
 *   convolutions: lora_A.weight (r, in, K...), lora_B.weight (out, r / groups, 1...)
 *   embeddings and heads, by default of PEFT's: base_model.model.<module>.base_layer.weight, the base's own
 *   use_dora: base_model.model.<module>.lora_magnitude_vector (out), (dim) or, of convolutions, (1, out, 1...)
 *   bias "all", "lora_only": base_model.model.<module>[.base_layer].bias
 *   modules_to_save: base_model.model.<module>.weight and whatever else the module holds, in its own names
 *
 * The result of a layer is base(x) + scaling * B(A(x)), see `scalingOf`; with use_dora its directions only.
 * Source: huggingface/peft 0.20, src/peft/utils/save_and_load.py (get_peft_model_state_dict), tuners/lora/layer.py,
 * tuners/lora/dora.py. What is not ours is refused by name.
 */
import { ArgumentError, FileError, FormatError } from "../runtime/errors.js";
import type { Options } from "../runtime/options.js";
import { ensureWritableDirectory, exists, readBytes, readJson, writeTogether } from "./files.js";
import { digestOfTensors, Sha256 } from "./digest.js";
import { checkText, show } from "./json.js";
import { completeConfig, parsePeftConfig, serializePeftConfig, type LoraConfig } from "./peft_config.js";
import { Endings, Matching } from "./peft_match.js";
import { newBudget, type Budget } from "./python_regexp.js";
import { parseSafetensors, serializeSafetensors, toFloat32, type SafetensorsFile } from "./safetensors.js";
import { finiteTensors } from "./state_dict.js";

export { serializePeftConfig, type LoraConfig } from "./peft_config.js";
export { patternValue, scalingOf, targets, type Scales, type Selection } from "./peft_match.js";

const CONFIG_FILE = "adapter_config.json";
const MODEL_FILE = "adapter_model.safetensors";
const PREFIX = "base_model.model.";

/** A tensor outside linear memory, as the readers give it and the writers take it; nn.StateEntry is the same. */
export interface PeftTensor {
  /** Sizes of the dimensions. */
  shape: readonly number[];
  /** The values, last dimension fastest. */
  data: Float32Array;
}

/** A tensor with its key in an adapter's file. */
export interface NamedPeftTensor extends PeftTensor {
  /** As `peftKey` and its like make it. */
  name: string;
}

/** What `readPeftAdapter` finds in a folder. */
export interface PeftAdapter {
  /** adapter_config.json, all fields filled in. */
  config: LoraConfig;
  /** adapter_model.safetensors, by key. */
  tensors: Map<string, PeftTensor>;
}

/**
 * The key of a factor of the linear layer or convolution at `modulePath`.
 *
 * @example
 * console.log(io.peftKey("layers.0.q_proj", "lora_A")); // base_model.model.layers.0.q_proj.lora_A.weight
 */
export function peftKey(modulePath: string, factor: "lora_A" | "lora_B"): string {
  checkText("peftKey", "modulePath", modulePath);
  checkText("peftKey", "factor", factor);
  return `${PREFIX}${modulePath}.${factor}.weight`;
}

/**
 * The key of a factor of the embedding at `modulePath`.
 *
 * @example
 * console.log(io.peftEmbeddingKey("wte", "lora_embedding_A")); // base_model.model.wte.lora_embedding_A
 */
export function peftEmbeddingKey(modulePath: string, factor: "lora_embedding_A" | "lora_embedding_B"): string {
  checkText("peftEmbeddingKey", "modulePath", modulePath);
  checkText("peftEmbeddingKey", "factor", factor);
  return `${PREFIX}${modulePath}.${factor}`;
}

/**
 * The key of DoRA's magnitude of the module at `modulePath`.
 *
 * @example
 * console.log(io.peftMagnitudeKey("q_proj")); // base_model.model.q_proj.lora_magnitude_vector
 */
export function peftMagnitudeKey(modulePath: string): string {
  checkText("peftMagnitudeKey", "modulePath", modulePath);
  return `${PREFIX}${modulePath}.lora_magnitude_vector`;
}

/**
 * The key of a parameter of the base: of modules_to_save, or a bias (in an adapted module it is
 * `<module>.base_layer.bias`).
 *
 * @example
 * console.log(io.peftBaseKey("q_proj.base_layer.bias")); // base_model.model.q_proj.base_layer.bias
 */
export function peftBaseKey(parameterPath: string): string {
  checkText("peftBaseKey", "parameterPath", parameterPath);
  return `${PREFIX}${parameterPath}`;
}

/**
 * Writes the folder, the config last: a folder with a config is complete. Over another adapter, both files take the old
 * ones' places one right after the other, when both are written: a full disk leaves the old ones; the tensors' metadata
 * has a SHA-256 of them and one of the config, so that what a writer leaves that is stopped between the two is refused.
 *
 * Source: PEFT, PeftModel.save_pretrained.
 * @param config an omitted field has PEFT's default
 * @throws ArgumentError, before anything is written, for what readPeftAdapter would refuse, values that are not finite
 * among them; FileError
 *
 * @example
 * io.writePeftAdapter("adapter", { r: 2, loraAlpha: 4, targetModules: ["fc"] }, [
 *   { name: io.peftKey("fc", "lora_A"), shape: [2, 3], data: new Float32Array(6) },
 *   { name: io.peftKey("fc", "lora_B"), shape: [5, 2], data: new Float32Array(10) },
 * ]);
 */
export function writePeftAdapter(
  directory: string,
  config: Options<LoraConfig>,
  tensors: Iterable<NamedPeftTensor>,
): void {
  const fail = (message: string): never => {
    throw new ArgumentError(`writePeftAdapter: ${message}.`);
  };
  checkText("writePeftAdapter", "directory", directory);
  const full = completeConfig("writePeftAdapter", config);
  if (typeof (tensors as unknown) !== "object" || !tensors || !(Symbol.iterator in tensors))
    return fail(`tensors must be a list of { name, shape, data }; got ${show(tensors)}`);
  const list = [...tensors];
  for (const [i, tensor] of list.entries()) {
    const { name, shape, data } = ((tensor as unknown) ?? {}) as Partial<NamedPeftTensor>;
    if (typeof name !== "string" || !Array.isArray(shape) || !(data instanceof Float32Array))
      fail(`tensors[${i}] must be { name, shape, data } with the values in a Float32Array`);
  }
  checkTensors(new Map(list.map(({ name, shape }) => [name, shape])), full, fail);
  const finite = list.flatMap((tensor) => finiteTensors("writePeftAdapter", new Map([[tensor.name, tensor]])));
  const metadata = { format: "pt", config: configDigest(full) };
  const digest = digestOfTensors(
    finite.map((tensor) => ({ ...tensor, bytes: tensor.data })),
    metadata,
  );
  const model = serializeSafetensors(finite, { ...metadata, digest });
  ensureWritableDirectory(directory);
  const json = new TextEncoder().encode(serializePeftConfig(full));
  writeTogether([
    { path: `${directory}/${MODEL_FILE}`, bytes: model },
    { path: `${directory}/${CONFIG_FILE}`, bytes: json },
  ]);
}

/**
 * Reads the folder; F16, BF16 and F64 become float32. Digests, which `writePeftAdapter` writes, are checked.
 *
 * Source: PEFT, LoraConfig.from_pretrained and load_peft_weights.
 * @throws FileError if a file is missing, FormatError if one is damaged, holds what is not finite or asks for what is
 * not ours, or if the two are not of one save
 *
 * @example
 * io.writePeftAdapter("adapter", { r: 2, targetModules: ["fc"] }, [
 *   { name: io.peftKey("fc", "lora_A"), shape: [2, 3], data: new Float32Array(6) },
 *   { name: io.peftKey("fc", "lora_B"), shape: [5, 2], data: new Float32Array(10) },
 * ]);
 * const { config, tensors } = io.readPeftAdapter("adapter");
 * console.log(config.loraAlpha, tensors.get(io.peftKey("fc", "lora_A")).shape); // 8 [ 2, 3 ]
 */
export function readPeftAdapter(directory: string): PeftAdapter {
  checkText("readPeftAdapter", "directory", directory);
  const configPath = `${directory}/${CONFIG_FILE}`;
  const modelPath = `${directory}/${MODEL_FILE}`;
  const config = parsePeftConfig(readJson(configPath), configPath);
  if (!exists(modelPath) && exists(`${directory}/adapter_model.bin`)) {
    throw new FileError(
      `cannot read ${directory}/adapter_model.bin: pickled weights can run code when loaded; save the adapter as ` +
        `${MODEL_FILE}.`,
    );
  }
  const file = parseSafetensors(readBytes(modelPath), { name: modelPath });
  checkTensors(new Map([...file.tensors].map(([name, { shape }]) => [name, shape])), config, (message) => {
    throw new FormatError(`${modelPath}: ${message}.`);
  });
  checkDigests(file, config, configPath, modelPath);
  const tensors = new Map<string, PeftTensor>();
  for (const [name, view] of file.tensors) {
    const data = toFloat32(view);
    const odd = data.findIndex((value) => !Number.isFinite(value));
    if (odd >= 0)
      throw new FormatError(
        `${modelPath}: tensor ${show(name)} holds ${data[odd]} at position ${odd}: the adapter diverged or was ` +
          `damaged; use one that was saved before.`,
      );
    tensors.set(name, { shape: view.shape, data });
  }
  return { config, tensors };
}

/**
 * The two files are of one save, and their contents those that were written. A writer that is killed between the two,
 * over another adapter, leaves new tensors beside an old config. Other writers' folders have no digests.
 */
function checkDigests(
  { metadata, tensors }: SafetensorsFile,
  config: LoraConfig,
  configPath: string,
  modelPath: string,
): void {
  const { config: ofConfig, digest } = metadata;
  if (ofConfig === undefined && digest === undefined) return;
  if (digest !== digestOfTensors(tensors.values(), metadata)) {
    throw new FormatError(
      `${modelPath}: its contents are not what was written (their SHA-256 is another): the file is damaged; ` +
        `restore it from a copy.`,
    );
  }
  if (ofConfig !== configDigest(config)) {
    throw new FormatError(
      `${configPath}: it is not the config that ${modelPath} was saved with: one of the two was replaced or edited ` +
        `alone; restore the other, or save the adapter again.`,
    );
  }
}

/** A SHA-256 of what a config says about the result and its training; where the base lies may be written anew. */
function configDigest({
  baseModelNameOrPath: _base,
  taskType: _task,
  initLoraWeights: _init,
  ...said
}: LoraConfig): string {
  return new Sha256().update(JSON.stringify(Object.entries(said).sort(([a], [b]) => (a < b ? -1 : 1)))).hex();
}

type Shapes = ReadonlyMap<string, readonly number[]>;
type Fail = (message: string) => never;

/** Module path, A or B of a linear layer or convolution, A or B of an embedding. */
const FACTOR = /^(.+)\.lora_(?:([AB])\.weight|embedding_([AB]))$/s;
const MAGNITUDE = /^(.+)\.lora_magnitude_vector$/s;
/** Of an adapted embedding or head, which PEFT saves beside its factors. */
const BASE_WEIGHT = /^(.+)\.base_layer\.weight$/s;
const BIAS = /^(.+?)(?:\.base_layer)?\.bias$/s;

/** Names that PEFT gives to what is not ours, and what to do about it. */
const NOT_OURS: readonly (readonly [name: RegExp, advice: string])[] = [
  [/\.lora_[AB]\.bias$/, "biases of factors (lora_bias) are not supported"],
  [/\.token_adapter\./, "single trained tokens (trainable_token_indices) are not supported"],
];

/** Every tensor is a factor with its partner, of the module's rank, or something that the config announces. */
function checkTensors(shapes: Shapes, config: LoraConfig, fail: Fail): void {
  const matching = new Matching(config, fail);
  const saved = new Endings(config.modulesToSave ?? []);
  const budget = newBudget(fail);
  for (const [name, shape] of shapes) {
    if (!name.startsWith(PREFIX)) fail(`tensor ${show(name)} does not start with ${show(PREFIX)}`);
    const path = name.slice(PREFIX.length);
    const factor = FACTOR.exec(path);
    const magnitude = MAGNITUDE.exec(path);
    if (factor) checkFactor(factor, shape, shapes, config, matching, fail);
    else if (magnitude) checkMagnitude(magnitude[1]!, shape, shapes, config, fail);
    else if (!isSaved(path, saved, budget) && !isTied(path, config) && !isBaseWeight(path, shapes))
      checkBias(path, shapes, config, fail);
  }
}

function checkFactor(
  [path, module, ofWeight, ofEmbedding]: RegExpExecArray,
  shape: readonly number[],
  shapes: Shapes,
  config: LoraConfig,
  matching: Matching,
  fail: Fail,
): void {
  const which = `tensor ${show(PREFIX + path)}`;
  const isEmbedding = ofEmbedding !== undefined;
  const isA = (ofWeight ?? ofEmbedding) === "A";
  const partner = isEmbedding
    ? peftEmbeddingKey(module!, `lora_embedding_${isA ? "B" : "A"}`)
    : peftKey(module!, `lora_${isA ? "B" : "A"}`);
  const partnerShape = shapes.get(partner) ?? fail(`${which} has no partner ${show(partner)}`);
  if (shape.length < 2 || (isEmbedding && shape.length !== 2)) {
    fail(`${which} has shape ${show(shape)}; expected ${isEmbedding ? 2 : "at least 2"} dimensions`);
  }
  if (shape.length !== partnerShape.length)
    fail(`${which} has shape ${show(shape)}, its partner ${show(partnerShape)}; expected as many dimensions`);
  if (config.useDora && !shapes.has(peftMagnitudeKey(module!)))
    fail(`${which} has no ${show(peftMagnitudeKey(module!))} beside it, but use_dora is true`);
  const r = matching.rank(module!);
  if (isA || shape.length === 2) {
    if (shape[isA ? 0 : 1] !== r)
      fail(
        `${which} has shape ${show(shape)}; its ${isA ? "first" : "second"} dimension must be r = ` +
          `${r}${r === config.r ? "" : ", by rank_pattern"}`,
      );
  } else if (r % shape[1]! !== 0 || shape.some((size, i) => i > 1 && size !== 1)) {
    fail(
      `${which} has shape ${show(shape)}; expected [out, ${r} / groups${", 1".repeat(shape.length - 2)}], r being ${r}`,
    );
  }
}

function checkMagnitude(
  module: string,
  shape: readonly number[],
  shapes: Shapes,
  config: LoraConfig,
  fail: Fail,
): void {
  const which = `tensor ${show(peftMagnitudeKey(module))}`;
  if (!config.useDora) fail(`${which} is a magnitude of DoRA, but use_dora is false`);
  const b =
    shapes.get(peftKey(module, "lora_B")) ??
    shapes.get(peftEmbeddingKey(module, "lora_embedding_B")) ??
    fail(`${which} has no factors beside it`);
  const expected = b.length > 2 ? b.map((_, i) => (i === 1 ? b[0]! : 1)) : [b[0]!];
  if (shape.join() !== expected.join()) fail(`${which} has shape ${show(shape)}; expected ${show(expected)}`);
}

function isBaseWeight(path: string, shapes: Shapes): boolean {
  const module = BASE_WEIGHT.exec(path)?.[1];
  return (
    module !== undefined &&
    (shapes.has(peftKey(module, "lora_A")) || shapes.has(peftEmbeddingKey(module, "lora_embedding_A")))
  );
}

/** With ensure_weight_tying the other one of head and table is there, too; which that is, the model tells. */
function isTied(path: string, { ensureWeightTying, modulesToSave }: LoraConfig): boolean {
  return ensureWeightTying && modulesToSave !== null && path.endsWith(".weight");
}

/**
 * Whether a parameter is in a module that modules_to_save names by the end of its path (with PEFT even within a word).
 */
function isSaved(path: string, saved: Endings, budget: Budget): boolean {
  for (let dot = path.indexOf("."); dot >= 0; dot = path.indexOf(".", dot + 1)) {
    if (!saved.of(path, dot, budget).next().done) return true;
  }
  return false;
}

/** "all" takes every name with "bias", as PEFT and loralib do; "lora_only" the biases beside factors. */
function checkBias(path: string, shapes: Shapes, { bias }: LoraConfig, fail: Fail): void {
  const which = `tensor ${show(PREFIX + path)}`;
  for (const [name, advice] of NOT_OURS) if (name.test(path)) fail(`${which}: ${advice}`);
  const module = BIAS.exec(path)?.[1];
  const isOfLora = module !== undefined && shapes.has(peftKey(module, "lora_A"));
  if (bias === "all" ? path.includes("bias") : bias === "lora_only" && isOfLora) return;
  fail(
    `${which} is neither a factor nor a magnitude vector of LoRA, nor in modules_to_save, nor a bias that is saved ` +
      `with bias ${show(bias)}`,
  );
}

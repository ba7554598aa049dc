/**
 * LoRA adapters in PEFT's format: a folder with adapter_config.json and adapter_model.safetensors.
 *
 *   base_model.model.<module>.lora_A.weight      (r, in)     .lora_B.weight      (out, r)
 *   base_model.model.<module>.lora_embedding_A   (r, V)      .lora_embedding_B   (dim, r)
 *   convolutions: lora_A.weight (r, in, K...), lora_B.weight (out, r / groups, 1...)
 *   bias "all", "lora_only": base_model.model.<module>[.base_layer].bias
 *
 * The result of a layer is base(x) + lora_alpha / r * B(A(x)).
 * Source: huggingface/peft 0.20, src/peft/config.py (save_pretrained), tuners/lora/config.py,
 * utils/save_and_load.py. A feature that would change the result and is not ours is refused by name.
 */
import { ArgumentError, FileError, FormatError } from "../runtime/errors.js";
import { ensureWritableDirectory, exists, readBytes, readJson, writeAtomic } from "./files.js";
import { show } from "./json.js";
import { parseSafetensors, serializeSafetensors, toFloat32 } from "./safetensors.js";

const CONFIG_FILE = "adapter_config.json";
const MODEL_FILE = "adapter_model.safetensors";
const PREFIX = "base_model.model.";

export interface PeftConfig {
  r: number;
  loraAlpha: number;
  loraDropout: number;
  /** Names or ends of names of the adapted modules. */
  targetModules: readonly string[];
  bias: "none" | "all" | "lora_only";
  /** The base stores its weights (in, out); the factors' shapes do not change. */
  fanInFanOut: boolean;
  baseModelNameOrPath: string | null;
  /** "CAUSAL_LM", "SEQ_CLS", ... */
  taskType: string | null;
}

export interface PeftTensor {
  shape: readonly number[];
  data: Float32Array;
}

/** PEFT's LoraConfig(). */
const DEFAULTS: PeftConfig = {
  r: 8, loraAlpha: 8, loraDropout: 0, targetModules: [], bias: "none", fanInFanOut: false,
  baseModelNameOrPath: null, taskType: null,
};

/** Inits that leave the base weights as they were, so that the factors alone are the adapter. */
const INITS_ON_UNCHANGED_BASE: readonly unknown[] = [true, false, "gaussian", "orthogonal", "eva", "mica"];

/**
 * Keys that say nothing about what a trained adapter computes: where it comes from, how it was run or
 * initialised, and sizes that count only beside a switch which is refused itself.
 */
const INFORMATIVE_KEYS = new Set([
  "auto_mapping", "eva_config", "inference_mode", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config",
]);

export function peftKey(modulePath: string, factor: "lora_A" | "lora_B"): string {
  return `${PREFIX}${modulePath}.${factor}.weight`;
}

export function peftEmbeddingKey(modulePath: string, factor: "lora_embedding_A" | "lora_embedding_B"): string {
  return `${PREFIX}${modulePath}.${factor}`;
}

/** adapter_config.json as PEFT writes it: sorted keys, indented by 2, ASCII; an omitted field has PEFT's default. */
export function serializePeftConfig(config: Partial<PeftConfig>): string {
  const full = checkConfig({ ...DEFAULTS, ...config }, (message) => { throw new ArgumentError(`serializePeftConfig: ${message}.`); });
  const keys = {
    alpha_pattern: {},
    base_model_name_or_path: full.baseModelNameOrPath,
    bias: full.bias,
    fan_in_fan_out: full.fanInFanOut,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: full.loraAlpha,
    lora_bias: false,
    lora_dropout: full.loraDropout,
    modules_to_save: null,
    peft_type: "LORA",
    r: full.r,
    rank_pattern: {},
    target_modules: full.targetModules,
    task_type: full.taskType,
    use_dora: false,
    use_rslora: false,
  };
  // PEFT opens the file in the locale's encoding, so nothing but ASCII is safe.
  return JSON.stringify(keys, null, 2).replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * Writes the folder, the config last: a folder with a config is complete. Overwriting an adapter, each
 * file is replaced as a whole.
 */
export function writePeftAdapter(
  directory: string, config: Partial<PeftConfig>, tensors: Iterable<{ name: string } & PeftTensor>,
): void {
  const configText = serializePeftConfig(config);
  const { r, bias } = { ...DEFAULTS, ...config };
  const list = [...tensors];
  checkTensors(list.map(({ name, shape }) => [name, shape]), r, bias,
    (message) => { throw new ArgumentError(`writePeftAdapter: ${message}.`); });
  const model = serializeSafetensors(list.map((tensor) => ({ ...tensor, dtype: "F32" })), { format: "pt" });
  ensureWritableDirectory(directory);
  writeAtomic(`${directory}/${MODEL_FILE}`, model);
  writeAtomic(`${directory}/${CONFIG_FILE}`, configText);
}

/**
 * @throws FileError if a file is missing, FormatError if one is damaged or asks for what is not ours
 */
export function readPeftAdapter(directory: string): { config: PeftConfig; tensors: Map<string, PeftTensor> } {
  const configPath = `${directory}/${CONFIG_FILE}`, modelPath = `${directory}/${MODEL_FILE}`;
  const config = parseConfig(readJson(configPath), configPath);
  if (!exists(modelPath) && exists(`${directory}/adapter_model.bin`)) {
    throw new FileError(`cannot read ${directory}/adapter_model.bin: pickled weights can run code when loaded; save the adapter as ${MODEL_FILE}.`);
  }
  const file = parseSafetensors(readBytes(modelPath), { name: modelPath });
  checkTensors([...file.tensors].map(([name, { shape }]) => [name, shape]), config.r, config.bias,
    (message) => { throw new FormatError(`${modelPath}: ${message}.`); });
  const tensors = new Map<string, PeftTensor>();
  for (const [name, view] of file.tensors) tensors.set(name, { shape: view.shape, data: toFloat32(view) });
  return { config, tensors };
}

function parseConfig(json: unknown, path: string): PeftConfig {
  const fail = (message: string): never => { throw new FormatError(`${path}: ${message}.`); };
  if (typeof json !== "object" || json === null || Array.isArray(json)) return fail("the file holds no JSON object");
  const {
    peft_type, r = DEFAULTS.r, lora_alpha = DEFAULTS.loraAlpha, lora_dropout = DEFAULTS.loraDropout, target_modules,
    bias = DEFAULTS.bias, fan_in_fan_out = DEFAULTS.fanInFanOut, init_lora_weights = true,
    base_model_name_or_path = null, task_type = null, ...others
  } = json as Record<string, unknown>;
  if (peft_type !== "LORA") fail(`peft_type is ${show(peft_type)}; only "LORA" is supported`);
  if (!INITS_ON_UNCHANGED_BASE.includes(init_lora_weights)) {
    fail(`init_lora_weights is ${show(init_lora_weights)}, which changes or may change the base weights; ` +
      "convert the adapter to plain LoRA (PEFT: path_initial_model_for_weight_conversion)");
  }
  for (const [key, value] of Object.entries(others)) {
    if (!INFORMATIVE_KEYS.has(key) && !isOff(value)) fail(`${key} is ${show(value)}; this feature is not supported`);
  }
  return checkConfig({
    r, loraAlpha: lora_alpha, loraDropout: lora_dropout, targetModules: target_modules, bias,
    fanInFanOut: fan_in_fan_out, baseModelNameOrPath: base_model_name_or_path, taskType: task_type,
  }, fail);
}

/** The value of a feature not in use: null, false, or an empty list, object or string. */
function isOff(value: unknown): boolean {
  return value === null || value === false || value === "" ||
    (typeof value === "object" && Object.keys(value).length === 0);
}

function checkConfig(config: Record<keyof PeftConfig, unknown>, fail: (message: string) => never): PeftConfig {
  const check = (key: keyof PeftConfig, name: string, valid: (value: never) => boolean, expected: string): void => {
    if (!valid(config[key] as never)) fail(`${name} is ${show(config[key])}; expected ${expected}`);
  };
  const isText = (value: unknown): boolean => value === null || typeof value === "string";
  check("r", "r", (value: number) => Number.isSafeInteger(value) && value > 0, "a positive integer");
  check("loraAlpha", "lora_alpha", Number.isFinite, "a finite number");
  check("loraDropout", "lora_dropout", (value: number) => Number.isFinite(value) && value >= 0 && value < 1, "a number from 0 to below 1");
  check("targetModules", "target_modules", (value: unknown) => Array.isArray(value) && value.every((name) => typeof name === "string"),
    "a list of module names (patterns are not supported)");
  check("bias", "bias", (value: string) => ["none", "all", "lora_only"].includes(value), '"none", "all" or "lora_only"');
  check("fanInFanOut", "fan_in_fan_out", (value: unknown) => typeof value === "boolean", "true or false");
  check("baseModelNameOrPath", "base_model_name_or_path", isText, "a string or null");
  check("taskType", "task_type", isText, "a string or null");
  return config as unknown as PeftConfig;
}

/** Every tensor is a factor with its partner, of rank r, or a bias that the config announces. */
function checkTensors(
  tensors: readonly (readonly [name: string, shape: readonly number[]])[], r: number, bias: PeftConfig["bias"],
  fail: (message: string) => never,
): void {
  const names = new Set(tensors.map(([name]) => name));
  for (const [name, shape] of tensors) {
    const which = `tensor ${show(name)}`;
    if (!name.startsWith(PREFIX)) fail(`${which} does not start with ${show(PREFIX)}`);
    const factor = /\.lora_(?:([AB])\.weight|embedding_([AB]))$/.exec(name);
    if (!factor) {
      const isBias = name.endsWith(".bias") && !name.includes(".lora_");
      if (!isBias || bias === "none") fail(`${which} is neither lora_A nor lora_B of a layer${isBias ? ', and bias is "none"' : ""}; it is not supported`);
      continue;
    }
    const isEmbedding = factor[2] !== undefined, isA = (factor[1] ?? factor[2]) === "A";
    const stem = name.slice(0, factor.index);
    const partner = isEmbedding ? `${stem}.lora_embedding_${isA ? "B" : "A"}` : `${stem}.lora_${isA ? "B" : "A"}.weight`;
    if (!names.has(partner)) fail(`${which} has no partner ${show(partner)}`);
    if (shape.length < 2 || (isEmbedding && shape.length !== 2)) {
      fail(`${which} has shape ${show(shape)}; expected ${isEmbedding ? 2 : "at least 2"} dimensions`);
    }
    // A grouped convolution's B has r / groups here, which only the layer can check.
    const isConvolutionB = !isA && shape.length > 2;
    const rank = isA ? shape[0] : shape[1];
    if (rank !== r && !isConvolutionB) fail(`${which} has shape ${show(shape)}; its ${isA ? "first" : "second"} dimension must be r = ${r}`);
  }
}

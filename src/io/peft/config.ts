/**
 * adapter_config.json, the half of a PEFT adapter that is not tensors.
 * Source: huggingface/peft 0.21, src/peft/config.py (save_pretrained), tuners/lora/config.py. A feature that would
 * change the result and is not ours is refused by name.
 */
import { ArgumentError, FormatError } from "../../runtime/errors.js";
import { checkOptions, nearest, withDefaults, type Options } from "../../runtime/options.js";
import { snakeCase } from "../../runtime/snake_case.js";
import { show } from "../json.js";
import { checkPattern } from "./regexp/pattern.js";

/** Which biases train and are saved: none; all of the model; only those of LoRA layers. */
export type BiasMode = "none" | "all" | "lora_only";

/** `init_lora_weights`; the N of "pissa_niter_N" is the number of power iterations. */
export type LoraInit = boolean | "gaussian" | "pissa" | `pissa_niter_${number}` | "olora" | "orthogonal";

/**
 * peft.LoraConfig in camelCase. Patterns are Python's regular expressions: literals, ".", classes, groups, "|", greedy
 * and lazy quantifiers, "^", "$", lookaround and \b \d \w \s; other syntax is refused by name.
 */
export interface LoraConfig {
  /** Rank. Default 8. */
  r: number;
  /** scaling = loraAlpha / r. Default 8. */
  loraAlpha: number;
  /** Probability of dropping an element of an adapter's input while training. Default 0. */
  loraDropout: number;
  /**
   * Paths of the adapted modules or their ends after a dot; or a pattern for the whole path; or "all-linear": every
   * linear layer but the output layer, which the model's getOutputEmbeddings() gives if it has that method, or the
   * classification head with taskType "SEQ_CLS". null (default): those that PEFT adapts in models of this model_type;
   * none beside targetParameters.
   */
  targetModules: readonly string[] | string | null;
  /**
   * Paths of weights of linear layers or their ends after a dot ("mlp.gate_proj.weight"): adapted as targetModules are,
   * without dropout. Default null.
   */
  targetParameters: readonly string[] | null;
  /** Modules that stay as they are whatever targetModules says; a list or a pattern, as there. Default null. */
  excludeModules: readonly string[] | string | null;
  /** Indices of the layers to adapt; null: all (default). Only with a list in targetModules. */
  layersToTransform: readonly number[] | number | null;
  /** Pattern (or several) for the name before a layer's index; null: any (default). Only with layersToTransform. */
  layersPattern: readonly string[] | string | null;
  /**
   * Other ranks for some modules, by patterns for the path or its end; the first that matches counts. Default: none.
   */
  rankPattern: Readonly<Record<string, number>>;
  /** Other alphas, in the same way. Default: none. */
  alphaPattern: Readonly<Record<string, number>>;
  /** The base stores its weights (in, out); the factors' shapes do not change. Default false. */
  fanInFanOut: boolean;
  /** Which biases train and are saved: none; all of the model; those of adapted modules. Default "none". */
  bias: BiasMode;
  /** Scales by alpha / sqrt(r) instead of alpha / r. Default false. */
  useRslora: boolean;
  /** Each adapted module has a magnitude vector beside its factors. Default false. */
  useDora: boolean;
  /**
   * Each loraB has a bias, scaled as its product is. It can be merged where the base layer has a bias. Default false.
   */
  loraBias: boolean;
  /**
   * How factors start: true (default) with A uniform and B zero; false with both uniform; "gaussian"; "orthogonal"; or
   * from the weight's decomposition. A folder takes only those whose reader can have the base as it was trained on:
   * true, false, "gaussian" and "orthogonal" leave it as it was, "pissa" and "olora" are done again by the reader.
   */
  initLoraWeights: LoraInit;
  /** Ends of paths of modules that are trained and saved whole. Default null. */
  modulesToSave: readonly string[] | null;
  /**
   * Ids of tokens whose rows of the embedding table are trained and saved, and of a head that is the table; or such
   * lists by the ends of paths of embeddings and linear layers. Default null.
   */
  trainableTokenIndices: readonly number[] | Readonly<Record<string, readonly number[]>> | null;
  /**
   * Ranges [from, to) of the model's layers, which it has one after another: [[0, 2], [1, 3]] makes layers 0, 1, 1, 2
   * of three. Those that are there more than once share their weights and have factors of their own. Default null.
   */
  layerReplication: readonly (readonly [from: number, to: number])[] | null;
  /**
   * Of a model whose output head is its embedding table: modulesToSave that has one of the two means both, trained as
   * one weight. Default false: each is trained for itself, and the other keeps the base's values. trainableTokenIndices
   * of the table are the head's in any case, unless it has other ones there.
   */
  ensureWeightTying: boolean;
  /** For readers of the folder; not looked at here. Default null. */
  baseModelNameOrPath: string | null;
  /**
   * One of PEFT's ("CAUSAL_LM", "SEQ_CLS", ...). A new adapter for a classification ("SEQ_CLS", "TOKEN_CLS") has
   * "classifier" and "score" in modulesToSave, one for "QUESTION_ANS" "qa_outputs". Default null.
   */
  taskType: string | null;
}

/** PEFT's LoraConfig(). */
const DEFAULTS: LoraConfig = {
  r: 8,
  loraAlpha: 8,
  loraDropout: 0,
  targetModules: null,
  targetParameters: null,
  excludeModules: null,
  layersToTransform: null,
  layersPattern: null,
  rankPattern: {},
  alphaPattern: {},
  fanInFanOut: false,
  bias: "none",
  useRslora: false,
  useDora: false,
  loraBias: false,
  initLoraWeights: true,
  modulesToSave: null,
  trainableTokenIndices: null,
  layerReplication: null,
  ensureWeightTying: false,
  baseModelNameOrPath: null,
  taskType: null,
};

const KEYS = Object.keys(DEFAULTS) as (keyof LoraConfig)[];

/** PEFT's TaskType: it loads no config with another. */
const TASK_TYPES: readonly string[] = [
  "CAUSAL_LM",
  "SEQ_CLS",
  "SEQ_2_SEQ_LM",
  "TOKEN_CLS",
  "QUESTION_ANS",
  "FEATURE_EXTRACTION",
];

/** What PEFT 0.21.0 writes besides, when none of it is in use. The version is that of the format: no PEFT ran. */
const OTHER_FIELDS = {
  alora_invocation_tokens: null,
  arrow_config: null,
  auto_mapping: null,
  corda_config: null,
  eva_config: null,
  inference_mode: true,
  kasa_config: null,
  loftq_config: {},
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  monteclora_config: null,
  peft_type: "LORA",
  peft_version: "0.21.0",
  qalora_group_size: 16,
  revision: null,
  use_bdlora: null,
  use_qalora: false,
  velora_config: null,
};

/** Inits that leave the base weights as they were, and those that a reader does again on its base, as PEFT does. */
const PORTABLE_INITS: readonly unknown[] = [true, false, "gaussian", "orthogonal", "pissa", "olora"];

/** Two more of PEFT's that leave the base as it was. Their work is done in a saved adapter, and they are not ours. */
const FOREIGN_INITS: readonly unknown[] = ["eva", "mica"];

/**
 * Keys that say nothing about what a trained adapter computes: where it comes from, how it was run or initialised (what
 * counts is init_lora_weights), and sizes that count only beside a switch which is refused itself. `merge_weights` is
 * of PEFT's first releases, `model_type` of Cloudflare's.
 */
const INFORMATIVE_KEYS = new Set([
  "auto_mapping",
  "corda_config",
  "eva_config",
  "inference_mode",
  "loftq_config",
  "lora_ga_config",
  "megatron_core",
  "merge_weights",
  "model_type",
  "peft_version",
  "qalora_group_size",
  "revision",
  "runtime_config",
]);

/**
 * adapter_config.json as PEFT writes it: sorted keys, indented by 2, ASCII, floats with a point; an omitted field
 * has PEFT's default. Within rankPattern and alphaPattern keys keep their order, by which the first match counts
 * (PEFT would sort them and so change what they mean).
 *
 * Source: PEFT, PeftConfigMixin.save_pretrained.
 * @throws ArgumentError naming the field that is not valid
 */
export function serializePeftConfig(config: Options<LoraConfig>): string {
  const where = "serializePeftConfig";
  const fail = refuse(where);
  const full = checkPortable(completeConfig(where, config), fail, (key) => key);
  const fields: Record<string, unknown> = { ...OTHER_FIELDS };
  for (const key of KEYS) fields[snakeCase(key)] = full[key];
  const texts: Record<string, string> = {
    lora_alpha: Number.isSafeInteger(full.loraAlpha) ? String(full.loraAlpha) : pythonFloat(full.loraAlpha),
    lora_dropout: pythonFloat(full.loraDropout),
  };
  const lines = Object.keys(fields)
    .sort()
    .map((key) => `  "${key}": ${texts[key] ?? JSON.stringify(fields[key], null, 2).replaceAll("\n", "\n  ")}`);
  // PEFT opens the file in the locale's encoding, so nothing but ASCII is safe.
  return `{\n${lines.join(",\n")}\n}`.replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * All fields, checked but for initLoraWeights; an omitted one has PEFT's default.
 * @throws ArgumentError for no config, a field that is not valid or that there is none of
 */
export function completeConfig(where: string, config: Options<LoraConfig>): LoraConfig {
  if (config === undefined)
    throw new ArgumentError(
      `${where}: a config is needed, as in { r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] }; got ` +
        `undefined.`,
    );
  checkOptions(where, config, KEYS);
  const full = checkFields(withDefaults<LoraConfig>(DEFAULTS, config), refuse(where), (key) => key);
  checkTogether(full, refuse(where), (key) => key);
  return full;
}

/** @throws ArgumentError for a task type that PEFT would not load */
export function checkTaskType(where: string, { taskType }: LoraConfig): void {
  if (taskType === null || TASK_TYPES.includes(taskType)) return;
  const likely = nearest(taskType, TASK_TYPES);
  refuse(where)(
    `taskType is ${show(taskType)}, which PEFT does not know; expected ${TASK_TYPES.join(", ")} or ` +
      `null${likely ? `; did you mean ${likely}?` : ""}`,
  );
}

function refuse(where: string): (message: string) => never {
  return (message) => {
    throw new ArgumentError(`${where}: ${message}.`);
  };
}

/**
 * Python's repr: the shortest digits as in JavaScript, but always a point or an exponent, and exponents from 1e16 and
 * below 1e-4.
 */
function pythonFloat(value: number): string {
  const [digits, exponent] = value.toExponential().split("e") as [string, string];
  const power = Number(exponent);
  if (power >= -4 && power < 16) return Number.isInteger(value) ? `${value}.0` : String(value);
  return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

/**
 * The config of an adapter_config.json.
 *
 * @param name of the file, for errors
 * @throws FormatError naming the key that is wrong or asks for what is not ours
 */
export function parsePeftConfig(json: unknown, name: string): LoraConfig {
  const fail = (message: string): never => {
    throw new FormatError(`${name}: ${message}.`);
  };
  if (typeof json !== "object" || json === null || Array.isArray(json)) return fail("the file holds no JSON object");
  const { peft_type, ...others } = json as Record<string, unknown>;
  if (peft_type !== "LORA") fail(`peft_type is ${show(peft_type)}; only "LORA" is supported`);
  const config: Record<keyof LoraConfig, unknown> = { ...DEFAULTS };
  for (const key of KEYS) {
    const given = others[snakeCase(key)];
    if (given !== undefined) config[key] = given;
    delete others[snakeCase(key)];
  }
  if (FOREIGN_INITS.includes(config.initLoraWeights)) config.initLoraWeights = true;
  for (const key of ["ensureWeightTying", "loraBias"] as const) if (isOff(config[key])) config[key] = false;
  for (const key of ["targetParameters", "trainableTokenIndices", "layerReplication"] as const)
    if (isOff(config[key])) config[key] = null;
  for (const [key, value] of Object.entries(others)) {
    if (!INFORMATIVE_KEYS.has(key) && !isOff(value)) fail(`${key} is ${show(value)}; this feature is not supported`);
  }
  const full = checkPortable(checkFields(config, fail, snakeCase), fail, snakeCase);
  checkTogether(full, fail, snakeCase);
  return full;
}

/** Refuses a folder whose reader cannot have the base that it was trained on. */
function checkPortable(config: LoraConfig, fail: (message: string) => never, spell: Spell): LoraConfig {
  if (!PORTABLE_INITS.includes(config.initLoraWeights)) {
    fail(
      `${spell("initLoraWeights")} is ${show(config.initLoraWeights)}, which changes or may change the base weights ` +
        "by what the folder does not have; convert the adapter to plain LoRA (PEFT: " +
        "path_initial_model_for_weight_conversion)",
    );
  }
  return config;
}

/** The value of a feature not in use: null, false, or an empty list, object or string. */
function isOff(value: unknown): boolean {
  return (
    value === null || value === false || value === "" || (typeof value === "object" && Object.keys(value).length === 0)
  );
}

/** How a field is called where the config came from. */
type Spell = (key: keyof LoraConfig) => string;

function checkFields(
  config: Record<keyof LoraConfig, unknown>,
  fail: (message: string) => never,
  spell: Spell,
): LoraConfig {
  const check = (key: keyof LoraConfig, valid: (value: never) => boolean, expected: string): void => {
    if (!valid(config[key] as never)) fail(`${spell(key)} is ${show(config[key])}; expected ${expected}`);
  };
  const isRank = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;
  // Beyond float32 a product with zeros is no number.
  const isScale = (value: unknown): boolean => typeof value === "number" && Number.isFinite(Math.fround(value));
  const isBoolean = (value: unknown): boolean => typeof value === "boolean";
  const isText = (value: unknown): boolean => value === null || typeof value === "string";
  const isNames = (value: unknown): boolean => Array.isArray(value) && value.every((name) => typeof name === "string");
  const isIndex = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
  const isIndices = (value: unknown): boolean =>
    Array.isArray(value) && value.length > 0 && value.every(isIndex) && new Set(value).size === value.length;
  const isRange = (value: unknown): boolean =>
    Array.isArray(value) && value.length === 2 && value.every(isIndex) && value[0] < value[1];
  const isRecord = (value: unknown, valid: (value: unknown) => boolean): boolean =>
    typeof value === "object" && value !== null && !Array.isArray(value) && Object.values(value).every(valid);

  check("r", isRank, "a positive integer");
  check("loraAlpha", isScale, "a number that is finite in float32");
  check(
    "loraDropout",
    (value: number) => Number.isFinite(value) && value >= 0 && value < 1,
    "a number from 0 to below 1",
  );
  check(
    "targetModules",
    (value: unknown) => isText(value) || isNames(value),
    'a list of module names, a pattern, "all-linear" or null',
  );
  check(
    "targetParameters",
    (value: unknown) => value === null || (isNames(value) && (value as string[]).length > 0),
    "a list of names of parameters or null",
  );
  check(
    "excludeModules",
    (value: unknown) => isText(value) || isNames(value),
    "a list of module names, a pattern or null",
  );
  check(
    "layersToTransform",
    (value: unknown) => value === null || isIndex(value) || (Array.isArray(value) && value.every(isIndex)),
    "the index of a layer, a list of them or null",
  );
  check("layersPattern", (value: unknown) => isText(value) || isNames(value), "a pattern, a list of them or null");
  check("rankPattern", (value: unknown) => isRecord(value, isRank), "an object of patterns and positive integers");
  check(
    "alphaPattern",
    (value: unknown) => isRecord(value, isScale),
    "an object of patterns and numbers that are finite in float32",
  );
  check("fanInFanOut", isBoolean, "true or false");
  check("bias", (value: string) => ["none", "all", "lora_only"].includes(value), '"none", "all" or "lora_only"');
  check("useRslora", isBoolean, "true or false");
  check("useDora", isBoolean, "true or false");
  check("loraBias", isBoolean, "true or false");
  check(
    "modulesToSave",
    (value: unknown) => value === null || (isNames(value) && !(value as string[]).includes("")),
    "a list of module names or null",
  );
  check(
    "trainableTokenIndices",
    (value: unknown) => value === null || isIndices(value) || isRecord(value, isIndices),
    "a list of token ids, each once, lists of them by names of modules, or null",
  );
  check(
    "layerReplication",
    (value: unknown) => value === null || (Array.isArray(value) && value.length > 0 && value.every(isRange)),
    "a list of ranges [from, to) of layers or null",
  );
  check("ensureWeightTying", isBoolean, "true or false");
  check("baseModelNameOrPath", isText, "a string or null");
  check("taskType", isText, "a string or null");
  const checked = config as unknown as LoraConfig;
  checkPatterns(checked, fail, spell);
  return checked;
}

function checkPatterns(config: LoraConfig, fail: (message: string) => never, spell: Spell): void {
  const { targetModules, excludeModules, layersPattern, rankPattern, alphaPattern, modulesToSave } = config;
  const patterns: Partial<Record<keyof LoraConfig, readonly string[]>> = {
    targetModules: typeof targetModules === "string" ? [targetModules] : [],
    excludeModules: typeof excludeModules === "string" ? [excludeModules] : [],
    layersPattern: typeof layersPattern === "string" ? [layersPattern] : (layersPattern ?? []),
    rankPattern: Object.keys(rankPattern),
    alphaPattern: Object.keys(alphaPattern),
    // PEFT takes these for patterns too, where it keeps LoRA off them.
    modulesToSave: modulesToSave ?? [],
  };
  for (const [key, list] of Object.entries(patterns)) {
    for (const pattern of list)
      checkPattern(pattern, (message) => fail(`${spell(key as keyof LoraConfig)} has ${show(pattern)}: ${message}`));
  }
}

/** PEFT's own conditions on fields beside each other. */
function checkTogether(config: LoraConfig, fail: (message: string) => never, spell: Spell): void {
  checkLayers(config, fail, spell);
  const { loraBias, targetParameters, initLoraWeights, useDora, loraDropout, fanInFanOut } = config;
  const refuse = (key: keyof LoraConfig, beside: keyof LoraConfig): never =>
    fail(
      `${spell(key)} is ${show(config[key])} beside ${spell(beside)} ${show(config[beside])}; PEFT has no such adapter`,
    );
  if (loraBias && useDora) refuse("loraBias", "useDora");
  if (loraBias && typeof initLoraWeights !== "boolean") refuse("loraBias", "initLoraWeights");
  if (targetParameters === null) return;
  if (useDora) refuse("targetParameters", "useDora");
  if (loraBias) refuse("targetParameters", "loraBias");
  if (loraDropout > 0) refuse("targetParameters", "loraDropout");
  if (fanInFanOut) refuse("targetParameters", "fanInFanOut");
}

/** It does not take index 0 alone for given. */
function checkLayers(
  { targetModules, layersToTransform, layersPattern }: LoraConfig,
  fail: (message: string) => never,
  spell: Spell,
): void {
  const layers = spell("layersToTransform");
  const pattern = spell("layersPattern");
  const given = (value: unknown): string => `${show(value)} beside ${spell("targetModules")} ${show(targetModules)}`;
  if (typeof targetModules === "string") {
    if (layersToTransform !== null) fail(`${layers} is ${given(layersToTransform)}; it needs a list of names there`);
    if (layersPattern !== null) fail(`${pattern} is ${given(layersPattern)}; it needs a list of names there`);
  }
  const hasLayers = typeof layersToTransform === "number" ? layersToTransform > 0 : layersToTransform?.length;
  if (layersPattern?.length && !hasLayers) {
    fail(
      `${pattern} is ${show(layersPattern)}, but ${layers} is ${show(layersToTransform)}; expected indices of ` +
        `layers (0 alone as [0])`,
    );
  }
}

/** config.json of Hugging Face transformers, read strictly: each fault is a FormatError that names the key. */
import { FormatError } from "../runtime/errors.js";
import { asObject, show } from "./json.js";

/**
 * What kind of model it is of: model_type.
 * @param name of the file, for errors
 * @throws FormatError for what is no config.json
 */
export function readModelType(json: unknown, name: string): unknown {
  const config = asObject(json);
  if (!config) throw new FormatError(`${name}: the file holds no JSON object.`);
  // A hub answers in JSON too when it refuses a file.
  if (config.model_type === undefined && typeof config.error === "string")
    throw new FormatError(
      `${name}: the file is a server's answer, ${show(config.error)}, instead of the file; download it again.`,
    );
  return config.model_type;
}

/**
 * What reads the keys of a config.json, one by one.
 * @param name of the file, for errors
 * @param modelType what its model_type must be
 */
export function configReader(json: unknown, name: string, modelType: string) {
  const fail = (message: string): never => {
    throw new FormatError(`${name}: ${message}.`);
  };
  const given = readModelType(json, name);
  if (given !== modelType) fail(`model_type is ${show(given)}; only ${show(modelType)} is supported`);
  const config = asObject(json)!;

  /** The key's value, or the default if the key is absent or null. */
  const read = <T>(key: string, valid: (value: any) => boolean, expected: string, fallback?: T, from = config): T => {
    const value = from[key] ?? fallback;
    if (!valid(value)) fail(`${key} is ${show(value)}; expected ${expected}`);
    return value as T;
  };
  const count = (key: string, fallback?: number): number =>
    read(key, (value) => Number.isSafeInteger(value) && value > 0, "a positive integer", fallback);
  const positive = (key: string, fallback?: number, from?: Record<string, unknown>): number =>
    read(key, (value) => Number.isFinite(value) && value > 0, "a positive number", fallback, from);
  const flag = (key: string, fallback: boolean): boolean =>
    read(key, (value) => typeof value === "boolean", "true or false", fallback);
  const only = (key: string, value: unknown): void => {
    if ((config[key] ?? value) !== value) fail(`${key} is ${show(config[key])}; only ${show(value)} is supported`);
  };
  const tokens = (key: string, fallback: number | null): number | readonly number[] | null => {
    const given = config[key] === undefined ? fallback : config[key];
    const list = Array.isArray(given) ? given : [given];
    const valid = given === null || (list.length > 0 && list.every((id) => Number.isSafeInteger(id) && id >= 0));
    return valid
      ? (given as number | number[] | null)
      : fail(`${key} is ${show(given)}; expected a token's number or a list of them`);
  };
  const token = (key: string, fallback: number | null): number | null => [tokens(key, fallback)].flat()[0]!;
  const quantized = asObject(config["quantization_config"]);
  const isNf4 = quantized?.["load_in_4bit"] === true && (quantized["bnb_4bit_quant_type"] ?? "fp4") === "nf4";
  if (config["quantization_config"] != null && !isNf4)
    fail(
      `quantization_config is ${show(config["quantization_config"])}; only bitsandbytes' load_in_4bit with ` +
        `bnb_4bit_quant_type "nf4" is supported`,
    );
  return { config, fail, count, positive, flag, only, token, tokens };
}

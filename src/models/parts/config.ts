/** Configurations that a program writes itself; those of files are checked by their readers. */
import { ArgumentError } from "../../runtime/errors.js";
import { checkOptions, type Options } from "../../runtime/options.js";
import { checkInteger, checkNumber, shown } from "../../tensor/check.js";
import type { FamilyConfig } from "./family.js";
import { checkStoredAs } from "./stored.js";

/** A configuration for the class of its family, which need not say of which family it is. */
export type ConfigOf<Config extends Pick<FamilyConfig, "modelType">> = Readonly<
  Omit<Config, "modelType"> & Options<Pick<Config, "modelType">>
>;

/** Which keys a configuration must have. */
export interface Sizes {
  /** Positive integers. */
  readonly counts: readonly string[];
  /** Numbers of at least 0. */
  readonly numbers: readonly string[];
}

/**
 * Sizes and dtype of a configuration.
 * @param needed all keys that it must have, for an error
 * @param optional others
 * @throws ArgumentError for a key that is missing, unknown or out of range
 */
export function checkKeys(
  where: string,
  config: unknown,
  { counts, numbers }: Sizes,
  needed: readonly string[],
  optional: readonly string[],
): void {
  if (config === undefined) throw new ArgumentError(`${where}: a configuration is needed, with ${needed.join(", ")}.`);
  checkOptions(where, config, [...needed, ...optional, "modelType", "dtype"]);
  const values = config as Record<string, number>;
  // Layers are made one by one, so a config may not ask for a billion of them.
  for (const key of counts) checkInteger(where, key, values[key]!, 1, key === "numHiddenLayers" ? 10_000 : undefined);
  for (const key of numbers) checkNumber(where, key, values[key]!, 0);
  checkStoredAs(where, (config as FamilyConfig).dtype);
}

/**
 * A decoder's configuration.
 * @param optional keys that the model itself checks
 * @throws ArgumentError for a key that is missing, unknown or out of range
 */
export function checkConfig(
  where: string,
  modelType: string,
  config: unknown,
  counts: readonly string[],
  numbers: readonly string[],
  optional: readonly string[] = [],
): void {
  const others = [...optional, "tieWordEmbeddings", "bosTokenId", "eosTokenId"];
  checkKeys(where, config, { counts, numbers }, [...counts, ...numbers], others);
  const values = config as Record<string, unknown>;
  const given = values["modelType"] ?? modelType;
  if (given !== modelType) throw new ArgumentError(`${where}: modelType must be "${modelType}"; got ${shown(given)}.`);
  const tied = values["tieWordEmbeddings"];
  if (typeof tied !== "boolean")
    throw new ArgumentError(`${where}: tieWordEmbeddings must be true or false; got ${String(tied)}.`);
}

/** Configurations that a program writes itself; those of files are checked by their readers. */
import { ArgumentError } from "../../runtime/errors.js";
import { checkOptions, type Options } from "../../runtime/options.js";
import { checkInteger, checkNumber, shown } from "../../tensor/check.js";
import { WEIGHT_DTYPES } from "../../tensor/dtype.js";
import type { FamilyConfig } from "./family.js";

/** A configuration for the class of its family, which need not say of which family it is. */
export type ConfigOf<Config extends Pick<FamilyConfig, "modelType">> = Readonly<
  Omit<Config, "modelType"> & Options<Pick<Config, "modelType">>
>;

/**
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
  if (config === undefined)
    throw new ArgumentError(`${where}: a configuration is needed, with ${[...counts, ...numbers].join(", ")}.`);
  const others = ["modelType", "dtype", "tieWordEmbeddings", "bosTokenId", "eosTokenId"];
  checkOptions(where, config, [...counts, ...numbers, ...optional, ...others]);
  const values = config as Record<string, number>;
  const given: unknown = values["modelType"] ?? modelType;
  if (given !== modelType) throw new ArgumentError(`${where}: modelType must be "${modelType}"; got ${shown(given)}.`);
  const { dtype = "float32" } = config as FamilyConfig;
  if (!WEIGHT_DTYPES.includes(dtype))
    throw new ArgumentError(`${where}: dtype must be one of ${WEIGHT_DTYPES.join(", ")}; got ${shown(dtype)}.`);
  // Layers are made one by one, so a config may not ask for a billion of them.
  for (const key of counts) checkInteger(where, key, values[key]!, 1, key === "numHiddenLayers" ? 10_000 : undefined);
  for (const key of numbers) checkNumber(where, key, values[key]!, 0);
  if (typeof values["tieWordEmbeddings"] !== "boolean")
    throw new ArgumentError(
      `${where}: tieWordEmbeddings must be true or false; got ${String(values["tieWordEmbeddings"])}.`,
    );
}

/** Which keys a layer's queries see, where a model's layers differ in it: transformers' layer_types. */
import type { configReader } from "../../io/config_reader.js";
import { show } from "../../io/json.js";
import { ArgumentError } from "../../runtime/errors.js";
import { shown } from "../../runtime/shown.js";

/** The whole text, or a window of it. */
export type LayerType = "full_attention" | "sliding_attention";

const EXPECTED = 'expected "full_attention" or "sliding_attention" for each of';

function areLayerTypes(given: unknown, layers: number): given is LayerType[] {
  const isType = (type: unknown): boolean => type === "full_attention" || type === "sliding_attention";
  return Array.isArray(given) && given.length === layers && given.every(isType);
}

/** layer_types; undefined: the file says nothing of them. @throws FormatError unless there is one for each layer */
export function readLayerTypes(
  { config, fail }: ReturnType<typeof configReader>,
  layers: number,
): readonly LayerType[] | undefined {
  const given: unknown = config["layer_types"] ?? undefined;
  return given === undefined || areLayerTypes(given, layers)
    ? given
    : fail(`layer_types is ${show(given)}; ${EXPECTED} ${layers} layers`);
}

/** Of a configuration that a program writes itself. @throws ArgumentError unless there is one for each layer */
export function checkLayerTypes(where: string, given: unknown, layers: number): void {
  if (!areLayerTypes(given, layers))
    throw new ArgumentError(`${where}: layerTypes is ${shown(given)}; ${EXPECTED} ${layers} layers.`);
}

/** The configuration of a model's first layers. */
export function ofFirstLayers<C extends { readonly numHiddenLayers: number }>(config: C, count: number): C {
  const { layerTypes } = config as C & { readonly layerTypes?: readonly LayerType[] | undefined };
  return { ...config, numHiddenLayers: count, ...(layerTypes ? { layerTypes: layerTypes.slice(0, count) } : {}) };
}

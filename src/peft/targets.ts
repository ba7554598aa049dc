/** What a config means in a model: the layers it adapts, the modules it copies, and the names that mean nothing. */
import { show } from "../io/json.js";
import type { LoraConfig } from "../io/peft/config.js";
import { Matching } from "../io/peft/match.js";
import { Endings } from "../io/peft/names.js";
import { endsOf } from "../io/peft/paths.js";
import type { Module } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../tensor/check.js";
import { LoraLayer } from "./layer.js";
import { meant, outputEmbeddings, places, tiedPlaces, type Place } from "./places.js";
import { isAdaptable, isLinear, wrap } from "./wrap.js";

/** A layer that an adapter takes in. */
export interface Part {
  path: string;
  layer: LoraLayer;
  r: number;
  scaling: number;
}

/** A part, and where its layer belongs, which may not be there yet. */
export interface Target {
  place: Place;
  part: Part;
}

/**
 * The modules that a config targets, wrapped if they are not yet; nothing is changed.
 * @throws ArgumentError for one that cannot be adapted, or the second of two with one weight
 */
export function targetsOf(where: string, model: Module, config: LoraConfig): Target[] {
  return findTargets(where, model, config).targets;
}

function findTargets(where: string, model: Module, config: LoraConfig): { targets: Target[]; matching: Matching } {
  const head = outputEmbeddings(model);
  const all = [...places(model)];
  const owners = new Map<Module, string>(
    all.flatMap(({ path, module }) => (module instanceof LoraLayer ? [[module.baseLayer, path]] : [])),
  );
  const matching = new Matching(config, (message) => {
    throw new ArgumentError(`${where}: ${message}.`);
  });
  const targets: Target[] = [];
  for (const place of all) {
    const { path, module } = place;
    if (!matching.targets(path, isLinear(module), module === head)) continue;
    const layer = wrap(where, path, module);
    const owner = owners.get(layer.baseLayer) ?? path;
    if (owner !== path)
      throw new ArgumentError(
        `${where}: ${owner} and ${path} share their weight, which can be adapted in one place only; name that ` +
          `one's path.`,
      );
    owners.set(layer.baseLayer, path);
    targets.push({ place, part: { path, layer, r: matching.rank(path), scaling: matching.scaling(path) } });
  }
  return { targets, matching };
}

/** The modules that a config copies; with ensureWeightTying table and head go together. */
export function copiedPlaces(model: Module, { modulesToSave, ensureWeightTying }: LoraConfig): Place[] {
  const saved = new Endings(modulesToSave ?? []);
  const named = [...places(model)].filter(({ path }) => saved.hold(path));
  const tied = ensureWeightTying ? tiedPlaces(model) : null;
  const both = tied ? [tied.table, tied.head] : [];
  const isNamed = ({ path }: Place): boolean => named.some((place) => place.path === path);
  return both.some(isNamed) ? [...named, ...both.filter((place) => !isNamed(place))] : named;
}

/**
 * PEFT lets names that match nothing pass; in a new config they are slips. (It writes some itself: "classifier" and
 * "score" for every SEQ_CLS.)
 * @throws ArgumentError for an entry that says nothing about this model, with what it may stand for
 */
export function checkEntries(where: string, model: Module, config: LoraConfig): void {
  const all = [...places(model)];
  const paths = all.map(({ path }) => path);
  if (typeof config.targetModules !== "string") {
    const ends = new Set(paths.flatMap(endsOf));
    const unknown = config.targetModules.find((name) => !ends.has(name));
    if (unknown !== undefined) throw noTarget(where, model, [unknown]);
  }
  const saved = new Endings(config.modulesToSave ?? []);
  const found = new Set(paths.flatMap((path) => [...saved.of(path, path.length)]));
  const absent = config.modulesToSave?.find((name) => !found.has(name));
  if (absent !== undefined)
    throw new ArgumentError(
      `${where}: modulesToSave holds ${shown(absent)}, which matches no module.${meant(absent, paths)}`,
    );
  const { targets, matching } = findTargets(where, model, config);
  const idle = matching.idle(
    all.filter(({ module }) => isAdaptable(module)).map(({ path }) => path),
    targets.map(({ part }) => part.path),
  );
  if (idle && (targets.length > 0 || idle.field.startsWith("layers")))
    throw new ArgumentError(
      `${where}: ${idle.field} holds ${shown(idle.entry)}, which ${idle.why}.${meant(String(idle.entry), idle.near)}`,
    );
}

/** What to throw where targetModules match nothing. */
export function noTarget(
  where: string,
  model: Module,
  targetModules: LoraConfig["targetModules"],
  base: string | null = null,
): ArgumentError {
  const all = [...places(model)];
  const linears = new Set(all.flatMap(({ name, module }) => (isLinear(module) ? [name] : [])));
  const isName = typeof targetModules === "string" && all.some(({ path }) => endsOf(path).includes(targetModules));
  const advice = isName
    ? ` A string is a pattern for whole paths; a name stands in a list: [${show(targetModules)}].`
    : targetModules.length === 1
      ? meant(
          targetModules[0]!,
          all.map(({ path }) => path),
        )
      : "";
  const names = [...linears].slice(0, 12).join(", ") || "nothing: there are none";
  const made = base === null ? "" : ` The adapter was made for ${show(base)}.`;
  return new ArgumentError(
    `${where}: targetModules = ${show(targetModules)} matches no module; the model's linear layers are called ` +
      `${names}.${advice}${made}`,
  );
}

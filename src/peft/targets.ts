/** What a config means in a model: the layers it adapts, the modules it copies, and the names that mean nothing. */
import { show } from "../io/json.js";
import type { LoraConfig } from "../io/peft/config.js";
import { BASE_LAYER } from "../io/peft/keys.js";
import { isAllLinear, Matching } from "../io/peft/match.js";
import { Endings } from "../io/peft/names.js";
import { endsOf } from "../io/peft/paths.js";
import { Linear } from "../nn/layers.js";
import type { Module } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import { className } from "../runtime/shown.js";
import { shown } from "../tensor/check.js";
import { LoraLayer } from "./layer.js";
import { inputEmbeddings, meant, outputEmbeddings, places, tiedPlaces, type Place } from "./places.js";
import { isPlain } from "./plain.js";
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
  const head = outputEmbeddings(model) ?? classifierOf(model, config);
  const all = [...places(model)];
  // PEFT's "all-linear" adapts a layer beside the copy of it that trains (pre_classifier, by its end).
  const copied = isAllLinear(config.targetModules) ? new Endings(config.modulesToSave ?? []) : null;
  const owners = new Map<Module, string>(
    all.flatMap(({ path, module }) => (module instanceof LoraLayer ? [[module.baseLayer, path]] : [])),
  );
  const matching = new Matching(config, (message) => {
    throw new ArgumentError(`${where}: ${message}.`);
  });
  const targets: Target[] = [];
  for (const place of all) {
    const { path, module } = place;
    const isParameter = targetsWeight(where, path, module, matching);
    if (!copied?.hold(path) && matching.targets(path, isLinear(module), module === head)) {
      if (isParameter)
        throw new ArgumentError(`${where}: ${path} matches targetModules, and its weight targetParameters; name one.`);
    } else if (!isParameter) continue;
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

/**
 * Whether targetParameters name a module's weight.
 * @throws ArgumentError for another parameter that they name
 */
function targetsWeight(where: string, path: string, module: Module, matching: Matching): boolean {
  const base = module instanceof LoraLayer ? module.baseLayer : module;
  const named = [...base.ownParameters()]
    .map(([name]) => name)
    .filter((name) => matching.targetsParameter(`${path}.${name}`));
  if (named.length === 0) return false;
  const isWeight = isPlain(base, Linear) && !base.fanInFanOut && named.join() === "weight";
  if (isWeight) return true;
  throw new ArgumentError(
    `${where}: targetParameters names ${path}.${named[0]}, of shape ` +
      `[${[...base.ownParameters()].find(([name]) => name === named[0])![1].shape}] in a ${className(base)}; only ` +
      `weights [outFeatures, inFeatures] of nn.Linear (without fanInFanOut) can be adapted so.`,
  );
}

/** A module whose rows an adapter trains. */
export interface TokenPlace extends Place {
  indices: readonly number[];
  /** Whether it is a table and a head follows, or that head. */
  tied: "table" | "head" | null;
}

/**
 * The modules of which a config trains rows: the table of a list, or those that a record names; tables before the heads
 * that follow them.
 * @throws ArgumentError for what there is not, or where a table and a head that are one weight are to have other rows
 */
export function tokenPlaces(where: string, model: Module, config: LoraConfig): TokenPlace[] {
  const { trainableTokenIndices: given, ensureWeightTying } = config;
  if (given === null) return [];
  const fail = (message: string): never => {
    throw new ArgumentError(`${where}: trainableTokenIndices ${message}.`);
  };
  const all = [...places(model)];
  const found = new Map<string, TokenPlace>();
  const add = (place: Place, indices: readonly number[]): void => {
    const rows = (place.module as { weight?: { shape: readonly number[] } }).weight?.shape[0] ?? 0;
    const beyond = indices.find((id) => id >= rows);
    if (rows > 0 && beyond !== undefined) fail(`holds ${beyond}; ${place.path} has rows 0 .. ${rows - 1}`);
    found.set(place.path, { ...place, indices, tied: null });
  };
  if (Array.isArray(given)) {
    // The table, which PEFT looks for by name in a model that does not tell.
    const table = inputEmbeddings(model);
    const meant = all.filter(({ path, module }) => (table ? module === table : path.endsWith("embed_tokens")));
    if (meant.length === 0)
      fail(
        "is a list, and the model does not tell its embedding table (getInputEmbeddings); name its path, as in " +
          "{ embed_tokens: [1, 2] }",
      );
    for (const place of meant) add(place, given as readonly number[]);
  } else {
    const lists = given as Readonly<Record<string, readonly number[]>>;
    const ends = new Endings(Object.keys(lists));
    const used = new Set<string>();
    for (const place of all)
      for (const end of ends.of(place.path, place.path.length)) {
        used.add(end);
        add(place, lists[end]!);
      }
    const idle = Object.keys(lists).find((end) => !used.has(end));
    if (idle !== undefined) fail(`names ${shown(idle)}, which ends no module's path`);
  }
  const tied = tiedPlaces(model);
  const own = tied && found.get(tied.table.path);
  if (!tied || !own) return [...found.values()];
  const ofHead = found.get(tied.head.path);
  const isOther = ofHead && ofHead.indices.join() !== own.indices.join();
  if (isOther && ensureWeightTying)
    fail(`has other tokens for ${tied.head.path} than for ${tied.table.path}, which ensureWeightTying does not allow`);
  if (isOther) return [...found.values()];
  own.tied = "table";
  found.delete(tied.head.path);
  return [...found.values(), { ...tied.head, indices: own.indices, tied: "head" }];
}

/** The head of a model that classifies sequences, by the names that PEFT looks for. */
function classifierOf(model: Module, { taskType }: LoraConfig): Module | null {
  if (taskType !== "SEQ_CLS") return null;
  const children = new Map(model.children());
  return children.get("score") ?? children.get("classifier") ?? null;
}

/** The modules that a config copies; with ensureWeightTying table and head go together. */
export function copiedPlaces(model: Module, { modulesToSave, ensureWeightTying }: LoraConfig): Place[] {
  const saved = new Endings(modulesToSave ?? []);
  const named = [...places(model)].filter(({ path }) => saved.hold(path));
  const tied = ensureWeightTying ? tiedPlaces(model) : null;
  const both = tied ? [tied.table, tied.head] : [];
  const isNamed = ({ path }: Place): boolean => named.some((place) => place.path === path);
  const all = both.some(isNamed) ? [...named, ...both.filter((place) => !isNamed(place))] : named;
  // What is in a copied module is copied with it.
  return all.filter(({ path }) => !all.some((other) => path.startsWith(`${other.path}.`)));
}

/** What heads are called that train with an adapter for a task. */
const HEADS: Readonly<Record<string, readonly string[]>> = {
  SEQ_CLS: ["classifier", "score"],
  TOKEN_CLS: ["classifier", "score"],
  QUESTION_ANS: ["qa_outputs"],
};

function headsOfTask({ taskType }: LoraConfig): readonly string[] {
  return HEADS[taskType ?? ""] ?? [];
}

/** The config with the heads of its task in modulesToSave. Source: PEFT, PeftModelForSequenceClassification. */
export function withHeads(config: LoraConfig): LoraConfig {
  const heads = headsOfTask(config);
  if (heads.length === 0) return config;
  return { ...config, modulesToSave: [...new Set([...(config.modulesToSave ?? []), ...heads])] };
}

/**
 * PEFT lets names that match nothing pass; in a new config they are slips, but for those of its task's heads.
 * @throws ArgumentError for an entry that says nothing about this model, with what it may stand for
 */
export function checkEntries(where: string, model: Module, config: LoraConfig): void {
  const all = [...places(model)];
  const paths = all.map(({ path }) => path);
  const { targetModules } = config;
  if (targetModules !== null && typeof targetModules !== "string") {
    const ends = new Set(paths.flatMap(endsOf));
    const unknown = targetModules.find((name) => !ends.has(name));
    if (unknown !== undefined) throw noTarget(where, model, { ...config, targetModules: [unknown] });
  }
  const parameters = [...model.namedParameters()].map(([path]) => path.replace(`.${BASE_LAYER}.`, "."));
  const parameterEnds = new Set(parameters.flatMap(endsOf));
  const noParameter = config.targetParameters?.find((name) => !parameterEnds.has(name));
  if (noParameter !== undefined)
    throw new ArgumentError(
      `${where}: targetParameters holds ${shown(noParameter)}, which matches no parameter.` +
        meant(noParameter, parameters),
    );
  const saved = new Endings(config.modulesToSave ?? []);
  const found = new Set(paths.flatMap((path) => [...saved.of(path, path.length)]));
  const byTask = headsOfTask(config);
  const absent = config.modulesToSave?.find((name) => !found.has(name) && !byTask.includes(name));
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
  { targetModules: targets, targetParameters, baseModelNameOrPath: base }: LoraConfig,
): ArgumentError {
  const targetModules = targets ?? [];
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
  const made = base === null ? "" : ` The adapter names ${show(base)} as its base.`;
  const isParameters = targetModules.length === 0 && targetParameters !== null;
  const what = isParameters ? `targetParameters = ${show(targetParameters)}` : `targetModules = ${show(targetModules)}`;
  return new ArgumentError(
    `${where}: ${what} matches no module; the model's linear layers are called ` + `${names}.${advice}${made}`,
  );
}

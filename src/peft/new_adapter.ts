/**
 * A new adapter in a model: everything is matched, checked, allocated and filled first, and what puts it in place
 * cannot fail. So an adapter is there whole, or the model is as it was.
 */
import type { LoraConfig } from "../io/peft/config.js";
import { changed } from "../nn/extent.js";
import { type Module, Parameter } from "../nn/module.js";
import { drawFor } from "../random/seed.js";
import { ArgumentError } from "../runtime/errors.js";
import { scope } from "../tensor/scope.js";
import type { Adapter, Factors } from "./layer.js";
import { ModulesToSave } from "./modules_to_save.js";
import { StandIn } from "./stand_in.js";
import { type Place, tiedPlaces } from "./places.js";
import { copiedPlaces, noTarget, type Part, targetsOf, type TokenPlace, tokenPlaces } from "./targets.js";
import { rowsOf, TrainableTokens } from "./trainable_tokens.js";

/** Where an adapter's values come from. What one of these throws leaves the model as it was. */
export interface Source {
  /** Called first, on the model with the layers that the config asks for. */
  check?(): void;
  /** Sets the factors of a part. */
  factors(part: Part, factors: Factors): Pick<Adapter, "initial"> | void;
  /** Changes DoRA's magnitude, which holds the norms of W + s B A. */
  magnitude?(part: Part, magnitude: Parameter): void;
  /** Changes a copy made for modulesToSave. */
  copy?(path: string, module: Module): void;
  /** Changes rows of tokens, which are the table's own. */
  tokens?(path: string, rows: Parameter): void;
  /** Called last, before the adapter is put in. */
  ready?(parts: readonly Part[]): void;
}

/** Makes all that an adapter needs and returns what puts it in place. If it throws, nothing has changed. */
export function prepareAdapter(
  where: string,
  model: Module,
  adapterName: string,
  config: LoraConfig,
  source: Source,
): () => void {
  source.check?.();
  return drawFor(model, () => {
    const targets = targetsOf(where, model, config);
    const copied = copiedPlaces(model, config);
    if (targets.length === 0) throw noTarget(where, model, config);
    const parts = targets.map(({ part }) => part);
    const tokens = tokenPlaces(where, model, config);
    checkApart(where, parts, copied, tokens);
    checkTied(where, model, config, parts);
    const undo: (() => void)[] = [];
    const commit: (() => void)[] = [];
    const shared = config.ensureWeightTying ? new Map<Parameter, Parameter>() : null;
    try {
      for (const { place, part } of targets) {
        const adapter = makeAdapter(where, part, config, source, undo);
        commit.push(() => {
          place.parent.replaceChild(place.name, part.layer);
          part.layer.adapters.set(adapterName, adapter);
        });
      }
      for (const { path, parent, name, module } of copied) {
        const wrapper =
          module instanceof ModulesToSave ? module : new ModulesToSave(`${where}: modulesToSave: ${path}`, module);
        const copy = new StandIn(`${where}: modulesToSave: ${path}`, wrapper.originalModule, shared);
        undo.push(() => copy.dispose());
        source.copy?.(path, copy);
        commit.push(() => {
          parent.replaceChild(name, wrapper);
          wrapper.modulesToSave.set(adapterName, copy);
        });
      }
      const table: { wrapper: TrainableTokens; rows: Parameter }[] = [];
      for (const { path, parent, name, module, indices, tied } of tokens) {
        const wrapper =
          module instanceof TrainableTokens
            ? module
            : new TrainableTokens(`${where}: trainableTokenIndices: ${path}`, module);
        const follows = tied === "head" ? table[0] : undefined;
        const rows =
          follows?.rows ??
          new Parameter([indices.length, wrapper.weight.shape[1]!]).set(rowsOf(wrapper.weight, indices));
        if (!follows) {
          undo.push(() => rows.dispose());
          source.tokens?.(path, rows);
        }
        if (tied === "table") table.push({ wrapper, rows });
        commit.push(() => {
          parent.replaceChild(name, wrapper);
          wrapper.tokens.set(adapterName, {
            indices,
            rows,
            hasHead: tied === "table",
            table: follows?.wrapper ?? null,
          });
        });
      }
      source.ready?.(parts);
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
    return () => {
      changed();
      for (const step of commit) step();
    };
  });
}

/** Inits that take the first product out of the base weight. */
export function changesBaseWeight({ initLoraWeights: init }: LoraConfig): boolean {
  return typeof init === "string" && /^(pissa|olora)/.test(init);
}

/** @throws ArgumentError for a module of which two of adapting, copying and training rows are to be done */
function checkApart(
  where: string,
  parts: readonly Part[],
  copied: readonly Place[],
  tokens: readonly TokenPlace[],
): void {
  const isIn = (path: string, place: Place): boolean => path === place.path || path.startsWith(`${place.path}.`);
  const both = tokens.find(
    ({ path }) => parts.some((other) => other.path === path) || copied.some((place) => isIn(path, place)),
  );
  if (both)
    throw new ArgumentError(
      `${where}: ${both.path} has trained tokens (trainableTokenIndices), so it can be neither adapted nor copied; ` +
        `take it out of targetModules and modulesToSave.`,
    );
  const twice = parts.find(({ path }) => copied.some((place) => isIn(path, place)));
  if (twice)
    throw new ArgumentError(
      `${where}: ${twice.path} matches targetModules and, by the end of its path, modulesToSave; what is copied, and ` +
        `all in it, is not adapted.`,
    );
}

/** @throws ArgumentError for what cannot be where the head is the table */
function checkTied(where: string, model: Module, config: LoraConfig, parts: readonly Part[]): void {
  const tied = tiedPlaces(model);
  const part = tied && [tied.table.path, tied.head.path].find((path) => parts.some((part) => part.path === path));
  if (!tied || part === null || part === undefined) return;
  if (changesBaseWeight(config)) {
    throw new ArgumentError(
      `${where}: initLoraWeights = "${String(config.initLoraWeights)}" changes the weight of ${part}, which ` +
        `${tied.table.path} and ${tied.head.path} share; exclude it.`,
    );
  }
  if (config.ensureWeightTying)
    throw new ArgumentError(
      `${where}: ensureWeightTying with an adapter on ${part}, which is tied, is not supported; name ` +
        `${tied.table.path} in modulesToSave instead.`,
    );
}

/** Pushes to `undo` what takes it back. */
function makeAdapter(where: string, part: Part, config: LoraConfig, source: Source, undo: (() => void)[]): Adapter {
  const { layer, r, scaling } = part;
  const owned = (shape: readonly number[]): Parameter => {
    const p = new Parameter(shape);
    undo.push(() => p.dispose());
    return p;
  };
  const [a, b] = layer.factorShapes(r, `${where}: ${part.path}`);
  const loraA = owned(a);
  const loraB = owned(b);
  if (config.loraBias && layer.kind === "embedding")
    throw new ArgumentError(`${where}: ${part.path} is an embedding, which cannot have loraBias; leave it out.`);
  const loraBias = config.loraBias ? owned([b[0]!]) : null;
  const { initial = null } = source.factors(part, { loraA, loraB, loraBias }) ?? {};
  if (initial) undo.push(() => layer.weight.restore(initial.weight));
  let magnitude: Parameter | null = null;
  if (config.useDora) {
    layer.checkDense(`${where}: ${part.path}`);
    magnitude = scope(() => {
      const norm = layer.norm({ loraA, loraB, scaling });
      return owned(norm.shape).set(norm.data);
    });
    source.magnitude?.(part, magnitude);
  }
  return { loraA, loraB, loraBias, magnitude, r, scaling, loraDropout: config.loraDropout, initial };
}

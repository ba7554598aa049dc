/**
 * PEFT's way to LoRA: wrap the layers of a finished model, keep any number of adapters on it, choose,
 * mix and merge them.
 * Source: huggingface/peft 0.20, peft_model.py, tuners/tuners_utils.py, tuners/lora/model.py.
 */
import type { LoraConfig } from "../io/peft/config.js";
import { show } from "../io/json.js";
import { checkTaskType, completeConfig } from "../io/peft/config.js";
import { Endings, Matching } from "../io/peft/match.js";
import { escapePattern } from "../io/peft/python_regexp.js";
import { Embedding, Linear } from "../nn/layers.js";
import { ConvNd } from "../nn/conv.js";
import { changed } from "../nn/extent.js";
import { Module, Parameter } from "../nn/module.js";
import { adopt, drawFor } from "../random/seed.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import { checkOptions, nearest, type Options } from "../runtime/options.js";
import { checkCallback, refuseLazy } from "../runtime/synchronous.js";
import { checkBoolean, shown } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { LoraConv } from "./conv.js";
import { LoraEmbedding } from "./embedding.js";
import { type Adapter, BASE, LoraLayer } from "./layer.js";
import { LoraLinear } from "./linear.js";
import { hotswapAdapter, loadAdapter, saveAdapter } from "./files.js";
import { ModulesToSave } from "./modules_to_save.js";
import type { CombinationType } from "./weighted.js";
import { addWeighted } from "./weighted_adapter.js";

/** A layer that an adapter takes in. */
export interface Part {
  path: string;
  layer: LoraLayer;
  r: number;
  scaling: number;
}

/** Where an adapter's values come from. What throws leaves the model as it was. */
export interface Source {
  /** Sets the factors of a part. */
  factors(part: Part, loraA: Parameter, loraB: Parameter): Pick<Adapter, "initial"> | void;
  /** Changes DoRA's magnitude, which holds the norms of W + s B A. */
  magnitude?(part: Part, magnitude: Parameter): void;
  /** Changes a copy made for modulesToSave. */
  copy?(path: string, module: Module): void;
  /** Called last, before the adapter is put in. */
  ready?(parts: readonly Part[]): void;
}

/** What a method of a model takes and gives. */
type Arguments<M, Name extends string> = M extends Record<Name, (...args: infer A) => unknown> ? A : never;
type Result<M, Name extends string> = M extends Record<Name, (...args: never[]) => infer R> ? R : never;

/**
 * Wraps the modules of `model` that `config` targets, in place, with PEFT's matching rules, and freezes
 * everything but the new adapter (and what config.bias and config.modulesToSave ask for).
 *
 * Source: PEFT, get_peft_model.
 * @param config fields that are left out have PEFT's defaults: r = 8, loraAlpha = 8, ...
 * @throws ArgumentError if nothing or something that cannot be adapted matches; then the model is as it was
 *
 * @example
 * const { model } = models.loadLlama("models/base");
 * const adapted = peft.getLoraModel(model, { r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] });
 * adapted.printTrainableParameters(); // trainable params: 14,336 || all params: 932,992 || trainable%: 1.5366
 */
export function getLoraModel<M extends Module>(
  model: M,
  config: Options<LoraConfig>,
  adapterName = "default",
): LoraModel<M> {
  const adapted = new LoraModel(model);
  adapted.addAdapter(adapterName, config);
  return adapted;
}

/**
 * A model with adapters. It is called as the wrapped model is (`forward`, `loss`), which `model` holds. State-dict
 * keys are PEFT's: `model.<path>.base_layer.weight`, `model.<path>.lora_A.<adapter>.weight`.
 *
 * Unlike loralib's layers it merges when told, not on eval().
 *
 * Source: PEFT, PeftModel and LoraModel.
 *
 * @example
 * const { model } = models.loadLlama("models/base");
 * const adapted = new peft.LoraModel(model);
 * adapted.addAdapter("anna", { r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] });
 * adapted.addAdapter("ben", { r: 4, targetModules: "all-linear" });
 * adapted.setAdapter("ben");
 * const ids = tensor(new Int32Array([5, 6, 7, 8]), [1, 4]);
 * adapted.loss(ids, ids).backward(); // gradients for ben's factors
 * adapted.savePretrained("ben", "ben");
 */
export class LoraModel<M extends Module = Module> extends Module {
  /** @internal */ static override readonly className: string = "LoraModel";
  readonly #configs = new Map<string, LoraConfig>();
  #active: readonly string[] = [];
  /** Of the calls that run a function with other adapters at work. */
  readonly #inside: string[] = [];

  /** @throws StateError if the model has adapters already */
  constructor(
    /** The wrapped model, which holds the adapted layers. */
    readonly model: M,
  ) {
    super();
    if (!((model as unknown) instanceof Module)) {
      const isLoaded = typeof model === "object" && model !== null && "model" in model;
      throw new ArgumentError(
        `LoraModel: model must be a Module; got ${shown(model)}.${
          isLoaded ? " What was loaded holds it: pass its " + ".model." : ""
        }`,
      );
    }
    if (model instanceof LoraModel)
      throw new StateError("LoraModel: model is a LoraModel already; call its addAdapter() or loadAdapter().");
    adopt(this, model);
    this.training = model.training;
    const [adapted] = this.#layers();
    if (adapted)
      throw new StateError(
        `LoraModel: ${adapted.path} has adapters already; call addAdapter() on the LoraModel that wrapped it.`,
      );
  }

  /** Names of all adapters, oldest first. */
  get adapters(): readonly string[] {
    return [...this.#configs.keys()];
  }
  /** Names of those whose terms are added up and that train. */
  get activeAdapters(): readonly string[] {
    return this.#active;
  }
  /** Adapters that the weights hold now. */
  get mergedAdapters(): readonly string[] {
    return [...new Set(this.#layers().flatMap(({ layer }) => layer.mergedAdapters))];
  }

  /** An adapter's config, all fields filled in. @throws ArgumentError if there is no such adapter */
  config(adapterName: string): LoraConfig {
    const config = this.#configs.get(adapterName);
    if (!config)
      throw new ArgumentError(
        `LoraModel: there is no adapter ${shown(adapterName)}; there are ${this.adapters.join(", ") || "none"}.`,
      );
    return config;
  }

  /**
   * Adds an adapter with factors as `config.initLoraWeights` says. The first one becomes the active one;
   * further ones wait for `setAdapter`.
   * @throws ArgumentError on a wrong config, a name that is taken, or targets that do not fit; StateError while merged,
   * or where another adapter's init changed the base (pissa, olora)
   */
  addAdapter(adapterName: string, config: Options<LoraConfig>): void {
    const full = completeConfig("addAdapter", config);
    checkTaskType("addAdapter", full);
    this.#withHead(() => {
      this.#add(adapterName, full);
    });
  }

  #add(adapterName: string, full: LoraConfig): void {
    const where = "addAdapter";
    // PEFT lets names that match nothing pass; in a new config they are slips. (It writes some itself: "classifier" and
    // "score" for every SEQ_CLS.)
    const paths = [...places(this.model)].map(({ path }) => path);
    if (typeof full.targetModules !== "string") {
      const ends = new Set(paths.flatMap(endsOf));
      const unknown = full.targetModules.find((name) => !ends.has(name));
      if (unknown !== undefined) throw this.#noTarget(where, [unknown]);
    }
    const saved = new Endings(full.modulesToSave ?? []);
    const found = new Set(paths.flatMap((path) => [...saved.of(path, path.length)]));
    const absent = full.modulesToSave?.find((name) => !found.has(name));
    if (absent !== undefined)
      throw new ArgumentError(
        `${where}: modulesToSave holds ${shown(absent)}, which matches no module.${meant(absent, paths)}`,
      );
    const { adapted, matching } = this.#targetPlaces(where, full);
    const layers = [...places(this.model)].filter(({ module }) => isAdaptable(module)).map(({ path }) => path);
    const idle = matching.idle(
      layers,
      adapted.map(({ part }) => part.path),
    );
    if (idle && (adapted.length > 0 || idle.field.startsWith("layers")))
      throw new ArgumentError(
        `${where}: ${idle.field} holds ${shown(idle.entry)}, which ${idle.why}.${meant(String(idle.entry), idle.near)}`,
      );
    this.inject(where, adapterName, full, {
      factors({ path, layer, scaling }, loraA, loraB) {
        const weight = layer instanceof LoraLinear && changesBaseWeight(full) ? layer.weight.data.slice() : null;
        layer.initFactors(full.initLoraWeights, `${where}: ${path}`, loraA, loraB, scaling);
        return { initial: weight && { loraA: loraA.data.slice(), loraB: loraB.data.slice(), weight } };
      },
    });
  }

  /** `addAdapter` with values from anywhere; `where` is the caller, for errors. @internal */
  inject(where: string, adapterName: string, config: LoraConfig, source: Source): void {
    this.#withHead(() => {
      this.#inject(where, adapterName, config, source);
    });
  }

  #inject(where: string, adapterName: string, config: LoraConfig, source: Source): void {
    this.#refuseInside(where);
    this.#checkNewName(where, adapterName);
    this.#refuseMerged(where);
    this.#checkBeside(where, this.adapters, config);
    const commit = drawFor(this.model, () => this.#prepare(where, adapterName, config, source));
    commit();
    this.#configs.set(adapterName, this.#settled(adapterName, config));
    if (this.#active.length === 0) return this.#activate([adapterName]);
    this.#freeze(adapterName);
    this.#setActive(this.#active);
  }

  /** Puts other values in an adapter's place; it stays active or not, and trains or not, as it was. @internal */
  replace(where: string, adapterName: string, config: LoraConfig, source: Source): void {
    this.#refuseInside(where);
    this.config(adapterName);
    this.#refuseMerged(where);
    this.#checkBeside(
      where,
      this.adapters.filter((name) => name !== adapterName),
      config,
    );
    const commit = drawFor(this.model, () => this.#prepare(where, adapterName, config, source));
    const trains = this.#parametersOf(adapterName).some((p) => p.requiresGrad);
    this.#freeze(adapterName);
    this.#free(adapterName);
    commit();
    this.#configs.set(adapterName, this.#settled(adapterName, config));
    for (const p of this.#parametersOf(adapterName)) p.requiresGrad = trains;
    this.#setActive(this.#active);
  }

  /** Runs fn, to which a tied head is a layer; it stays one while there are adapters. */
  #withHead(fn: () => void): void {
    const model = this.model as Partial<HasHead>;
    model.showHead?.();
    try {
      fn();
    } finally {
      if (this.#configs.size === 0) model.hideHead?.();
    }
  }

  /** Of a tied model, while its head is a layer: the places of table and head. */
  #tied(): { table: Place; head: Place } | null {
    const output = this.model.getOutputEmbeddings();
    const all = [...places(this.model)];
    const head = all.find(({ module }) => module === output);
    const table =
      head &&
      all.find(
        (place) =>
          place !== head && baseWeight(place.module) !== null && baseWeight(place.module) === baseWeight(head.module),
      );
    return head && table ? { table, head } : null;
  }

  /** Whether an adapter can stand beside these others: what they share is the base. */
  #checkBeside(where: string, others: readonly string[], config: LoraConfig): void {
    if (others.length === 0) return;
    if (config.bias !== "none") {
      throw new ArgumentError(
        `${where}: bias must be "none" where there are several adapters (biases belong to the base); got ` +
          `"${config.bias}".`,
      );
    }
    if (changesBaseWeight(config)) {
      throw new ArgumentError(
        `${where}: initLoraWeights = "${config.initLoraWeights}" changes the base weights under ` +
          `${others.join(", ")}; use it on a model without adapters.`,
      );
    }
    const changed = this.#layers()
      .flatMap(({ layer }) => [...layer.adapters])
      .find(([name, { initial }]) => initial && others.includes(name))?.[0];
    if (changed !== undefined) {
      throw new StateError(
        `${where}: the init of adapter "${changed}" changed the base weights, so no other can stand beside it; ` +
          "save it, delete it and load it again, as a plain adapter on the base as it was.",
      );
    }
  }

  /** @throws ArgumentError for what cannot be where the head is the table */
  #checkTied(where: string, config: LoraConfig, adapted: readonly string[]): void {
    const tied = this.#tied();
    const part = tied && [tied.table.path, tied.head.path].find((path) => adapted.includes(path));
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

  /** Makes all that an adapter needs and returns what puts it in place. If it throws, nothing has changed. */
  #prepare(where: string, adapterName: string, config: LoraConfig, source: Source): () => void {
    const places = this.#targetPlaces(where, config).adapted;
    const copied = this.#copiedPlaces(config);
    if (places.length === 0) throw this.#noTarget(where, config.targetModules, config.baseModelNameOrPath);
    const twice = copied.find(({ path }) => places.some(({ part }) => part.path === path));
    if (twice)
      throw new ArgumentError(
        `${where}: ${twice.path} matches targetModules and, by the end of its path, modulesToSave.`,
      );
    this.#checkTied(
      where,
      config,
      places.map(({ part }) => part.path),
    );
    const undo: (() => void)[] = [];
    const commit: (() => void)[] = [];
    const shared = config.ensureWeightTying ? new Map<Parameter, Parameter>() : null;
    try {
      for (const { place, part } of places) {
        const adapter = makeAdapter(where, part, config, source, undo);
        commit.push(() => {
          place.parent.replaceChild(place.name, part.layer);
          part.layer.adapters.set(adapterName, adapter);
        });
      }
      for (const { path, parent, name, module } of copied) {
        const wrapper =
          module instanceof ModulesToSave ? module : new ModulesToSave(`${where}: modulesToSave: ${path}`, module);
        const copy = wrapper.copyOriginal(shared);
        undo.push(() => copy.dispose());
        source.copy?.(path, copy);
        commit.push(() => {
          parent.replaceChild(name, wrapper);
          wrapper.modulesToSave.set(adapterName, copy);
        });
      }
      source.ready?.(places.map(({ part }) => part));
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
    return () => {
      changed();
      for (const step of commit) step();
    };
  }

  /**
   * Makes one or several adapters the active ones (their terms are added up) and those alone trainable.
   * Merged adapters are unmerged first, as in PEFT; here that restores the weights' bits.
   * @throws ArgumentError for a name that is not there, or two adapters with a copy of one module (modulesToSave)
   */
  setAdapter(adapterNames: string | readonly string[]): void {
    this.#refuseInside("setAdapter");
    const names =
      typeof adapterNames === "string" ? [adapterNames] : [...new Set(checkedNames("setAdapter", adapterNames))];
    if (names.length === 0)
      throw new ArgumentError(
        "setAdapter: expected at least one adapter name; to run without adapters use disableAdapter().",
      );
    for (const name of names) this.config(name);
    for (const { modulesToSave } of this.#copies()) {
      const rivals = names.filter((name) => modulesToSave.has(name));
      if (rivals.length > 1)
        throw new ArgumentError(
          `setAdapter: ${rivals.join(", ")} have a copy of the same module each (modulesToSave); only one of them ` +
            `can be active.`,
        );
    }
    this.unmergeAdapter();
    this.#activate(names);
  }

  /**
   * Frees an adapter. If it was the only active one, the oldest of the others becomes active, as by `setAdapter`. The
   * base is then as it was, but for biases that the adapter trained.
   * @throws ArgumentError if it is not there; StateError while it is merged
   */
  deleteAdapter(adapterName: string): void {
    this.#refuseInside("deleteAdapter");
    this.config(adapterName);
    this.#refuseMerged("deleteAdapter");
    this.#freeze(adapterName);
    this.#free(adapterName);
    this.#configs.delete(adapterName);
    const active = this.#active.filter((name) => name !== adapterName);
    if (active.length > 0) this.#setActive(active);
    else this.#activate(this.adapters.slice(0, 1));
    if (this.#configs.size === 0) (this.model as Partial<HasHead>).hideHead?.();
  }

  /**
   * Runs fn on the base model alone, also while adapters are merged and where an init changed its weights (pissa,
   * olora); afterwards all is as before.
   * @throws StateError if fn is asynchronous, or adds, merges or chooses adapters; whatever fn throws
   *
   * @example
   * const { model } = models.loadLlama("models/base");
   * const adapted = peft.getLoraModel(model, { targetModules: ["q_proj"] });
   * const ids = tensor(new Int32Array([5, 6, 7]), [1, 3]);
   * const logits = adapted.disableAdapter(() => model.forward(ids)); // [1, 3, 1024]
   */
  disableAdapter<T>(fn: () => T): T {
    return this.#within("disableAdapter", fn, () => [
      ...this.#layers().map(({ layer }) => layer.disable()),
      ...this.#copies().map((wrapper) => wrapper.disable()),
    ]);
  }

  /**
   * Runs fn with one adapter for each item of the batch (its first dimension); "__base__" stands for none.
   * Each item has the bits it has alone, and gradients reach the factors of every trainable adapter named:
   * make several trainable with `setAdapter`. (PEFT allows such batches for inference only.)
   *
   * @throws ArgumentError for an unknown name; StateError while merged, with DoRA, with modulesToSave or if fn
   * is asynchronous, or adds, merges or chooses adapters; ShapeError in fn for a batch of another size
   *
   * @example
   * const { model } = models.loadLlama("models/base");
   * const adapted = peft.getLoraModel(model, { targetModules: ["q_proj"] }, "anna");
   * adapted.addAdapter("ben", { targetModules: ["v_proj"] });
   * adapted.setAdapter(["anna", "ben"]);
   * const ids = tensor(new Int32Array([5, 6, 7, 8, 9, 10]), [3, 2]), targets = tensor(new Int32Array([6, 7, 8, 9, 10,
   * 11]), [3, 2]); const loss = adapted.withAdapterNames(["anna", "ben", "__base__"], () => adapted.model.loss(ids,
   * targets));
   */
  withAdapterNames<T>(adapterNames: readonly string[], fn: () => T): T {
    this.#refuseMerged("withAdapterNames");
    for (const name of new Set(checkedNames("withAdapterNames", adapterNames))) {
      const config = name === BASE ? null : this.config(name);
      const obstacle = config?.modulesToSave?.length ? "has modulesToSave" : config?.useDora ? "uses DoRA" : null;
      if (obstacle)
        throw new StateError(
          `withAdapterNames: adapter "${name}" ${obstacle}, which a batch of mixed adapters cannot have; run its ` +
            `items on their own.`,
        );
    }
    const names = [...adapterNames];
    return this.#within("withAdapterNames", fn, () => {
      // None of these adapters has copies of modules, so items see the original ones, whoever is active.
      const undo = this.#copies().map((wrapper) => wrapper.disable());
      for (const { layer } of this.#layers()) {
        const before = layer.adapterNames;
        undo.push(() => {
          layer.adapterNames = before;
        });
        layer.adapterNames = names;
      }
      return undo;
    });
  }

  /**
   * Adds the active adapters' (or these adapters') products to the weights; the original bits are kept aside.
   * @param options.safeMerge refuse weights that would not be finite (PEFT's safe_merge); then nothing is merged
   * @throws ArgumentError for a name that is not there, a grouped convolution, or values that are not finite;
   * StateError where an output head shares the weight of an adapted embedding
   *
   * @example
   * const { model } = models.loadLlama("models/base");
   * const adapted = peft.getLoraModel(model, { initLoraWeights: false, targetModules: ["q_proj"] });
   * adapted.mergeAdapter();
   * adapted.unmergeAdapter(); // the weights' original bits
   */
  mergeAdapter(
    adapterNames: readonly string[] = this.#active,
    options: { safeMerge?: boolean | undefined } = {},
  ): void {
    this.#refuseInside("mergeAdapter");
    checkOptions("mergeAdapter", options, ["safeMerge"]);
    const { safeMerge = false } = options;
    checkBoolean("mergeAdapter", "safeMerge", safeMerge);
    for (const name of checkedNames("mergeAdapter", adapterNames)) this.config(name);
    const layers = this.#layers();
    const tied = this.#tiedLayer(adapterNames);
    if (tied) {
      throw new StateError(
        `mergeAdapter: ${
          tied.layer instanceof LoraEmbedding
            ? `${tied.path} is the output ` + `head too`
            : `${tied.path} is the embedding table too`
        }, ` + "which its adapter does not act on; run it unmerged, or call mergeAndUnload(), which parts the two.",
      );
    }
    const undo: (() => void)[] = [];
    changed();
    try {
      for (const { path, layer } of layers) undo.push(layer.merge(`mergeAdapter: ${path}`, adapterNames, safeMerge));
    } catch (error) {
      for (const step of undo) step();
      throw error;
    }
  }

  /** A layer whose weight is another's, too, and to which one of these adapters would be merged. */
  #tiedLayer(adapterNames: readonly string[]): { path: string; layer: LoraLayer } | undefined {
    const tied = this.#tied();
    const paths = tied ? [tied.table.path, tied.head.path] : [];
    return this.#layers().find(
      ({ path, layer }) => paths.includes(path) && adapterNames.some((name) => layer.adapters.has(name)),
    );
  }

  /** Gives a tied head a weight of its own; returns what takes that back. */
  #partHead(): () => void {
    const { module } = this.#tied()!.head;
    const head = (module instanceof LoraLayer ? module.baseLayer : module) as { weight: Parameter };
    const { weight } = head;
    const own = (head.weight = new Parameter(weight.shape, false).set(weight.data));
    return () => {
      head.weight = weight;
      own.dispose();
    };
  }

  /** Restores every weight's original bits. */
  unmergeAdapter(): void {
    this.#refuseInside("unmergeAdapter");
    changed();
    for (const { layer } of this.#layers()) layer.unmerge();
  }

  /**
   * Merges and gives back the plain model, without adapters, for good. Parameters and errors as `mergeAdapter`; but
   * where an adapter acts on one of a tied table and head, the two are parted: `config.tieWordEmbeddings` is false
   * then. (PEFT merges into both.)
   *
   * @example
   * const { model } = models.loadLlama("models/base");
   * const merged = peft.getLoraModel(model, { targetModules: ["q_proj"] }).mergeAndUnload();
   * console.log(merged.model.layers[0].selfAttn.qProj instanceof nn.Linear); // true
   */
  mergeAndUnload(adapterNames: readonly string[] = this.#active, options: { safeMerge?: boolean | undefined } = {}): M {
    const join = this.#tiedLayer(checkedNames("mergeAdapter", adapterNames)) ? this.#partHead() : null;
    try {
      this.mergeAdapter(adapterNames, options);
    } catch (error) {
      join?.();
      throw error;
    }
    return this.#unload(adapterNames);
  }

  /** Gives back the plain model as it is without adapters. This object has no adapters then. */
  unload(): M {
    this.#refuseInside("unload");
    this.unmergeAdapter();
    this.#activate([]);
    return this.#unload([]);
  }

  /**
   * Makes a new adapter of others: "cat" and "svd" are the weighted sum of their products, "svd" cut to svdRank;
   * "linear" adds up the factors themselves. It is inactive until `setAdapter`.
   *
   * Source: PEFT, LoraModel.add_weighted_adapter.
   * @param weights one for each adapter, finite; may be negative
   * @param options `combinationType`: default "svd"; `svdRank`: default the largest rank
   * @throws ArgumentError if they cannot be combined (DoRA, biases, modulesToSave, grouped convolutions) or the name is
   * taken; ShapeError for other ranks with "linear"; StateError while merged
   *
   * @example
   * const { model } = models.loadLlama("models/base");
   * const adapted = peft.getLoraModel(model, { r: 8, targetModules: ["q_proj"] }, "anna");
   * adapted.addAdapter("ben", { r: 4, targetModules: ["q_proj"] });
   * adapted.addWeightedAdapter(["anna", "ben"], [0.7, 0.3], "both", { combinationType: "cat" });
   * console.log(adapted.config("both").r); // 12
   */
  addWeightedAdapter(
    adapterNames: readonly string[],
    weights: readonly number[],
    newName: string,
    options: { combinationType?: CombinationType | undefined; svdRank?: number | undefined } = {},
  ): void {
    checkOptions("addWeightedAdapter", options, ["combinationType", "svdRank"]);
    checkedNames("addWeightedAdapter", adapterNames);
    if (!Array.isArray(weights))
      throw new ArgumentError(`addWeightedAdapter: weights must be a list of numbers; got ${shown(weights)}.`);
    addWeighted(this, adapterNames, weights, newName, options.combinationType ?? "svd", options.svdRank);
  }

  /**
   * Writes an adapter as PEFT does: adapter_config.json and adapter_model.safetensors. An adapter that began by
   * changing the base (pissa, olora) is written as the exact difference from the base as it was, of twice the rank.
   *
   * Source: PEFT, PeftModel.save_pretrained.
   * @throws ArgumentError if there is no such adapter; FileError
   *
   * @example
   * const { model } = models.loadLlama("models/base");
   * peft.getLoraModel(model, { r: 4, targetModules: ["q_proj"] }).savePretrained("adapter");
   */
  savePretrained(directory: string, adapterName = "default"): void {
    checkDirectory("savePretrained", directory);
    saveAdapter(this, directory, adapterName);
  }

  /**
   * Reads an adapter folder as a further adapter, inactive until `setAdapter` if there are others.
   *
   * Source: PEFT, PeftModel.load_adapter.
   * @param options `isTrainable`: whether it trains, active or not, while others stay as they are. Default false, as in
   * PEFT: the adapter is frozen until `setAdapter` and the model set to eval()
   * @throws FileError; FormatError if the folder is damaged, asks for what is not ours or does not fit the model;
   * ArgumentError for a name that is taken or targets that do not fit; StateError while merged
   *
   * @example
   * const { model } = models.loadLlama("models/base");
   * const adapted = peft.getLoraModel(model, { r: 4, targetModules: ["q_proj"] }, "anna");
   * adapted.savePretrained("adapter", "anna");
   * adapted.loadAdapter("adapter", "copy");
   * console.log(adapted.adapters, adapted.activeAdapters); // [ 'anna', 'copy' ] [ 'anna' ]
   */
  loadAdapter(directory: string, adapterName: string, options: { isTrainable?: boolean | undefined } = {}): void {
    checkOptions("loadAdapter", options, ["isTrainable"]);
    const { isTrainable = false } = options;
    checkBoolean("loadAdapter", "isTrainable", isTrainable);
    checkDirectory("loadAdapter", directory);
    this.#checkNewName("loadAdapter", adapterName);
    loadAdapter(this, directory, adapterName);
    for (const p of this.#parametersOf(adapterName)) p.requiresGrad = isTrainable;
    if (!isTrainable) this.eval();
  }

  /**
   * Puts the folder's adapter in the place of one that is here, in one stroke: if it does not fit, all is as it was.
   * Its targets and ranks may differ. It trains if the other did; an optimiser of the other's parameters must be made
   * anew. Errors as `loadAdapter`.
   *
   * Source: PEFT, hotswap_adapter.
   *
   * @example
   * const { model } = models.loadLlama("models/base");
   * const adapted = peft.getLoraModel(model, { r: 4, targetModules: ["q_proj"] });
   * adapted.savePretrained("adapter");
   * adapted.hotswapAdapter("adapter", "default");
   */
  hotswapAdapter(directory: string, adapterName: string): void {
    checkDirectory("hotswapAdapter", directory);
    hotswapAdapter(this, directory, adapterName);
  }

  /** The wrapped model's `forward`, with its parameters, result and errors. @throws ArgumentError if it has none */
  forward(...args: Arguments<M, "forward">): Result<M, "forward"> {
    return this.#call("forward", args) as Result<M, "forward">;
  }

  /** The wrapped model's `loss`, with its parameters, result and errors. @throws ArgumentError if it has none */
  loss(...args: Arguments<M, "loss">): Result<M, "loss"> {
    return this.#call("loss", args) as Result<M, "loss">;
  }

  /** The wrapped model's `newCache`. @throws ArgumentError if it has none */
  newCache(...args: Arguments<M, "newCache">): Result<M, "newCache"> {
    return this.#call("newCache", args) as Result<M, "newCache">;
  }

  /**
   * The wrapped model's `generate`.
   * @throws ArgumentError if it has none: Llama and Gpt2 are given to `models.generate`
   */
  generate(...args: Arguments<M, "generate">): Result<M, "generate"> {
    return this.#call("generate", args) as Result<M, "generate">;
  }

  #call(name: string, args: readonly unknown[]): unknown {
    const method = (this.model as unknown as Record<string, unknown>)[name];
    if (typeof method !== "function") {
      const advice =
        name === "generate" && "newCache" in this.model
          ? " Call models.generate(loraModel, ids, { maxNewTokens })."
          : "";
      throw new ArgumentError(
        `LoraModel.${name}: the wrapped ${this.model.constructor.name} has no method ${name}().${advice}`,
      );
    }
    return method.apply(this.model, args);
  }

  /** The wrapped model's. */
  get gradientCheckpointing(): boolean {
    return (this.model as { gradientCheckpointing?: boolean }).gradientCheckpointing ?? false;
  }
  /** @throws ArgumentError if it has none */
  set gradientCheckpointing(on: boolean) {
    if (!("gradientCheckpointing" in this.model))
      throw new ArgumentError(
        `LoraModel.gradientCheckpointing: the wrapped ${this.model.constructor.name} does not have it.`,
      );
    (this.model as { gradientCheckpointing: boolean }).gradientCheckpointing = on;
  }

  /** Frees the wrapped model, adapters and all. */
  override dispose(): void {
    this.model.dispose();
  }

  /** The wrapped model's. */
  override getOutputEmbeddings(): Module | null {
    return this.model.getOutputEmbeddings();
  }

  /** As `Module.loadStateDict`. @throws StateError while merged, or the originals of the weights would be lost */
  override loadStateDict(state: Parameters<Module["loadStateDict"]>[0], strict?: boolean): void {
    this.#refuseMerged("loadStateDict");
    super.loadStateDict(state, strict);
  }

  /**
   * A model with the adapter of a folder. Parameters and errors as `loadAdapter`; the name is "default" unless given.
   *
   * Source: PEFT, PeftModel.from_pretrained.
   *
   * @example
   * const trained = peft.getLoraModel(models.loadLlama("models/base").model, { r: 4, targetModules: ["q_proj"] });
   * trained.savePretrained("adapter");
   * const adapted = peft.LoraModel.fromPretrained(models.loadLlama("models/base").model, "adapter");
   * console.log(adapted.config("default").r); // 4
   */
  static fromPretrained<M extends Module>(
    model: M,
    directory: string,
    options: { adapterName?: string | undefined; isTrainable?: boolean | undefined } = {},
  ): LoraModel<M> {
    const adapted = new LoraModel(model);
    checkDirectory("fromPretrained", directory);
    checkOptions("fromPretrained", options, ["adapterName", "isTrainable"]);
    const { adapterName = "default", ...others } = options;
    adapted.loadAdapter(directory, adapterName, others);
    return adapted;
  }

  /** `[trainable, all]`: numbers of values. Source: PEFT, get_nb_trainable_parameters. */
  getNbTrainableParameters(): [number, number] {
    const count = (parameters: readonly Parameter[]): number => parameters.reduce((n, p) => n + p.size, 0);
    const all = this.parameters();
    return [count(all.filter((p) => p.requiresGrad)), count(all)];
  }

  /**
   * Prints what `getNbTrainableParameters` counts: `trainable params: 14,336 || all params: 932,992 || trainable%:
   * 1.5366`.
   */
  printTrainableParameters(): void {
    const [trainable, all] = this.getNbTrainableParameters();
    const n = (x: number): string => x.toLocaleString("en-US");
    console.log(
      `trainable params: ${n(trainable)} || all params: ${n(all)} || trainable%: ` +
        `${((100 * trainable) / all).toFixed(4)}`,
    );
  }

  /** Layers that have this adapter, or any, with their paths in `model`. @internal */
  layers(adapterName?: string): { path: string; layer: LoraLayer }[] {
    return adapterName === undefined
      ? this.#layers()
      : this.#layers().filter(({ layer }) => layer.adapters.has(adapterName));
  }

  /** Trained copies of this adapter, with their paths in `model`. @internal */
  copies(adapterName: string): { path: string; module: Module }[] {
    return [...places(this.model)].flatMap(({ path, module }) => {
      const copy = module instanceof ModulesToSave ? module.modulesToSave.get(adapterName) : undefined;
      return copy ? [{ path, module: copy }] : [];
    });
  }

  #layers(): { path: string; layer: LoraLayer }[] {
    return [...places(this.model)].flatMap(({ path, module }) =>
      module instanceof LoraLayer ? [{ path, layer: module }] : [],
    );
  }

  #copies(): ModulesToSave[] {
    return [...places(this.model)].map(({ module }) => module).filter((m) => m instanceof ModulesToSave);
  }

  /** The modules that a config targets, wrapped if they are not yet; nothing is changed. */
  #targetPlaces(where: string, config: LoraConfig): { adapted: { place: Place; part: Part }[]; matching: Matching } {
    const head = this.model.getOutputEmbeddings();
    const found: { place: Place; part: Part }[] = [];
    const owners = new Map<Module, string>(this.#layers().map(({ path, layer }) => [layer.baseLayer, path]));
    const matching = new Matching(config, (message) => {
      throw new ArgumentError(`${where}: ${message}.`);
    });
    for (const place of places(this.model)) {
      const { path, module } = place;
      if (!matching.targets(path, isLinear(module), module === head)) continue;
      const layer = module instanceof LoraLayer ? module : wrap(where, path, module);
      const owner = owners.get(layer.baseLayer) ?? path;
      if (owner !== path)
        throw new ArgumentError(
          `${where}: ${owner} and ${path} share their weight, which can be adapted in one place only; name that ` +
            `one's path.`,
        );
      owners.set(layer.baseLayer, path);
      found.push({ place, part: { path, layer, r: matching.rank(path), scaling: matching.scaling(path) } });
    }
    return { adapted: found, matching };
  }

  #noTarget(where: string, targetModules: LoraConfig["targetModules"], base: string | null = null): ArgumentError {
    const all = [...places(this.model)];
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

  /**
   * The config with what the model has settled: "all-linear" spelled out, and whether weights are [in, out]. As in
   * PEFT.
   */
  #settled(adapterName: string, config: LoraConfig): LoraConfig {
    const layers = this.layers(adapterName);
    const { targetModules } = config;
    const isAll = typeof targetModules === "string" && targetModules.toLowerCase() === "all-linear";
    return {
      ...config,
      targetModules: isAll ? this.shortNames(layers.map(({ path }) => path)) : targetModules,
      fanInFanOut: layers.some(({ layer }) => layer instanceof LoraLinear && layer.baseLayer.fanInFanOut),
    };
  }

  /**
   * targetModules that name these modules and no others: their last names, or else a pattern of the paths.
   * @internal
   */
  shortNames(paths: readonly string[]): string[] | string {
    const last = (path: string): string => path.slice(path.lastIndexOf(".") + 1);
    const names = new Set(paths.map(last));
    const isExact = [...places(this.model)].every(({ path }) => !names.has(last(path)) || paths.includes(path));
    return isExact ? [...names] : paths.map(escapePattern).join("|");
  }

  /** PEFT compares the ends of paths, also within a word: "norm" takes input_layernorm, too. */
  #copiedPlaces({ modulesToSave, ensureWeightTying }: LoraConfig): Place[] {
    const endings = new Endings(modulesToSave ?? []);
    const named = [...places(this.model)].filter(({ path }) => !endings.of(path, path.length).next().done);
    const tied = ensureWeightTying ? this.#tied() : null;
    const both = tied ? [tied.table, tied.head] : [];
    const isNamed = ({ path }: Place): boolean => named.some((place) => place.path === path);
    return both.some(isNamed) ? [...named, ...both.filter((place) => !isNamed(place))] : named;
  }

  /** Frees an adapter, and unwraps what has no other. */
  #free(adapterName: string): void {
    changed();
    for (const { parent, name, module } of [...places(this.model)]) {
      if (module instanceof LoraLayer) module.remove(adapterName);
      if (module instanceof ModulesToSave) module.remove(adapterName);
      if (module instanceof LoraLayer && module.adapters.size === 0) parent.replaceChild(name, module.unload());
      if (module instanceof ModulesToSave && module.modulesToSave.size === 0)
        parent.replaceChild(name, module.originalModule);
    }
  }

  #setActive(names: readonly string[]): void {
    changed();
    this.#active = names;
    for (const { layer } of this.#layers()) layer.activeAdapters = names;
    for (const wrapper of this.#copies()) wrapper.activeAdapters = names;
  }

  /** Makes these the active adapters, and only what they have trains. */
  #activate(names: readonly string[]): void {
    this.#setActive(names);
    for (const p of this.parameters()) p.requiresGrad = false;
    for (const name of names) for (const p of this.#parametersOf(name)) p.requiresGrad = true;
  }

  /** An adapter's factors and copies, and the biases its config names. */
  #parametersOf(adapterName: string): Parameter[] {
    const layers = this.layers(adapterName);
    const factors = layers.flatMap(({ layer }) => {
      const { loraA, loraB, magnitude } = layer.adapters.get(adapterName)!;
      return magnitude ? [loraA, loraB, magnitude] : [loraA, loraB];
    });
    const copied = this.copies(adapterName).flatMap(({ module }) => module.parameters());
    const biases = [
      ...this.biases(
        this.config(adapterName),
        layers.map(({ path }) => path),
      ),
    ].map(([, p]) => p);
    return [...factors, ...copied, ...biases];
  }

  /**
   * The biases that train with a config: all, or those of the layers it adapts, with their modules' paths. Those of
   * modulesToSave train with the copies. @internal
   * @param adapted paths of those layers
   */
  *biases({ bias, modulesToSave }: LoraConfig, adapted: readonly string[]): IterableIterator<[string, Parameter]> {
    if (bias === "none") return;
    for (const { path, module } of places(this.model)) {
      if (modulesToSave?.some((name) => path.endsWith(name)) || (bias === "lora_only" && !adapted.includes(path)))
        continue;
      for (const [name, p] of module.ownParameters()) if (/^(base_layer\.)?bias$/.test(name)) yield [path, p];
    }
  }

  #freeze(adapterName: string): void {
    for (const p of this.#parametersOf(adapterName)) p.requiresGrad = false;
  }

  #unload(adapterNames: readonly string[]): M {
    changed();
    const dropped: Module[] = [];
    for (const { parent, name, module } of [...places(this.model)]) {
      if (module instanceof LoraLayer) parent.replaceChild(name, module.unload());
      if (!(module instanceof ModulesToSave)) continue;
      const layers = module.unload(adapterNames);
      parent.replaceChild(name, layers.kept);
      dropped.push(...layers.dropped);
    }
    const kept = new Set(this.model.parameters());
    for (const p of dropped.flatMap((layer) => layer.parameters())) if (!kept.has(p)) p.dispose();
    this.#configs.clear();
    this.#active = [];
    (this.model as Partial<HasHead>).hideHead?.();
    return this.model;
  }

  #checkNewName(where: string, name: unknown): asserts name is string {
    if (typeof name !== "string")
      throw new ArgumentError(`${where}: an adapter's name must be a string; got ${shown(name)}.`);
    if (!/^[^.]+$/.test(name) || name === BASE)
      throw new ArgumentError(`${where}: ${shown(name)} is no name for an adapter; use one without dots.`);
    if (this.#configs.has(name)) throw new ArgumentError(`${where}: there is an adapter "${name}" already.`);
  }

  /** Runs fn after `enter`, which gives what takes it back; in between adapters stay what they are. */
  #within<T>(where: string, fn: () => T, enter: () => (() => void)[]): T {
    checkCallback(where, fn);
    changed();
    const undo = enter();
    this.#inside.push(where);
    try {
      const result = fn();
      refuseLazy(
        where,
        result,
        "The adapters are as before by then; tokens of models.generate() can be returned, they keep theirs.",
      );
      return result;
    } finally {
      this.#inside.pop();
      changed();
      for (const step of undo) step();
    }
  }

  #refuseInside(where: string): void {
    if (this.#inside.length > 0)
      throw new StateError(`${where}: ${this.#inside.at(-1)} is running its function; call this after it.`);
  }

  #refuseMerged(where: string): void {
    if (this.mergedAdapters.length > 0)
      throw new StateError(`${where}: ${this.mergedAdapters.join(", ")} is merged; call unmergeAdapter() first.`);
  }
}

/** A language model whose head may be its table: what lets adapters see the two apart. */
interface HasHead {
  showHead(): void;
  hideHead(): void;
}

/** The weight of the module that was here before adapters. */
function baseWeight(module: Module): Parameter | null {
  const { weight } = (module instanceof ModulesToSave ? module.originalModule : module) as { weight?: unknown };
  return weight instanceof Parameter ? weight : null;
}

/** Where a module hangs. */
interface Place {
  path: string;
  parent: Module;
  name: string;
  module: Module;
}

/** Every module below `parent`, parents first; what wrappers hold is theirs. */
function* places(parent: Module, prefix = "", above: readonly Module[] = []): IterableIterator<Place> {
  for (const [name, module] of parent.children()) {
    if (module === parent || above.includes(module)) continue;
    const path = prefix ? `${prefix}.${name}` : name;
    yield { path, parent, name, module };
    if (!(module instanceof ModulesToSave)) yield* places(module, path, [...above, parent]);
  }
}

function checkDirectory(where: string, directory: unknown): void {
  if (typeof directory === "string" && directory !== "") return;
  throw new ArgumentError(`${where}: directory must be the path of an adapter's folder; got ${shown(directory)}.`);
}

/** @throws ArgumentError unless it is a list of strings */
function checkedNames(where: string, names: unknown): readonly string[] {
  if (!Array.isArray(names) || !names.every((name) => typeof name === "string")) {
    throw new ArgumentError(`${where}: adapterNames must be a list of names, as ["default"]; got ${shown(names)}.`);
  }
  return names;
}

/** The path and what follows each of its dots. */
function endsOf(path: string): string[] {
  return path.split(".").map((_, i, parts) => parts.slice(i).join("."));
}

/** The name that a slip may stand for, in a sentence. */
function meant(name: string, paths: readonly string[]): string {
  const last = [...new Set(paths.map((path) => path.slice(path.lastIndexOf(".") + 1)))].filter(
    (end) => !/^\d+$/.test(end),
  );
  const likely = nearest(name, last) ?? nearest(name, paths);
  return likely === undefined ? "" : ` Did you mean ${likely}?`;
}

/** Exactly this class: loralib's layers, which extend it, have an adapter of their own. */
function isPlain<T extends Module>(module: Module, kind: new (...args: never[]) => T): module is T {
  return module.constructor === kind;
}

function isAdaptable(module: Module): boolean {
  return (
    module instanceof LoraLayer ||
    isPlain(module, Linear) ||
    isPlain(module, Embedding) ||
    (module instanceof ConvNd && !("loraA" in module))
  );
}

function isLinear(module: Module): boolean {
  return module instanceof LoraLinear || isPlain(module, Linear);
}

function wrap(where: string, path: string, module: Module): LoraLayer {
  if (isPlain(module, Linear)) return new LoraLinear(module);
  if (isPlain(module, Embedding)) return new LoraEmbedding(module);
  if (module instanceof ConvNd && !("loraA" in module)) return new LoraConv(module);
  if (module instanceof ModulesToSave)
    throw new ArgumentError(
      `${where}: target module ${path} is in another adapter's modulesToSave, which has copies of it; it cannot be ` +
        `adapted as well.`,
    );
  throw new ArgumentError(
    `${where}: target module ${path} is a ${module.constructor.name}; only nn.Linear, nn.Embedding and nn's ` +
      `convolutions can be adapted, not what extends them.`,
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
  const { initial = null } = source.factors(part, loraA, loraB) ?? {};
  if (initial) undo.push(() => layer.weight.set(initial.weight));
  let magnitude: Parameter | null = null;
  if (config.useDora) {
    layer.checkDense(`${where}: ${part.path}`);
    magnitude = scope(() => {
      const norm = layer.norm({ loraA, loraB, scaling });
      return owned(norm.shape).set(norm.data);
    });
    source.magnitude?.(part, magnitude);
  }
  return { loraA, loraB, magnitude, r, scaling, loraDropout: config.loraDropout, initial };
}

/** Inits that take the first product out of the base weight. */
function changesBaseWeight({ initLoraWeights: init }: LoraConfig): boolean {
  return typeof init === "string" && /^(pissa|olora)/.test(init);
}

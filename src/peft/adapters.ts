/**
 * The adapters of one model: which there are, which act, and how they come and go. `LoraModel` is its face; what reads,
 * writes, combines and merges adapters works on this.
 */
import type { LoraConfig } from "../io/peft/config.js";
import { isAllLinear } from "../io/peft/match.js";
import { Endings } from "../io/peft/names.js";
import { show } from "../io/json.js";
import { changed } from "../nn/extent.js";
import type { Module, Parameter } from "../nn/module.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import { checkCallback, refuseLazy } from "../runtime/synchronous.js";
import { shown } from "../tensor/check.js";
import { BASE, LoraLayer } from "./layer.js";
import { LoraLinear } from "./linear.js";
import { ModulesToSave } from "./modules_to_save.js";
import { changesBaseWeight, prepareAdapter, type Source } from "./new_adapter.js";
import { replicateLayers } from "./replication.js";
import { withTargets } from "./default_targets.js";
import { TrainableTokens } from "./trainable_tokens.js";
import { Wrapper } from "./wrapper.js";
import { hideHead, places, shortNames, showHead } from "./places.js";

/** A layer with adapters, and its path in the model. */
export interface Layer {
  path: string;
  layer: LoraLayer;
}

export class Adapters {
  readonly #configs = new Map<string, LoraConfig>();
  #active: readonly string[] = [];
  /** Gives the model its own layers back, if an adapter replicated them. */
  #unreplicate: (() => () => void) | null = null;
  /** The methods that run a caller's function with other adapters at work, innermost last. */
  readonly #inside: string[] = [];

  /** @throws StateError if the model has adapters of another LoraModel */
  constructor(readonly model: Module) {
    const [adapted] = this.layers();
    if (adapted)
      throw new StateError(
        `LoraModel: ${adapted.path} has adapters already; call addAdapter() on the LoraModel that wrapped it.`,
      );
  }

  /** All, oldest first. */
  get names(): readonly string[] {
    return [...this.#configs.keys()];
  }
  /** Those whose terms are added up. */
  get active(): readonly string[] {
    return this.#active;
  }
  /** Those that the weights hold now. */
  get merged(): readonly string[] {
    return [...new Set(this.layers().flatMap(({ layer }) => layer.mergedAdapters))];
  }

  /** @throws ArgumentError if there is no such adapter */
  config(adapterName: string): LoraConfig {
    const config = this.#configs.get(adapterName);
    if (!config)
      throw new ArgumentError(
        `LoraModel: there is no adapter ${shown(adapterName)}; there are ${this.names.join(", ") || "none"}.`,
      );
    return config;
  }

  /** Layers that have this adapter, or any. */
  layers(adapterName?: string): Layer[] {
    return [...places(this.model)].flatMap(({ path, module }) =>
      module instanceof LoraLayer && (adapterName === undefined || module.adapters.has(adapterName))
        ? [{ path, layer: module }]
        : [],
    );
  }

  /** Modules with copies or trained tokens of any adapter. */
  wrappers(): Wrapper[] {
    return [...places(this.model)].map(({ module }) => module).filter((module) => module instanceof Wrapper);
  }

  /** Rows of tokens that this adapter trains, with their modules' paths; a head's that are its table's are left out. */
  tokens(adapterName: string): { path: string; rows: Parameter }[] {
    return [...places(this.model)].flatMap(({ path, module }) => {
      const own = module instanceof TrainableTokens ? module.tokens.get(adapterName) : undefined;
      return own && !own.table ? [{ path, rows: own.rows }] : [];
    });
  }

  /** Trained copies of this adapter, with their paths. */
  copies(adapterName: string): { path: string; module: Module }[] {
    return [...places(this.model)].flatMap(({ path, module }) => {
      const copy = module instanceof ModulesToSave ? module.modulesToSave.get(adapterName) : undefined;
      return copy ? [{ path, module: copy }] : [];
    });
  }

  /**
   * The biases that train with a config: all, or those of the layers it adapts, with their modules' paths. Those of
   * modulesToSave train with the copies.
   * @param adapted paths of those layers
   */
  *biases({ bias, modulesToSave }: LoraConfig, adapted: readonly string[]): IterableIterator<[string, Parameter]> {
    if (bias === "none") return;
    const saved = new Endings(modulesToSave ?? []);
    for (const { path, module } of places(this.model)) {
      if (saved.hold(path) || (bias === "lora_only" && !adapted.includes(path))) continue;
      const own = module instanceof LoraLayer ? module.baseLayer : module;
      for (const [name, p] of own.ownParameters()) if (name === "bias") yield [path, p];
    }
  }

  /** An adapter's factors, copies and trained tokens, and the biases its config names. */
  parameters(adapterName: string): Parameter[] {
    const layers = this.layers(adapterName);
    const factors = layers.flatMap(({ layer }) => {
      const { loraA, loraB, loraBias, magnitude } = layer.adapters.get(adapterName)!;
      return [loraA, loraB, loraBias, magnitude].filter((p) => p !== null);
    });
    const copied = this.copies(adapterName).flatMap(({ module }) => module.parameters());
    const tokens = this.tokens(adapterName).map(({ rows }) => rows);
    const adapted = layers.map(({ path }) => path);
    const biases = [...this.biases(this.config(adapterName), adapted)].map(([, p]) => p);
    return [...factors, ...copied, ...tokens, ...biases];
  }

  /**
   * A further adapter with values from anywhere; the first becomes the active one.
   * @param where the caller, for errors
   */
  inject(where: string, adapterName: string, given: LoraConfig, source: Source): void {
    const config = withTargets(where, this.model, given);
    this.withHead(() => {
      this.refuseInside(where);
      this.checkNewName(where, adapterName);
      this.refuseMerged(where);
      this.#checkBeside(where, this.names, config);
      if (this.#configs.size === 0) this.#replicate(where, config);
      prepareAdapter(where, this.model, adapterName, config, source)();
      this.#configs.set(adapterName, this.#settled(adapterName, config));
      if (this.#active.length === 0) return this.activate([adapterName]);
      this.setRequiresGrad(adapterName, false);
      this.#setActive(this.#active);
    });
  }

  /** Whether the base weights are other ones while this adapter is here. */
  changesBase(adapterName: string): boolean {
    return this.layers(adapterName).some(({ layer }) => layer.adapters.get(adapterName)!.initial);
  }

  /** Puts other values in an adapter's place; it stays active or not, and trains or not, as it was. */
  replace(where: string, adapterName: string, given: LoraConfig, source: Source): void {
    const config = withTargets(where, this.model, given);
    this.refuseInside(where);
    this.config(adapterName);
    this.refuseMerged(where);
    if (show(config.layerReplication) !== show(this.config(adapterName).layerReplication))
      throw new ArgumentError(
        `${where}: layerReplication is ${show(config.layerReplication)}, and the model's layers are those of ` +
          `${show(this.config(adapterName).layerReplication)}; call deleteAdapter() and loadAdapter().`,
      );
    if (changesBaseWeight(config) && this.changesBase(adapterName))
      throw new StateError(
        `${where}: initLoraWeights = "${config.initLoraWeights}" changes the base weights, as adapter ` +
          `"${adapterName}" did; call deleteAdapter() and loadAdapter().`,
      );
    this.#checkBeside(
      where,
      this.names.filter((name) => name !== adapterName),
      config,
    );
    const commit = prepareAdapter(where, this.model, adapterName, config, source);
    const trains = this.parameters(adapterName).some((p) => p.requiresGrad);
    this.setRequiresGrad(adapterName, false);
    this.#free(adapterName);
    commit();
    this.#configs.set(adapterName, this.#settled(adapterName, config));
    this.setRequiresGrad(adapterName, trains);
    this.#setActive(this.#active);
  }

  /** Gives the model the layers that its first adapter asks for. */
  #replicate(where: string, config: LoraConfig): void {
    if (config.layerReplication === null) return;
    if (changesBaseWeight(config))
      throw new ArgumentError(
        `${where}: initLoraWeights = "${config.initLoraWeights}" changes the base weights, which layers share with ` +
          `layerReplication; use true.`,
      );
    this.#unreplicate = replicateLayers(where, this.model, config.layerReplication);
  }

  /** Without adapters the model has its own layers. */
  #bare(): void {
    this.#unreplicate?.();
    this.#unreplicate = null;
    hideHead(this.model);
  }

  /** Frees an adapter. If it was the only active one, the oldest of the others becomes active. */
  delete(adapterName: string): void {
    this.setRequiresGrad(adapterName, false);
    this.#free(adapterName);
    this.#configs.delete(adapterName);
    const active = this.#active.filter((name) => name !== adapterName);
    if (active.length > 0) this.#setActive(active);
    else this.activate(this.names.slice(0, 1));
    if (this.#configs.size === 0) this.#bare();
  }

  /** Makes these the active adapters, and only what they have trains. */
  activate(names: readonly string[]): void {
    this.#setActive(names);
    for (const p of this.model.parameters()) p.requiresGrad = false;
    for (const name of names) this.setRequiresGrad(name, true);
  }

  /** Makes the model the base alone; returns what takes that back, to the bit. */
  disable(): (() => void)[] {
    const modules = [...this.wrappers(), ...this.layers().map(({ layer }) => layer)];
    // What was merged last into a weight that two of them have comes out of it first.
    const undo = modules.reverse().map((module) => module.disable());
    return this.#unreplicate ? [...undo, this.#unreplicate()] : undo;
  }

  /** Lets what this adapter has train, or freezes it. */
  setRequiresGrad(adapterName: string, requiresGrad: boolean): void {
    for (const p of this.parameters(adapterName)) p.requiresGrad = requiresGrad;
  }

  /** Leaves the plain model, with what is merged in its weights and these adapters' copies in their modules' places. */
  unload(adapterNames: readonly string[]): void {
    changed();
    const dropped: Module[] = [];
    for (const { parent, name, module } of [...places(this.model)]) {
      if (module instanceof LoraLayer || module instanceof TrainableTokens) parent.replaceChild(name, module.unload());
      if (!(module instanceof ModulesToSave)) continue;
      dropped.push(...module.unload(adapterNames));
      parent.replaceChild(name, module.originalModule);
    }
    const kept = new Set(this.model.parameters());
    for (const p of dropped.flatMap((layer) => layer.parameters())) if (!kept.has(p)) p.dispose();
    this.#configs.clear();
    this.#active = [];
    this.#bare();
  }

  /** Runs fn, to which a tied head is a layer; it stays one while there are adapters. */
  withHead(fn: () => void): void {
    showHead(this.model);
    try {
      fn();
    } finally {
      if (this.#configs.size === 0) this.#bare();
    }
  }

  /** Runs fn after `enter`, which gives what takes it back; in between adapters stay what they are. */
  within<T>(where: string, fn: () => T, enter: () => (() => void)[]): T {
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
      for (const step of undo.reverse()) step();
    }
  }

  refuseInside(where: string): void {
    if (this.#inside.length > 0)
      throw new StateError(`${where}: ${this.#inside.at(-1)} is running its function; call this after it.`);
  }

  refuseMerged(where: string): void {
    if (this.merged.length > 0)
      throw new StateError(`${where}: ${this.merged.join(", ")} is merged; call unmergeAdapter() first.`);
  }

  checkNewName(where: string, name: unknown): asserts name is string {
    if (typeof name !== "string")
      throw new ArgumentError(`${where}: an adapter's name must be a string; got ${shown(name)}.`);
    if (!/^[^.]+$/.test(name) || name === BASE)
      throw new ArgumentError(`${where}: ${shown(name)} is no name for an adapter; use one without dots.`);
    if (this.#configs.has(name)) throw new ArgumentError(`${where}: there is an adapter "${name}" already.`);
  }

  /** Whether an adapter can stand beside these others: what they share is the base. */
  #checkBeside(where: string, others: readonly string[], config: LoraConfig): void {
    const other = others.find((name) => show(this.config(name).layerReplication) !== show(config.layerReplication));
    if (other !== undefined)
      throw new ArgumentError(
        `${where}: layerReplication is ${show(config.layerReplication)}, but adapter "${other}" has ` +
          `${show(this.config(other).layerReplication)}; all adapters of a model have the same.`,
      );
    const parameters = ({ targetParameters }: LoraConfig): string => [...(targetParameters ?? [])].sort().join();
    const rival = others.find((name) => {
      const both = [config, this.config(name)]
        .filter(({ targetParameters }) => targetParameters !== null)
        .map(parameters);
      return both.length === 2 && both[0] !== both[1];
    });
    if (rival !== undefined)
      throw new ArgumentError(
        `${where}: targetParameters are ${show(config.targetParameters)}, but adapter "${rival}" has ` +
          `${show(this.config(rival).targetParameters)}; PEFT has the same ones in all adapters of a model.`,
      );
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
    const changer = others.find((name) => this.changesBase(name));
    if (changer !== undefined) {
      throw new StateError(
        `${where}: adapter "${changer}" changed the base weights (by its init, or a table in its folder), so no ` +
          "other can stand beside it; delete it first. One whose init was done here is a plain adapter once it is " +
          "saved and loaded again.",
      );
    }
  }

  /**
   * The config with what the model has settled: "all-linear" spelled out, and whether weights are [in, out]. As in
   * PEFT.
   */
  #settled(adapterName: string, config: LoraConfig): LoraConfig {
    const layers = this.layers(adapterName);
    const { targetModules } = config;
    const paths = layers.map(({ path }) => path);
    return {
      ...config,
      targetModules: isAllLinear(targetModules) ? shortNames(this.model, paths) : targetModules,
      fanInFanOut: layers.some(({ layer }) => layer instanceof LoraLinear && layer.baseLayer.fanInFanOut),
    };
  }

  /** Frees an adapter, and unwraps what has no other. */
  #free(adapterName: string): void {
    changed();
    for (const { parent, name, module } of [...places(this.model)]) {
      if (module instanceof LoraLayer || module instanceof Wrapper) module.remove(adapterName);
      if (module instanceof LoraLayer && module.adapters.size === 0) parent.replaceChild(name, module.unload());
      if (module instanceof TrainableTokens && module.tokens.size === 0) parent.replaceChild(name, module.unload());
      if (module instanceof ModulesToSave && module.modulesToSave.size === 0)
        parent.replaceChild(name, module.originalModule);
    }
  }

  #setActive(names: readonly string[]): void {
    changed();
    this.#active = names;
    for (const { layer } of this.layers()) layer.activeAdapters = names;
    for (const wrapper of this.wrappers()) wrapper.activeAdapters = names;
  }
}

/**
 * PEFT's way to LoRA: wrap the layers of a finished model, keep any number of adapters on it, choose,
 * mix and merge them.
 * Source: huggingface/peft 0.21, peft_model.py, tuners/tuners_utils.py, tuners/lora/model.py.
 */
import { checkTaskType, completeConfig, type LoraConfig } from "../io/peft/config.js";
import { Module, type Parameter } from "../nn/module.js";
import { adopt } from "../random/seed.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import { checkOptions, type Options } from "../runtime/options.js";
import { className } from "../runtime/shown.js";
import { checkBoolean, shown } from "../tensor/check.js";
import { Adapters } from "./adapters.js";
import { collect, type CollectedAdapter } from "./collect.js";
import { hotswapAdapter, loadAdapter, saveAdapter } from "./files.js";
import { addInitialised } from "./initial_adapter.js";
import { BASE } from "./layer.js";
import { mergeAdapters, mergeEach, partHead, partsHead, unmergeAdapters } from "./merging.js";
import { inputEmbeddings, outputEmbeddings } from "./places.js";
import { TrainableTokens } from "./trainable_tokens.js";
import type { CombinationType } from "./weighted.js";
import { addWeighted } from "./weighted_adapter.js";

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
 * const { model } = models.loadModel("models/base");
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
 * const { model } = models.loadModel("models/base");
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
  readonly #adapters: Adapters;

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
    this.#adapters = new Adapters(model);
  }

  /** Names of all adapters, oldest first. */
  get adapters(): readonly string[] {
    return this.#adapters.names;
  }
  /** Names of those whose terms are added up and that train. */
  get activeAdapters(): readonly string[] {
    return this.#adapters.active;
  }
  /** Adapters that the weights hold now. */
  get mergedAdapters(): readonly string[] {
    return this.#adapters.merged;
  }

  /** An adapter's config, all fields filled in. @throws ArgumentError if there is no such adapter */
  config(adapterName: string): LoraConfig {
    return this.#adapters.config(adapterName);
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
    addInitialised(this.#adapters, adapterName, full);
  }

  /**
   * Makes one or several adapters the active ones (their terms are added up) and those alone trainable.
   * Merged adapters are unmerged first, as in PEFT; here that restores the weights' bits.
   * @throws ArgumentError for a name that is not there, or two adapters with a copy of one module (modulesToSave) or
   * rows of one table
   */
  setAdapter(adapterNames: string | readonly string[]): void {
    this.#adapters.refuseInside("setAdapter");
    const names =
      typeof adapterNames === "string" ? [adapterNames] : [...new Set(checkedNames("setAdapter", adapterNames))];
    if (names.length === 0)
      throw new ArgumentError(
        "setAdapter: expected at least one adapter name; to run without adapters use disableAdapter().",
      );
    for (const name of names) this.config(name);
    for (const wrapper of this.#adapters.wrappers()) {
      const rivals = names.filter((name) => wrapper.has(name));
      if (rivals.length > 1) {
        const what =
          wrapper instanceof TrainableTokens
            ? "rows of the same table each (trainableTokenIndices)"
            : "a copy of the same module each (modulesToSave)";
        throw new ArgumentError(`setAdapter: ${rivals.join(", ")} have ${what}; only one of them can be active.`);
      }
    }
    this.unmergeAdapter();
    this.#adapters.activate(names);
  }

  /**
   * Frees an adapter. If it was the only active one, the oldest of the others becomes active, as by `setAdapter`. The
   * base is then as it was, but for biases that the adapter trained.
   * @throws ArgumentError if it is not there; StateError while it is merged
   */
  deleteAdapter(adapterName: string): void {
    this.#adapters.refuseInside("deleteAdapter");
    this.config(adapterName);
    this.#adapters.refuseMerged("deleteAdapter");
    this.#adapters.delete(adapterName);
  }

  /**
   * Runs fn on the base model alone, also while adapters are merged, where an init changed its weights (pissa, olora)
   * and where its layers are there more than once (layerReplication); afterwards all is as before.
   * @throws StateError if fn is asynchronous, or adds, merges or chooses adapters; whatever fn throws
   *
   * @example
   * const { model } = models.loadModel("models/base");
   * const adapted = peft.getLoraModel(model, { targetModules: ["q_proj"] });
   * const ids = tensor(new Int32Array([5, 6, 7]), [1, 3]);
   * const logits = adapted.disableAdapter(() => model.forward(ids)); // [1, 3, 1024]
   */
  disableAdapter<T>(fn: () => T): T {
    return this.#adapters.within("disableAdapter", fn, () => this.#adapters.disable());
  }

  /**
   * Runs fn with one adapter for each item of the batch (its first dimension); "__base__" stands for none.
   * Each item has the bits it has alone, and gradients reach the factors of every trainable adapter named:
   * make several trainable with `setAdapter`. (PEFT allows such batches for inference only.)
   *
   * @throws ArgumentError for an unknown name; StateError while merged, with DoRA, modulesToSave,
   * trainableTokenIndices, targetParameters or loraBias, or if fn is asynchronous, or adds, merges or chooses adapters;
   * ShapeError in fn for a batch of another size
   *
   * @example
   * const { model } = models.loadModel("models/base");
   * const adapted = peft.getLoraModel(model, { targetModules: ["q_proj"] }, "anna");
   * adapted.addAdapter("ben", { targetModules: ["v_proj"] });
   * adapted.setAdapter(["anna", "ben"]);
   * const ids = tensor(new Int32Array([5, 6, 7, 8, 9, 10]), [3, 2]), targets = tensor(new Int32Array([6, 7, 8, 9, 10,
   * 11]), [3, 2]); const loss = adapted.withAdapterNames(["anna", "ben", "__base__"], () => adapted.model.loss(ids,
   * targets));
   */
  withAdapterNames<T>(adapterNames: readonly string[], fn: () => T): T {
    this.#adapters.refuseMerged("withAdapterNames");
    for (const name of new Set(checkedNames("withAdapterNames", adapterNames))) {
      const config = name === BASE ? null : this.config(name);
      const obstacle = config ? obstacleOf(config) : null;
      if (obstacle)
        throw new StateError(
          `withAdapterNames: adapter "${name}" ${obstacle}, which a batch of mixed adapters cannot have; run its ` +
            `items on their own.`,
        );
    }
    const names = [...adapterNames];
    return this.#adapters.within("withAdapterNames", fn, () => {
      // None of these adapters has copies of modules, so items see the original ones, whoever is active.
      const undo = this.#adapters.wrappers().map((wrapper) => wrapper.disable());
      for (const { layer } of this.#adapters.layers()) {
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
   * const { model } = models.loadModel("models/base");
   * const adapted = peft.getLoraModel(model, { initLoraWeights: false, targetModules: ["q_proj"] });
   * adapted.mergeAdapter();
   * adapted.unmergeAdapter(); // the weights' original bits
   */
  mergeAdapter(
    adapterNames: readonly string[] = this.activeAdapters,
    options: { safeMerge?: boolean | undefined } = {},
  ): void {
    this.#adapters.refuseInside("mergeAdapter");
    checkOptions("mergeAdapter", options, ["safeMerge"]);
    const { safeMerge = false } = options;
    checkBoolean("mergeAdapter", "safeMerge", safeMerge);
    for (const name of checkedNames("mergeAdapter", adapterNames)) this.config(name);
    mergeAdapters(this.#adapters, adapterNames, safeMerge);
  }

  /** Restores every weight's original bits. */
  unmergeAdapter(): void {
    this.#adapters.refuseInside("unmergeAdapter");
    unmergeAdapters(this.#adapters);
  }

  /**
   * Merges and gives back the plain model, without adapters, for good. Parameters and errors as `mergeAdapter`; but
   * where an adapter acts on one of a tied table and head, the two are parted: `config.tieWordEmbeddings` is false
   * then. (PEFT merges into both.)
   *
   * @example
   * const { model } = models.loadModel("models/base");
   * const merged = peft.getLoraModel(model, { targetModules: ["q_proj"] }).mergeAndUnload();
   * console.log(merged.model.layers[0].selfAttn.qProj instanceof nn.Linear); // true
   */
  mergeAndUnload(
    adapterNames: readonly string[] = this.activeAdapters,
    options: { safeMerge?: boolean | undefined } = {},
  ): M {
    const join = partHead(this.#adapters, checkedNames("mergeAdapter", adapterNames));
    try {
      this.mergeAdapter(adapterNames, options);
    } catch (error) {
      join();
      throw error;
    }
    this.#adapters.unload(adapterNames);
    return this.model;
  }

  /**
   * As `mergeAndUnload` with safeMerge, for a model whose weights are written one by one: `each` sees every weight that
   * changes while it is merged, and all are as they were then. @internal
   */
  unloadMerging(adapterNames: readonly string[], each: (parameter: Parameter) => void): M {
    this.#adapters.refuseInside("mergeAndUnload");
    for (const name of checkedNames("mergeAndUnload", adapterNames)) this.config(name);
    partHead(this.#adapters, adapterNames);
    mergeEach(this.#adapters, adapterNames, each);
    this.#adapters.unload(adapterNames);
    return this.model;
  }

  /** Whether a head that is the embedding table is one of its own after `unloadMerging`. @internal */
  partsHead(adapterNames: readonly string[]): boolean {
    return partsHead(this.#adapters, adapterNames);
  }

  /** Gives back the plain model as it is without adapters. This object has no adapters then. */
  unload(): M {
    this.#adapters.refuseInside("unload");
    this.unmergeAdapter();
    this.#adapters.activate([]);
    this.#adapters.unload([]);
    return this.model;
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
   * const { model } = models.loadModel("models/base");
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
    addWeighted(this.#adapters, adapterNames, weights, newName, options.combinationType ?? "svd", options.svdRank);
  }

  /**
   * Writes an adapter as PEFT does: adapter_config.json and adapter_model.safetensors. One that began here by changing
   * the base (pissa, olora) is written as the exact difference from the base as it was, of twice the rank; one that was
   * read with such an init is written as it was read, for readers that do the init again.
   *
   * Source: PEFT, PeftModel.save_pretrained.
   * @param options `saveEmbeddingLayers`: whether the base weights of adapted embedding and head are written, too.
   * Default "auto", as PEFT does it: where targetModules name embed_tokens or lm_head
   * @throws ArgumentError if there is no such adapter; FileError
   *
   * @example
   * const { model } = models.loadModel("models/base");
   * peft.getLoraModel(model, { r: 4, targetModules: ["q_proj"] }).savePretrained("adapter");
   */
  savePretrained(
    directory: string,
    adapterName = "default",
    options: { saveEmbeddingLayers?: boolean | "auto" | undefined } = {},
  ): void {
    checkDirectory("savePretrained", directory);
    checkOptions("savePretrained", options, ["saveEmbeddingLayers"]);
    const { saveEmbeddingLayers = "auto" } = options;
    if (saveEmbeddingLayers !== "auto") checkBoolean("savePretrained", "saveEmbeddingLayers", saveEmbeddingLayers);
    saveAdapter(this.#adapters, directory, adapterName, saveEmbeddingLayers);
  }

  /** An adapter as plain data, for writers of other formats. @throws ArgumentError if there is none @internal */
  collect(adapterName: string): CollectedAdapter {
    return collect(this.#adapters, adapterName);
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
   * const { model } = models.loadModel("models/base");
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
    this.#adapters.checkNewName("loadAdapter", adapterName);
    loadAdapter(this.#adapters, directory, adapterName);
    this.#adapters.setRequiresGrad(adapterName, isTrainable);
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
   * const { model } = models.loadModel("models/base");
   * const adapted = peft.getLoraModel(model, { r: 4, targetModules: ["q_proj"] });
   * adapted.savePretrained("adapter");
   * adapted.hotswapAdapter("adapter", "default");
   */
  hotswapAdapter(directory: string, adapterName: string): void {
    checkDirectory("hotswapAdapter", directory);
    hotswapAdapter(this.#adapters, directory, adapterName);
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
   * @throws ArgumentError if it has none: language models are given to `models.generate`
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
        `LoraModel.${name}: the wrapped ${className(this.model)} has no method ${name}().${advice}`,
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
        `LoraModel.gradientCheckpointing: the wrapped ${className(this.model)} does not have it.`,
      );
    (this.model as { gradientCheckpointing: boolean }).gradientCheckpointing = on;
  }

  /** Frees the wrapped model, adapters and all. */
  override dispose(): void {
    this.model.dispose();
  }

  /** The wrapped model's. */
  getOutputEmbeddings(): Module | null {
    return outputEmbeddings(this.model);
  }
  /** The wrapped model's. */
  getInputEmbeddings(): Module | null {
    return inputEmbeddings(this.model);
  }

  /** As `Module.loadStateDict`. @throws StateError while merged, or the originals of the weights would be lost */
  override loadStateDict(state: Parameters<Module["loadStateDict"]>[0], strict?: boolean): void {
    this.#adapters.refuseMerged("loadStateDict");
    super.loadStateDict(state, strict);
  }

  /**
   * A model with the adapter of a folder. Parameters and errors as `loadAdapter`; the name is "default" unless given.
   *
   * Source: PEFT, PeftModel.from_pretrained.
   *
   * @example
   * const trained = peft.getLoraModel(models.loadModel("models/base").model, { r: 4, targetModules: ["q_proj"] });
   * trained.savePretrained("adapter");
   * const adapted = peft.LoraModel.fromPretrained(models.loadModel("models/base").model, "adapter");
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
}

/** What a batch of mixed adapters cannot have. */
function obstacleOf({
  modulesToSave,
  trainableTokenIndices,
  targetParameters,
  loraBias,
  useDora,
}: LoraConfig): string | null {
  if (modulesToSave?.length) return "has modulesToSave";
  if (trainableTokenIndices) return "has trainableTokenIndices";
  if (targetParameters) return "has targetParameters";
  if (loraBias) return "has loraBias";
  return useDora ? "uses DoRA" : null;
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

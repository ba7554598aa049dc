/** Modules and parameters: a tree of layers whose state has names (torch.nn.Module). */
import { ArgumentError, FormatError, ShapeError, StateError } from "../runtime/errors.js";
import { Tensor } from "../tensor/tensor.js";

/**
 * A trainable float32 tensor: a leaf with `requiresGrad` (default true), held by a module and by no scope. Its values
 * are undefined until they are set (torch.nn.Parameter).
 *
 * @example
 * const p = new nn.Parameter([2]).set([1, 2]); // [2]
 * console.log(p.requiresGrad); // true
 */
export class Parameter extends Tensor {
  constructor(shape: readonly number[], requiresGrad = true) {
    super(shape);
    this.keep();
    this.requiresGrad = requiresGrad;
  }
}

/** A value of a state dict: what a safetensors file holds of a tensor. */
export interface StateEntry {
  /** Sizes of the dimensions. */
  shape: readonly number[];
  /** The values, last dimension fastest; a copy outside linear memory. */
  data: Float32Array;
}
/** Parameters by their keys, as `Module.stateDict` gives them. */
export type StateDict = Map<string, StateEntry>;

/**
 * Base class of layers and models. Properties that are parameters or modules, arrays of modules, or
 * maps from names to either form the tree; a property's name gives its key in PyTorch's spelling
 * (`selfAttn.qProj.weight` is `self_attn.q_proj.weight`, `loraA` is `lora_A`).
 *
 * Source: torch.nn.Module.
 *
 * @example
 * class Model extends nn.Module {
 *   upProj = new nn.Linear(4, 8);
 *   layers = [new lora.Linear(8, 8, { r: 2, bias: false })];
 *   forward(x: Tensor): Tensor { return this.layers[0].forward(ops.relu(this.upProj.forward(x))); }
 * }
 * const model = new Model();
 * console.log([...model.stateDict().keys()].join(" ")); // up_proj.weight up_proj.bias layers.0.weight layers.0.lora_A layers.0.lora_B
 * const y = model.forward(ones([1, 4])); // [1, 8]
 */
export abstract class Module {
  /** true after `train()`, false after `eval()`; dropout and merging follow it. */
  training = true;

  /** Sets the mode of this module and of those below it. */
  train(mode = true): this {
    this.training = mode;
    for (const [, child] of this.children()) child.train(mode);
    return this;
  }

  /** Sets evaluation mode: `train(false)`. */
  eval(): this { return this.train(false); }

  /** Direct child modules with their names. */
  *children(): IterableIterator<[string, Module]> {
    for (const [property, value] of Object.entries(this)) {
      if (value instanceof Module) yield [torchName(property), value];
      for (const [key, item] of members(value)) if (item instanceof Module) yield [`${torchName(property)}.${key}`, item];
    }
  }

  /** This module's own parameters with their names. */
  *ownParameters(): IterableIterator<[string, Parameter]> {
    for (const [property, value] of Object.entries(this)) {
      if (value instanceof Parameter) yield [torchName(property), value];
      for (const [key, item] of members(value)) if (item instanceof Parameter) yield [`${torchName(property)}.${key}`, item];
    }
  }

  /**
   * Puts another module in the place of the direct child of that name. @internal
   * @throws ArgumentError if there is no such child
   */
  replaceChild(name: string, module: Module): void {
    for (const [property, value] of Object.entries(this)) {
      if (value instanceof Module && torchName(property) === name) {
        (this as unknown as Record<string, Module>)[property] = module;
        return;
      }
      for (const [key, item] of members(value)) {
        if (!(item instanceof Module) || `${torchName(property)}.${key}` !== name) continue;
        if (value instanceof Map) value.set(key, module);
        else (value as Module[])[Number(key)] = module;
        return;
      }
    }
    throw new ArgumentError(`replaceChild: there is no child module ${name}.`);
  }

  /** Every module of the tree with its dotted path; this one's is `prefix`. */
  *namedModules(prefix = ""): IterableIterator<[string, Module]> {
    yield [prefix, this];
    for (const [name, child] of this.children()) yield* child.namedModules(join(prefix, name));
  }

  /** Every parameter of the tree with its state-dict key. */
  *namedParameters(): IterableIterator<[string, Parameter]> {
    for (const [path, module] of this.namedModules()) {
      for (const [name, parameter] of module.ownParameters()) yield [join(path, name), parameter];
    }
  }

  /** The module that makes a language model's logits, for PEFT's "all-linear"; null: this is none. */
  getOutputEmbeddings(): Module | null { return null; }

  /** Every parameter of the tree, once for each of its keys. */
  parameters(): Parameter[] { return [...this.namedParameters()].map(([, p]) => p); }

  /** Copies of all parameters by key. A merged layer gives its original weight, never the merged one. */
  stateDict(): StateDict {
    const state: StateDict = new Map();
    for (const [path, module] of this.namedModules()) {
      for (const [name, parameter] of module.ownParameters()) {
        state.set(join(path, name), { shape: parameter.shape, data: module.unmergedData(parameter).slice() });
      }
    }
    return state;
  }

  /**
   * Copies values into the parameters of the same keys. Nothing is changed if anything is wrong.
   * @param strict every key must be on both sides (default); false ignores keys on one side only.
   * @throws FormatError for missing or unexpected keys; ShapeError for other shapes; StateError while a layer is merged
   */
  loadStateDict(state: ReadonlyMap<string, StateEntry>, strict = true): void {
    for (const [path, module] of this.namedModules()) {
      if (module.isMerged()) {
        throw new StateError(`loadStateDict: ${path || "this layer"} is merged; call train() (or unmergeAdapter() of its LoraModel) first, or its weight would be lost.`);
      }
    }
    const own = new Map(this.namedParameters());
    const missing = [...own.keys()].filter((key) => !state.has(key));
    const unexpected = [...state.keys()].filter((key) => !own.has(key));
    if (strict && missing.length + unexpected.length > 0) {
      throw new FormatError(`loadStateDict: missing keys: ${list(missing)}; unexpected keys: ${list(unexpected)}.`);
    }
    for (const [key, parameter] of own) {
      const entry = state.get(key);
      if (entry && entry.shape.join() !== parameter.shape.join()) {
        throw new ShapeError(`loadStateDict: ${key} has shape [${entry.shape}]; expected [${parameter.shape}].`);
      }
      if (entry && entry.data.length !== parameter.size) {
        throw new ShapeError(`loadStateDict: ${key} has ${entry.data.length} values; its shape [${parameter.shape}] takes ${parameter.size}.`);
      }
    }
    for (const [key, parameter] of own) {
      const entry = state.get(key);
      if (entry) parameter.set(entry.data);
    }
  }

  /** Disposes all parameters of the tree. */
  dispose(): void {
    for (const p of this.parameters()) p.dispose();
  }

  /** What a checkpoint holds for a parameter of this module. @internal */
  unmergedData(parameter: Parameter): Float32Array { return parameter.data; }
  /** @internal */
  isMerged(): boolean { return false; }
}

function join(prefix: string, name: string): string { return prefix ? `${prefix}.${name}` : name; }
function list(keys: string[]): string {
  return keys.length === 0 ? "none" : keys.slice(0, 8).join(", ") + (keys.length > 8 ? ` and ${keys.length - 8} more` : "");
}

/** Named members of a property that is an array or a map. */
function members(value: unknown): Iterable<[string | number, unknown]> {
  return Array.isArray(value) ? value.entries() : value instanceof Map ? value as Map<string, unknown> : [];
}

/** camelCase property -> PyTorch's snake_case; LoRA's factors keep their capital. */
function torchName(property: string): string {
  return property.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`).replace(/^(lora(?:_embedding)?)_([ab])$/, (_, stem: string, factor: string) => `${stem}_${factor.toUpperCase()}`);
}

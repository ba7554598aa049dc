/** Modules and parameters: a tree of layers whose state has names (torch.nn.Module). */
import { adopt, newMask, type DropoutMask } from "../random/seed.js";
import { ArgumentError, FormatError, ShapeError, StateError } from "../runtime/errors.js";
import { className } from "../runtime/shown.js";
import { snakeCase } from "../runtime/snake_case.js";
import type { StateEntry } from "../runtime/state_entry.js";
import { checkBoolean, shown } from "../tensor/check.js";
import { printByToString, printed } from "../tensor/print.js";
import { checkShape, Tensor } from "../tensor/tensor.js";
import { isInitSkipped } from "./skip_init.js";

/**
 * A trainable float32 tensor: a leaf with `requiresGrad` (default true), held by a module and by no scope. Its values
 * are undefined until they are set (torch.nn.Parameter).
 *
 * @example
 * const p = new nn.Parameter([2]).set([1, 2]); // [2]
 * console.log(p.requiresGrad); // true
 */
export class Parameter extends Tensor {
  /** @internal */ static override readonly className: string = "Parameter";
  constructor(shape: readonly number[], requiresGrad = true) {
    checkBoolean("Parameter", "requiresGrad", requiresGrad);
    super(checkShape("Parameter", shape), "float32", !isInitSkipped());
    this.keep();
    this.requiresGrad = requiresGrad;
  }

  override toString(): string {
    return printed(this, "Parameter");
  }
}

/** Parameters by their keys, as `Module.stateDict` gives them. */
export type StateDict = Map<string, StateEntry>;

/**
 * Base class of layers and models. Properties that are parameters or modules form the tree, also those in arrays, maps
 * and plain objects of any depth. A property's name gives its key in PyTorch's spelling (`selfAttn.qProj.weight` is
 * `self_attn.q_proj.weight`, `loraA` is `lora_A`, and `LayerNorm` stays as it is); an index or a name within it follows
 * as it is (`heads.anna.weight`, `blocks.0.1.weight`). A parameter with several keys is one parameter: `stateDict` has
 * all of its keys, everything else counts it once.
 *
 * What is in a `#private` field cannot be seen; a set, or an object of another class, that holds a module or parameter
 * which is nowhere else is refused.
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
 * const keys = [...model.stateDict().keys()];
 * console.log(keys.join(" ")); // up_proj.weight up_proj.bias layers.0.weight layers.0.lora_A layers.0.lora_B
 * const y = model.forward(ones([1, 4])); // [1, 8]
 */
export abstract class Module {
  /** @internal */ static readonly className: string = "Module";
  /** true after `train()`, false after `eval()`; dropout and merging follow it. */
  training = true;

  constructor() {
    adopt(this);
  }

  /** Sets the mode of this module and of those below it; all or none. @throws ArgumentError for what is no boolean */
  train(mode = true): this {
    checkBoolean("train", "mode", mode);
    const before =
      underway.size === 0
        ? [...this.namedModules()].map(([, module]) => [module, module.training, module.isMerged()] as const)
        : [];
    try {
      this.training = mode;
      once(this, () => {
        for (const [, child] of this.children()) child.train(mode);
      });
    } catch (error) {
      // A layer that merges on eval() may have run out of memory: the layers before it are unmerged again.
      for (const [module, training, isMerged] of before) {
        if (module.isMerged() && !isMerged) module.train(true);
        module.training = training;
      }
      throw error;
    }
    return this;
  }

  /** Sets evaluation mode: `train(false)`. */
  eval(): this {
    return this.train(false);
  }

  /** Direct child modules with their names. */
  *children(): IterableIterator<[string, Module]> {
    for (const { name, value } of members(this)) if (value instanceof Module) yield [name, value];
  }

  /** This module's own parameters with their names. */
  *ownParameters(): IterableIterator<[string, Parameter]> {
    for (const { name, value } of members(this)) if (value instanceof Parameter) yield [name, value];
  }

  /**
   * Puts another module in the place of the direct child of that name. @internal
   * @throws ArgumentError if there is no such child
   */
  replaceChild(name: string, module: Module): void {
    for (const member of members(this)) {
      if (member.value instanceof Module && member.name === name) return member.replace(module);
    }
    throw new ArgumentError(`replaceChild: there is no child module ${name}.`);
  }

  /** Every module of the tree with its dotted path; this one's is `prefix`. A module below itself is passed over. */
  *namedModules(prefix = ""): IterableIterator<[string, Module]> {
    yield* descend(this, prefix, []);
  }

  /** Every parameter of the tree, once, with its state-dict key: the first, if it has several. */
  *namedParameters(): IterableIterator<[string, Parameter]> {
    const seen = new Set<Parameter>();
    for (const [key, p] of keysOf(this)) {
      if (!seen.has(p)) yield [key, p];
      seen.add(p);
    }
  }

  /** Every parameter of the tree, once. */
  parameters(): Parameter[] {
    return [...this.namedParameters()].map(([, p]) => p);
  }

  /**
   * Float32 copies of all parameters by key. A merged layer gives its original weight, never the merged one.
   */
  stateDict(): StateDict {
    return new Map(keysOf(this).map(([key, p, module]) => [key, { shape: p.shape, data: module.unmergedData(p) }]));
  }

  /**
   * Copies values into the parameters of the same keys, which are float32 from then on. Nothing is changed if anything
   * is wrong.
   * @param state a map, as `stateDict` gives it, or a plain object with these entries
   * @param strict every key must be on both sides (default); false ignores keys on one side only.
   * @throws ArgumentError if `state` holds something else; FormatError for missing or unexpected keys; ShapeError for
   * other shapes; StateError while a layer is merged; OutOfMemoryError
   */
  loadStateDict(state: ReadonlyMap<string, StateEntry> | Readonly<Record<string, StateEntry>>, strict = true): void {
    const entries = stateEntries("loadStateDict", state);
    for (const [path, module] of this.namedModules()) {
      if (module.isMerged()) {
        throw new StateError(
          `loadStateDict: ${path || "this layer"} is merged; call train() (or unmergeAdapter() of its LoraModel) ` +
            `first, or its weight would be lost.`,
        );
      }
    }
    const own = keysOf(this);
    const keys = new Set(own.map(([key]) => key));
    const missing = [...keys].filter((key) => !entries.has(key));
    const unexpected = [...entries.keys()].filter((key) => !keys.has(key));
    if (strict && missing.length + unexpected.length > 0) {
      throw new FormatError(`loadStateDict: missing keys: ${list(missing)}; unexpected keys: ${list(unexpected)}.`);
    }
    for (const [key, parameter] of own) {
      const entry = entries.get(key);
      if (entry && entry.shape.join() !== parameter.shape.join()) {
        throw new ShapeError(`loadStateDict: ${key} has shape [${entry.shape}]; expected [${parameter.shape}].`);
      }
      if (entry && entry.data.length !== parameter.size) {
        throw new ShapeError(
          `loadStateDict: ${key} has ${entry.data.length} values; its shape [${parameter.shape}] takes ` +
            `${parameter.size}.`,
        );
      }
      void parameter.address;
    }
    // Widening may run out of memory, and changes no value; what follows cannot fail.
    for (const [key, parameter] of own) if (entries.has(key)) parameter.widen();
    for (const [key, parameter] of own) {
      const entry = entries.get(key);
      if (entry) parameter.set(entry.data);
    }
  }

  /** Disposes the modules below it, which may hold more than parameters, and its own parameters. */
  dispose(): void {
    once(this, () => {
      for (const [, child] of this.children()) child.dispose();
      for (const [, p] of this.ownParameters()) p.dispose();
    });
  }

  /** The tree with names and shapes, which console.log shows too, as torch prints it. */
  toString(): string {
    return tree(this, []);
  }

  /** The next dropout mask of the run that this module belongs to. @internal */
  newMask(p: number): DropoutMask {
    return newMask(p, this);
  }

  /** What a checkpoint holds for a parameter of this module: a copy, as float32. @internal */
  unmergedData(parameter: Parameter): Float32Array {
    return parameter.toFloat32();
  }
  /** @internal */
  isMerged(): boolean {
    return false;
  }
}

function join(prefix: string, name: string): string {
  return prefix ? `${prefix}.${name}` : name;
}
function list(keys: string[]): string {
  return keys.length === 0
    ? "none"
    : keys.slice(0, 8).join(", ") + (keys.length > 8 ? ` and ${keys.length - 8} more` : "");
}

/**
 * Every key of a module's state dict, with the parameter and whose it is.
 * @throws StateError if one is where it has no name
 */
function keysOf(root: Module): [key: string, parameter: Parameter, owner: Module][] {
  const keys: [string, Parameter, Module][] = [];
  const modules = [...root.namedModules()];
  const known = new Set<unknown>();
  for (const [path, module] of modules) {
    known.add(module);
    for (const [name, parameter] of module.ownParameters()) {
      keys.push([join(path, name), parameter, module]);
      known.add(parameter);
    }
  }
  for (const [path, module] of modules) refuseUnnamed(path, module, known);
  return keys;
}

printByToString(Module.prototype);

/** Modules that are on their way through the tree. */
const underway = new Set<Module>();

/** Runs fn, but within itself: so a module that is below itself ends. */
function once(module: Module, fn: () => void): void {
  if (underway.has(module)) return;
  underway.add(module);
  try {
    fn();
  } finally {
    underway.delete(module);
  }
}

function tree(module: Module, above: readonly Module[]): string {
  const own = [...module.ownParameters()].map(([name, p]) => `${name} [${p.shape.join(", ")}]`);
  const below = [...module.children()].map(([name, child]) => {
    const isCycle = child === module || above.includes(child);
    return `${name}: ${isCycle ? "..." : tree(child, [...above, module]).replaceAll("\n", "\n  ")}`;
  });
  return below.length === 0
    ? `${className(module)}(${own.join(", ")})`
    : `${className(module)}(\n  ${[...own, ...below].join("\n  ")}\n)`;
}

/** A module or parameter that a module's properties lead to. */
interface Member {
  name: string;
  value: Module | Parameter;
  replace(by: Module): void;
}

function* members(module: Module): IterableIterator<Member> {
  for (const [property, value] of Object.entries(module)) {
    if (typeof value === "object")
      yield* within(
        torchName(property),
        value,
        (by) => {
          (module as unknown as Record<string, unknown>)[property] = by;
        },
        new Set(),
      );
  }
}

/** @param seen arrays, maps and objects on the way: each is entered once, so cycles end */
function* within(
  name: string,
  value: unknown,
  replace: (by: Module) => void,
  seen: Set<unknown>,
): IterableIterator<Member> {
  if (typeof value !== "object" || value === null) return;
  if (value instanceof Module || value instanceof Parameter) {
    yield { name, value, replace };
    return;
  }
  if (seen.has(value)) return;
  seen.add(value);
  if (value instanceof Map) {
    for (const [key, item] of value as Map<unknown, unknown>)
      if (typeof item === "object")
        yield* within(
          `${name}.${shownKey(key)}`,
          item,
          (by) => {
            value.set(key, by);
          },
          seen,
        );
  } else if (Array.isArray(value)) {
    const list = value as unknown[];
    // No iterator for what is no object: a config may hold a list of a million numbers.
    for (let i = 0; i < list.length; i++)
      if (typeof list[i] === "object")
        yield* within(
          `${name}.${i}`,
          list[i],
          (by) => {
            list[i] = by;
          },
          seen,
        );
  } else if (isPlain(value)) {
    const record = value as Record<string, unknown>;
    for (const key of Object.keys(record))
      if (typeof record[key] === "object")
        yield* within(
          `${name}.${key}`,
          record[key],
          (by) => {
            record[key] = by;
          },
          seen,
        );
  }
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function shownKey(key: unknown): string {
  return typeof key === "object" ? shown(key) : String(key);
}

/** @param above the modules that lead here */
function* descend(module: Module, path: string, above: readonly Module[]): IterableIterator<[string, Module]> {
  yield [path, module];
  for (const [name, child] of module.children()) {
    if (child !== module && !above.includes(child)) yield* descend(child, join(path, name), [...above, module]);
  }
}

/**
 * Sets and objects of other classes are not entered; what only they hold would be neither trained nor saved.
 * @throws StateError
 */
function refuseUnnamed(path: string, module: Module, known: ReadonlySet<unknown>): void {
  const check = (name: string, value: unknown, opaque: object | null, seen: Set<unknown>): void => {
    if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || seen.has(value)) return;
    if (value instanceof Module || value instanceof Parameter) {
      if (opaque === null || known.has(value)) return;
      throw new StateError(
        `${className(module)}: ${join(path, name)} is a ${className(opaque)} that holds a ` +
          `${className(value)}, which has no name there; ` +
          "put it into an array, a Map or a plain object, or the object into a #private field.",
      );
    }
    seen.add(value);
    if (value instanceof Tensor) return;
    if (value instanceof Set || value instanceof Map)
      for (const item of value.values()) check(name, item, opaque ?? (value instanceof Set ? value : null), seen);
    else if (Array.isArray(value) || isPlain(value))
      for (const item of Array.isArray(value) ? (value as unknown[]) : Object.values(value))
        check(name, item, opaque, seen);
    // An object that refers to the module, such as an optimiser or a parent, is no part of it.
    else if (opaque === null && !Object.values(value).includes(module))
      for (const item of Object.values(value)) check(name, item, value, seen);
  };
  for (const [property, value] of Object.entries(module)) check(torchName(property), value, null, new Set());
}

/** The entries of a state dict or of a plain object of them. @throws ArgumentError */
export function stateEntries(where: string, state: unknown): ReadonlyMap<string, StateEntry> {
  const isRecord = typeof state === "object" && state !== null && !(state instanceof Map) && isPlain(state);
  if (!(state instanceof Map) && !isRecord) {
    throw new ArgumentError(
      `${where}: expected a Map from keys to { shape, data }, as stateDict() gives it, or a plain object of them; ` +
        `got ${shown(state)}.`,
    );
  }
  const entries =
    state instanceof Map
      ? (state as Map<string, StateEntry>)
      : new Map(Object.entries(state as Record<string, StateEntry>));
  for (const [key, entry] of entries) {
    if (
      !Array.isArray(entry?.shape) ||
      !(Array.isArray(entry.data) || (ArrayBuffer.isView(entry.data) && "length" in entry.data))
    ) {
      throw new ArgumentError(
        `${where}: ${key} must be { shape, data } with the values in a Float32Array; got ${shown(entry)}.`,
      );
    }
  }
  return entries;
}

/** camelCase property -> PyTorch's snake_case; LoRA's factors keep their capital, and names that begin with one all. */
function torchName(property: string): string {
  if (/^[A-Z]/.test(property)) return property;
  return snakeCase(property).replace(
    /^(lora(?:_embedding)?)_([ab])$/,
    (_, stem: string, factor: string) => `${stem}_${factor.toUpperCase()}`,
  );
}

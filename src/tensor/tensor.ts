/**
 * Tensors: contiguous row-major arrays in the engine's linear memory. Plain data and its lifetime;
 * gradients are the tape's affair (autograd/tape.ts).
 */
import type { GraphNode } from "../autograd/tape.js";
import { engine, type Engine } from "../runtime/engine.js";
import { ArgumentError, DisposedError, DTypeError, ShapeError } from "../runtime/errors.js";
import { type DType, ELEMENT_BYTES } from "./dtype.js";
import { enterScope, leaveScope } from "./scope.js";

/** Values of a tensor as a typed array: float32 or int32. */
export type TypedData = Float32Array | Int32Array;

/**
 * Numbers in linear memory, contiguous, last dimension fastest. Made by `tensor`, `zeros` and their like
 * and by ops; freed by `scope`, by `backward()` or by `dispose()`.
 *
 * @example
 * const w = tensor([[1, 2], [3, 4]]);
 * w.requiresGrad = true;
 * ops.sum(ops.mul(w, w)).backward();
 * console.log(w.shape, w.grad.data); // [ 2, 2 ] Float32Array(4) [ 2, 4, 6, 8 ]
 */
export class Tensor {
  /** "float32" for values, "int32" for indices. */
  readonly dtype: DType;
  /** Sizes of the dimensions, frozen; [] for a scalar. */
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** Accumulated by `backward()`: same shape; null before. Set it to null (or `zeroGrad()`) to start anew. */
  grad: Tensor | null = null;
  /** Whether `backward()` computes a gradient for it. */
  requiresGrad = false;
  /** False for what an op computed from tensors that require a gradient. */
  isLeaf = true;
  /** How it was computed, while backward may need that. @internal */
  node: GraphNode | null = null;
  /** Whether the caller called `keep()`: then neither a scope nor backward frees it. @internal */
  kept = false;
  readonly #engine: Engine;
  #address: number;
  /** "released": the values' memory is free, but the tensor is still a link of a graph. */
  #disposed: "no" | "released" | "dispose" | "backward" = "no";

  /** Contents are undefined; use `tensor()`, `zeros()` and their like. @internal */
  constructor(shape: readonly number[], dtype: DType = "float32") {
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
    this.size = sizeOf(shape);
    this.#engine = engine();
    this.#address = this.#engine.memory.alloc(this.size * ELEMENT_BYTES);
    enterScope(this);
  }

  /** Number of dimensions. */
  get rank(): number { return this.shape.length; }
  /** Whether its memory was freed, by `dispose()`, a scope or `backward()`. */
  get disposed(): boolean { return this.#disposed !== "no"; }

  /** Address in linear memory. @throws DisposedError, also for a tensor of another engine. */
  get address(): number {
    if (this.#disposed === "backward") {
      throw new DisposedError(`this tensor of shape [${this.shape}] was freed by backward(); call keep() on it first to use it afterwards.`);
    }
    if (this.#disposed !== "no") throw new DisposedError(`this tensor of shape [${this.shape}] was disposed.`);
    if (this.#engine !== engine()) {
      throw new DisposedError(`this tensor of shape [${this.shape}] belongs to an engine that was closed or trapped.`);
    }
    return this.#address;
  }

  /**
   * A fresh view on the values. It is detached when memory grows: take it anew, do not hold it.
   * @throws DTypeError for an int32 tensor; DisposedError
   */
  get data(): Float32Array {
    if (this.dtype !== "float32") throw new DTypeError(`Tensor.data: this tensor is ${this.dtype}; use indices.`);
    return this.#engine.memory.f32(this.address, this.size);
  }

  /** A fresh view on the values of an int32 tensor, as `data`. @throws DTypeError for a float32 tensor; DisposedError */
  get indices(): Int32Array {
    if (this.dtype !== "int32") throw new DTypeError(`Tensor.indices: this tensor is ${this.dtype}; use data.`);
    return this.#engine.memory.i32(this.address, this.size);
  }

  /** The value of a tensor with one element. @throws ShapeError if it has another number of them; DisposedError */
  item(): number {
    if (this.size !== 1) throw new ShapeError(`Tensor.item: shape [${this.shape}] has ${this.size} elements; expected 1.`);
    return (this.dtype === "float32" ? this.data : this.indices)[0]!;
  }

  /**
   * Overwrites the values.
   * @throws ShapeError if `values` has another number of elements; ArgumentError for a value that is no 32-bit integer
   * in an int32 tensor; DisposedError
   */
  set(values: ArrayLike<number>): this {
    if (values.length !== this.size) {
      throw new ShapeError(`Tensor.set: ${values.length} values for shape [${this.shape}]; expected ${this.size}.`);
    }
    if (this.dtype === "int32") checkIntegers("Tensor.set", values);
    (this.dtype === "float32" ? this.data : this.indices).set(values);
    return this;
  }

  /** Takes the tensor out of its scopes and of backward's hands: only `dispose()` frees it then. */
  keep(): this {
    this.kept = true;
    leaveScope(this);
    return this;
  }

  /** Frees its memory, and its gradient's. Idempotent. */
  dispose(): void { this.free("dispose"); }

  /** Frees its values; what it was computed from stays known, for backward. @internal */
  release(): void {
    if (this.#disposed !== "no") return;
    this.#disposed = "released";
    if (this.#engine.alive) this.#engine.memory.free(this.#address);
  }

  /** @internal */
  free(by: "dispose" | "backward"): void {
    if (this.#disposed === "dispose" || this.#disposed === "backward") return;
    this.release();
    this.#disposed = by;
    this.grad?.free(by);
    this.node?.releaseSaved();
    this.node = null;
    leaveScope(this);
  }
}

// Projects whose `lib` is older than esnext.disposable check these declarations, too. Where the library has it, it is the same.
declare global {
  interface SymbolConstructor {
    readonly dispose: unique symbol;
  }
}

// `using t = tensor(...)` works where the runtime, or the compiler, knows Symbol.dispose.
const disposeSymbol: symbol = (Symbol as { dispose?: symbol }).dispose ?? Symbol.for("Symbol.dispose");
Object.defineProperty(Tensor.prototype, disposeSymbol, {
  value(this: Tensor) { this.dispose(); }, configurable: true, writable: true,
});
export interface Tensor {
  /**
   * Adds d this / d leaf to `leaf.grad` for every leaf with `requiresGrad`, and frees the graph: each
   * activation that was not `keep()`-ed. This tensor, of one element, lives on.
   *
   * Source: torch.Tensor.backward, without retain_graph.
   * @throws ShapeError unless it has one element; StateError if it has no graph (nothing requires a
   * gradient, it was computed under noGrad, or backward already consumed it) or shares one that another
   * backward consumed; DisposedError if something it depends on is gone. Nothing is changed then. OutOfMemoryError: the
   * graph is freed and gradients of leaves may hold a part; `zeroGrad()` and the step done again give what it would have given.
   *
   * @example
   * const w = tensor([2]);
   * w.requiresGrad = true;
   * ops.mul(w, w).backward();
   * console.log(w.grad.item()); // 4
   */
  backward(): void;
  /** `dispose()`, for `using t = tensor(...)`. */
  [Symbol.dispose](): void;
}

/** A number, or arrays of numbers, equally long at each depth. */
export type NestedNumbers = number | readonly NestedNumbers[];

/**
 * A tensor from numbers, nested arrays or a typed array with a shape. Copies.
 *
 * Source: torch.tensor.
 * @param values an Int32Array gives int32, everything else float32 unless `dtype` says otherwise.
 * @param shape default: that of the nested arrays, or [length] of a typed array
 * @throws ShapeError on ragged arrays or a shape of another size; ArgumentError on non-integer indices; DTypeError on
 * anything but numbers; OutOfMemoryError
 *
 * @example
 * const matrix = tensor([[1, 2], [3, 4]]); // [2, 2]
 * const ids = tensor(new Int32Array([1, 2, 3, 4, 5, 6]), [2, 3]); // [2, 3]
 * console.log(matrix.dtype, ids.dtype); // float32 int32
 */
export function tensor(values: NestedNumbers | TypedData, shape?: readonly number[], dtype?: DType): Tensor {
  const flat: number[] = [];
  let data: ArrayLike<number> = flat;
  let inferred: readonly number[];
  if (values instanceof Float32Array || values instanceof Int32Array) {
    data = values;
    inferred = [values.length];
  } else {
    inferred = flatten(values, flat);
  }
  const type = dtype ?? (values instanceof Int32Array ? "int32" : "float32");
  const out = checkShape("tensor", shape ?? inferred);
  const size = sizeOf(out);
  if (size !== data.length) throw new ShapeError(`tensor: ${data.length} values for shape [${out}]; expected ${size}.`);
  if (type === "int32") checkIntegers("tensor", data);
  return new Tensor(out, type).set(data);
}

/**
 * A tensor of zeros (torch.zeros).
 * @throws ShapeError unless shape holds non-negative integers; OutOfMemoryError
 *
 * @example
 * const t = zeros([2, 3]); // [2, 3]
 */
export function zeros(shape: readonly number[], dtype: DType = "float32"): Tensor { return full(shape, 0, dtype); }
/**
 * A float32 tensor of ones (torch.ones). Errors as `zeros`.
 *
 * @example
 * console.log(ones([2]).data); // Float32Array(2) [ 1, 1 ]
 */
export function ones(shape: readonly number[]): Tensor { return full(shape, 1); }
/**
 * A tensor with `value` everywhere (torch.full). Errors as `zeros`.
 *
 * @example
 * console.log(full([2], 7, "int32").indices); // Int32Array(2) [ 7, 7 ]
 */
export function full(shape: readonly number[], value: number, dtype: DType = "float32"): Tensor {
  const t = new Tensor(checkShape("full", shape), dtype);
  (dtype === "float32" ? t.data : t.indices).fill(value);
  return t;
}

/**
 * A copy with no history: no gradient flows to `t` (torch: t.detach().clone()).
 * @throws DisposedError, OutOfMemoryError
 *
 * @example
 * const t = tensor([1, 2]), copy = clone(t);
 * t.data[0] = 5;
 * console.log(copy.data); // Float32Array(2) [ 1, 2 ]
 */
export function clone(t: Tensor): Tensor {
  const copy = new Tensor(t.shape, t.dtype);
  return copy.set(t.dtype === "float32" ? t.data : t.indices);
}

/** Number of elements. @internal */
export function sizeOf(shape: readonly number[]): number { return shape.reduce((n, d) => n * d, 1); }

/** @internal */
export function checkShape(where: string, shape: readonly number[]): readonly number[] {
  const show = (value: unknown): string => (typeof value === "number" ? String(value) : value === null ? "null" : typeof value);
  if (!Array.isArray(shape)) throw new ShapeError(`${where}: shape must be an array of sizes, such as [2, 3]; got ${show(shape)}.`);
  for (const d of shape) {
    if (!Number.isSafeInteger(d) || d < 0) throw new ShapeError(`${where}: shape [${shape.map(show)}] must hold non-negative integers.`);
  }
  return shape;
}

function checkIntegers(where: string, values: ArrayLike<number>): void {
  for (let i = 0; i < values.length; i++) {
    if ((values[i]! | 0) !== values[i]) throw new ArgumentError(`${where}: value ${values[i]} at ${i} is not a 32-bit integer.`);
  }
}

function flatten(values: NestedNumbers, flat: number[]): number[] {
  if (typeof values === "number") {
    flat.push(values);
    return [];
  }
  if (!Array.isArray(values)) throw new DTypeError(`tensor: expected numbers, nested arrays or a typed array; got ${typeof values}.`);
  let inner: number[] | undefined;
  for (const v of values as readonly NestedNumbers[]) {
    const shape = flatten(v, flat);
    if (inner && inner.join() !== shape.join()) throw new ShapeError(`tensor: ragged array: rows of shape [${inner}] and [${shape}].`);
    inner = shape;
  }
  return [values.length, ...(inner ?? [])];
}

/**
 * Tensors: contiguous row-major arrays in the engine's linear memory. Plain data and its lifetime;
 * gradients are the tape's affair (autograd/tape.ts).
 */
import { engine, type Engine } from "../runtime/engine.js";
import { ArgumentError, DisposedError, DTypeError, ShapeError, StateError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { BLOCKS } from "./blocks.js";
import { type DType, FINITE16, fits, formatOf, isBlocks, isCompact, storedBytes } from "./dtype.js";
import type { GraphNode } from "./node.js";
import { printByToString, printed } from "./print.js";
import { enterScope, leaveScope } from "./scope.js";
import { widenedAt, widenedBytes } from "./widened.js";

/** Values of a tensor as a typed array: float32 or int32. */
export type TypedData = Float32Array | Int32Array;
/** What a tensor can be made of; other than Float32Array and Int32Array are rounded to float32. */
export type NumericData =
  | TypedData
  | Float64Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Uint32Array;

/** A copy of what a tensor holds, outside of linear memory. */
export interface StoredValues {
  /** The tensor's. */
  readonly dtype: DType;
  /** Of all values, as they are stored: little-endian. */
  readonly bytes: Uint8Array;
}

/** The float32 values of what a tensor held, which was not int32: a copy. @internal */
export function floatsOf({ dtype, bytes }: StoredValues): Float32Array {
  return isCompact(dtype) ? widenedBytes(bytes, dtype) : new Float32Array(new Uint8Array(bytes).buffer);
}

/** The error of structuredClone and postMessage shows this function; as a property's, its name outlives minifiers. */
const notes = { aTensorStaysInItsEngine_sendItsDataAndShape(): void {} };

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
  /** @internal */ static readonly className: string = "Tensor";
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
  node: GraphNode<Tensor> | null = null;
  /** Whether the caller called `keep()`: then neither a scope nor backward frees it. @internal */
  kept = false;
  /** A function, which structuredClone and postMessage refuse: a clone would have a shape and no values. @internal */
  readonly clonable = notes.aTensorStaysInItsEngine_sendItsDataAndShape;
  readonly #engine: Engine;
  #dtype: DType;
  /** 0: it has no memory yet. */
  #address = 0;
  /** Whether all values of a float16 tensor are finite, once that was asked; undefined after what may write them. */
  #isFinite: boolean | undefined;
  /** "released": the values' memory is free, but the tensor is still a link of a graph. */
  #disposed: "no" | "released" | "dispose" | "backward" = "no";

  /**
   * Contents are undefined; use `tensor()`, `zeros()` and their like.
   * @param hasMemory false: there is none until `materialize()`
   * @internal
   */
  constructor(shape: readonly number[], dtype: DType = "float32", hasMemory = true) {
    this.shape = Object.freeze([...shape]);
    this.#dtype = dtype;
    this.size = sizeOf(shape);
    this.#engine = engine();
    if (hasMemory) this.#address = this.#engine.memory.alloc(storedBytes(this.size, dtype));
    enterScope(this);
  }

  /**
   * "float32" for values, "int32" for indices; another for a frozen weight that is stored as its file has it, or that
   * was quantised on loading: "bfloat16", "float16", or one of blocks. Such a weight gives every result the bits that
   * it would have as float32; `widen()` makes it that.
   */
  get dtype(): DType {
    return this.#dtype;
  }
  /** Number of dimensions. */
  get rank(): number {
    return this.shape.length;
  }
  /** Whether its memory was freed, by `dispose()`, a scope or `backward()`. */
  get disposed(): boolean {
    return this.#disposed !== "no";
  }

  /** Address in linear memory, for kernels. @throws DisposedError, also for a tensor of another engine. @internal */
  get address(): number {
    if (this.#disposed === "backward") {
      throw new DisposedError(
        `this tensor of shape [${this.shape}] was freed by backward(); call keep() on it first to use it afterwards.`,
      );
    }
    if (this.#disposed !== "no") throw new DisposedError(`this tensor of shape [${this.shape}] was disposed.`);
    if (this.#engine !== engine()) {
      throw new DisposedError(`this tensor of shape [${this.shape}] belongs to an engine that was closed or trapped.`);
    }
    if (this.#address === 0) {
      throw new StateError(
        `this parameter of shape [${this.shape}] has no memory yet: it was made under skipInit(); call materialize().`,
      );
    }
    return this.#address;
  }

  /**
   * A fresh view on the values. It is detached when memory grows: take it anew, do not hold it.
   * @throws DTypeError for a tensor that is not float32; `toFloat32()` gives the values of one that is stored in less
   * memory; DisposedError
   */
  get data(): Float32Array {
    if (this.dtype === "int32") throw new DTypeError("Tensor.data: this tensor is int32; use indices.");
    if (this.dtype !== "float32") {
      throw new DTypeError(
        `Tensor.data: this tensor is ${this.dtype}, as it is stored; read a float32 copy by toFloat32(), or turn ` +
          `it into float32 by widen().`,
      );
    }
    return this.#engine.memory.f32(this.address, this.size);
  }

  /**
   * A fresh view on the values of an int32 tensor, as `data`.
   * @throws DTypeError for another tensor; DisposedError
   */
  get indices(): Int32Array {
    if (this.dtype !== "int32") {
      const instead = this.dtype === "float32" ? "data" : "toFloat32()";
      throw new DTypeError(`Tensor.indices: this tensor is ${this.dtype}; use ${instead}.`);
    }
    return this.#engine.memory.i32(this.address, this.size);
  }

  /**
   * The kernels' number of how to read a weight, by which products with float16 are faster where all of it is finite:
   * it is looked at once. @throws DisposedError @internal
   */
  get format(): number {
    if (this.dtype !== "float16") return formatOf(this.dtype);
    this.#isFinite ??= this.#engine.kernels.isFinite16(this.address, this.size);
    return this.#isFinite ? FINITE16 : formatOf(this.dtype);
  }

  /** A fresh view on its memory, whatever the dtype, to write one of these by. @throws DisposedError @internal */
  get bytes(): Uint8Array {
    this.#isFinite = undefined;
    return this.#engine.memory.u8(this.address, storedBytes(this.size, this.dtype));
  }

  /**
   * A copy of the values as float32, outside of linear memory; those of a tensor of 16 bits or of blocks are widened,
   * which is exact.
   * @throws DTypeError for an int32 tensor; DisposedError
   *
   * @example
   * console.log(tensor([0.5, 2]).toFloat32()); // Float32Array(2) [ 0.5, 2 ]
   */
  toFloat32(): Float32Array {
    return isCompact(this.dtype) ? widenedAt(this.address, this.size, this.dtype) : this.data.slice();
  }

  /**
   * Turns a tensor of 16 bits or of blocks into float32, in place: the same values in more memory, and from then on
   * what writes them may do so. A tensor of another dtype stays as it is. Optimisers, merging and inits call it
   * themselves.
   * @throws DisposedError; OutOfMemoryError, and then it is as it was
   *
   * @example
   * const { model } = models.loadModel("models/base");
   * const { weight } = model.model.layers[0].selfAttn.qProj;
   * console.log(weight.widen().dtype); // float32
   */
  widen(): this {
    if (!isCompact(this.dtype)) return this;
    const { memory, kernels } = this.#engine;
    const from = this.address;
    const to = memory.alloc(4 * this.size);
    kernels.widen(to, from, this.size, formatOf(this.dtype));
    memory.free(from);
    this.#address = to;
    this.#dtype = "float32";
    return this;
  }

  /**
   * Gives it memory as another dtype, whose contents are undefined, in the place of what it has. @internal
   * @throws ShapeError where a row is not whole blocks of it; OutOfMemoryError; then it is as it was
   */
  materialize(dtype: DType = "float32"): this {
    if (isBlocks(dtype) && !fits(this.shape, dtype)) {
      throw new ShapeError(
        `a tensor of shape [${this.shape}] cannot be ${dtype}: its last dimension must be a multiple of ` +
          `${BLOCKS[dtype].values}.`,
      );
    }
    const to = this.#engine.memory.alloc(storedBytes(this.size, dtype));
    if (this.#address !== 0) this.#engine.memory.free(this.#address);
    this.#address = to;
    this.#dtype = dtype;
    this.#isFinite = undefined;
    return this;
  }

  /** A copy of what it holds, as it is stored, outside of linear memory. @throws DisposedError @internal */
  stored(): StoredValues {
    return { dtype: this.dtype, bytes: this.bytes.slice() };
  }

  /** Puts back what it held, as it was stored. @throws DisposedError, OutOfMemoryError @internal */
  restore({ dtype, bytes }: StoredValues): void {
    void this.address;
    if (dtype !== this.dtype) this.materialize(dtype);
    this.bytes.set(bytes);
  }

  /** One value, by its place in order. @internal */
  valueAt(i: number): number {
    if (isCompact(this.dtype)) {
      const { dtype } = this;
      const block = isBlocks(dtype) ? BLOCKS[dtype].values : 1;
      return widenedAt(this.address + storedBytes(i - (i % block), dtype), block, dtype)[i % block]!;
    }
    return (this.dtype === "float32" ? this.data : this.indices)[i]!;
  }

  /** The value of a tensor with one element. @throws ShapeError if it has another number of them; DisposedError */
  item(): number {
    if (this.size !== 1)
      throw new ShapeError(`Tensor.item: shape [${this.shape}] has ${this.size} elements; expected 1.`);
    return this.valueAt(0);
  }

  /**
   * Overwrites the values; a tensor of 16 bits or of blocks becomes float32 first.
   * @throws DTypeError for what holds no numbers; ShapeError if `values` has another number of elements; ArgumentError
   * for a value that is no 32-bit integer in an int32 tensor; DisposedError, OutOfMemoryError
   */
  set(values: ArrayLike<number>): this {
    checkNumbers("Tensor.set", values);
    if (values.length !== this.size) {
      throw new ShapeError(`Tensor.set: ${values.length} values for shape [${this.shape}]; expected ${this.size}.`);
    }
    if (this.dtype === "int32") checkIntegers("Tensor.set", values);
    this.widen();
    (this.dtype === "float32" ? this.data : this.indices).set(values);
    return this;
  }

  /** Takes the tensor out of its scopes and of backward's hands: only `dispose()` frees it then. */
  keep(): this {
    this.kept = true;
    leaveScope(this);
    return this;
  }

  /**
   * Values, shape and dtype, which console.log shows too: all of up to 1,000 values, of more the ends of each
   * dimension.
   *
   * @example
   * console.log(String(tensor([1.5, 2]))); // Tensor([1.5, 2], [2], float32)
   */
  toString(): string {
    return printed(this, "Tensor");
  }

  /** Dtype, shape and values, for JSON.stringify. @throws DisposedError */
  toJSON(): Pick<Tensor, "dtype" | "shape"> & {
    /** In order, the last dimension fastest. */
    data: number[];
  } {
    const { dtype, shape } = this;
    return { dtype, shape, data: [...(dtype === "int32" ? this.indices : this.toFloat32())] };
  }

  /** Frees its memory, and its gradient's. Idempotent. */
  dispose(): void {
    this.free("dispose");
  }

  /** Frees its values, but leaves it in its graph, so that backward still finds what it was computed from. @internal */
  release(): void {
    if (this.#disposed !== "no") return;
    this.#disposed = "released";
    if (this.#engine.alive && this.#address !== 0) this.#engine.memory.free(this.#address);
  }

  /** Frees its memory and its gradient's. @param by what the error of a later use names @internal */
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

// For projects whose `lib` is older than esnext.disposable and lacks the symbol; where `lib` has it, this adds nothing.
declare global {
  interface SymbolConstructor {
    readonly dispose: unique symbol;
  }
}

printByToString(Tensor.prototype);
// `using t = tensor(...)` works where the runtime, or the compiler, knows Symbol.dispose.
const disposeSymbol: symbol = (Symbol as { dispose?: symbol }).dispose ?? Symbol.for("Symbol.dispose");
Object.defineProperty(Tensor.prototype, disposeSymbol, {
  value(this: Tensor) {
    this.dispose();
  },
  configurable: true,
  writable: true,
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
   * graph is freed and gradients of leaves may hold a part; `zeroGrad()` and the step done again give what it would
   * have given.
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
 * @param values an Int32Array gives int32, everything else float32, rounded, unless `dtype` says otherwise.
 * @param shape default: that of the nested arrays, or [length] of a typed array
 * @throws ShapeError on ragged arrays, what is no shape, or one of another size; ArgumentError on non-integer indices;
 * DTypeError on anything but numbers or an unknown dtype; OutOfMemoryError
 *
 * @example
 * const matrix = tensor([[1, 2], [3, 4]]); // [2, 2]
 * const ids = tensor(new Int32Array([1, 2, 3, 4, 5, 6]), [2, 3]); // [2, 3]
 * console.log(matrix.dtype, ids.dtype); // float32 int32
 */
export function tensor(values: NestedNumbers | NumericData, shape?: readonly number[], dtype?: DType): Tensor {
  const flat: number[] = [];
  const isTyped = ArrayBuffer.isView(values) && "length" in values;
  if (isTyped) checkNumbers("tensor", values);
  const data: ArrayLike<number> = isTyped ? values : flat;
  const inferred = isTyped ? [values.length] : flatten(values, flat, 0);
  const type = dtype === undefined ? (values instanceof Int32Array ? "int32" : "float32") : checkDType("tensor", dtype);
  const out = checkShape("tensor", shape ?? inferred);
  const size = sizeOf(out);
  if (size !== data.length) throw new ShapeError(`tensor: ${data.length} values for shape [${out}]; expected ${size}.`);
  if (type === "int32") checkIntegers("tensor", data);
  return new Tensor(out, type).set(data);
}

/**
 * A tensor of zeros (torch.zeros).
 * @throws ShapeError unless shape is a list of non-negative integers; DTypeError for an unknown dtype; OutOfMemoryError
 *
 * @example
 * const t = zeros([2, 3]); // [2, 3]
 */
export function zeros(shape: readonly number[], dtype: DType = "float32"): Tensor {
  return filled("zeros", shape, 0, dtype);
}
/**
 * A tensor of ones (torch.ones). Errors as `zeros`.
 *
 * @example
 * console.log(ones([2]).data); // Float32Array(2) [ 1, 1 ]
 */
export function ones(shape: readonly number[], dtype: DType = "float32"): Tensor {
  return filled("ones", shape, 1, dtype);
}
/**
 * A tensor with `value` everywhere (torch.full). Errors as `zeros`; ArgumentError for a value that is no number, or no
 * 32-bit integer in an int32 tensor.
 *
 * @example
 * console.log(full([2], 7, "int32").indices); // Int32Array(2) [ 7, 7 ]
 */
export function full(shape: readonly number[], value: number, dtype: DType = "float32"): Tensor {
  return filled("full", shape, value, dtype);
}

function filled(where: string, shape: readonly number[], value: number, dtype: DType): Tensor {
  const sizes = checkShape(where, shape);
  checkDType(where, dtype);
  if (typeof value !== "number") throw new ArgumentError(`${where}: value must be a number; got ${shown(value)}.`);
  if (dtype === "int32") checkIntegers(where, [value]);
  const t = new Tensor(sizes, dtype);
  (dtype === "float32" ? t.data : t.indices).fill(value);
  return t;
}

/**
 * A copy of the same dtype with no history: no gradient flows to `t` (torch: t.detach().clone()).
 * @throws DTypeError for what is no tensor; DisposedError, OutOfMemoryError
 *
 * @example
 * const t = tensor([1, 2]), copy = clone(t);
 * t.data[0] = 5;
 * console.log(copy.data); // Float32Array(2) [ 1, 2 ]
 */
export function clone(t: Tensor): Tensor {
  if (!(t instanceof Tensor)) throw new DTypeError(`clone: t must be a Tensor; got ${shown(t)}.`);
  void t.address;
  const copy = new Tensor(t.shape, t.dtype);
  copy.bytes.set(t.bytes);
  return copy;
}

/** Number of elements. @internal */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1);
}

/** Returns `shape` if it is an array of sizes. @throws ShapeError @internal */
export function checkShape(where: string, shape: readonly number[]): readonly number[] {
  if (!Array.isArray(shape))
    throw new ShapeError(`${where}: shape must be an array of sizes, such as [2, 3]; got ${shown(shape)}.`);
  for (const d of shape as readonly number[]) {
    if (!Number.isSafeInteger(d) || d < 0)
      throw new ShapeError(`${where}: shape [${shape.map(shown)}] must hold non-negative integers.`);
  }
  return shape;
}

function checkDType(where: string, dtype: DType): DType {
  if (dtype !== "float32" && dtype !== "int32")
    throw new DTypeError(`${where}: dtype must be "float32" or "int32"; got ${shown(dtype)}.`);
  return dtype;
}

/** Throws unless these are numbers in an array, a typed array or something like one. @throws DTypeError */
function checkNumbers(where: string, values: ArrayLike<number>): void {
  let odd: unknown = values;
  if (ArrayBuffer.isView(values)) {
    if ("length" in values && !/BigInt/.test(Object.prototype.toString.call(values))) return;
  } else if (typeof values === "object" && typeof values?.length === "number") {
    let i = 0;
    while (i < values.length && typeof values[i] === "number") i++;
    if (i === values.length) return;
    odd = values[i];
  }
  throw new DTypeError(`${where}: expected numbers, in an array or a typed array; got ${shown(odd)}.`);
}

/** The most dimensions a tensor can have; torch has 64 too. */
const MAX_DEPTH = 64;

function checkIntegers(where: string, values: ArrayLike<number>): void {
  for (let i = 0; i < values.length; i++) {
    if ((values[i]! | 0) !== values[i])
      throw new ArgumentError(`${where}: value ${values[i]} at ${i} is not a 32-bit integer.`);
  }
}

function flatten(values: unknown, flat: number[], depth: number): number[] {
  if (typeof values === "number") {
    flat.push(values);
    return [];
  }
  if (!Array.isArray(values)) {
    const kind = typeof values;
    throw new DTypeError(
      `tensor: expected numbers, nested arrays or a typed array; got ` +
        `${kind === "object" || kind === "undefined" ? "" : `${kind} `}${shown(values)}.`,
    );
  }
  if (depth === MAX_DEPTH)
    throw new ShapeError(`tensor: arrays are nested more than ${MAX_DEPTH} deep; one may hold itself.`);
  let inner: number[] | undefined;
  for (const v of values as readonly unknown[]) {
    const shape = flatten(v, flat, depth + 1);
    if (inner && inner.join() !== shape.join())
      throw new ShapeError(`tensor: ragged array: rows of shape [${inner}] and [${shape}].`);
    inner = shape;
  }
  return [values.length, ...(inner ?? [])];
}

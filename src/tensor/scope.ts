/**
 * Lifetimes. A tensor that is created inside `scope(fn)` is disposed when fn ends, unless fn returns
 * it or `keep()` was called on it. Parameters, their gradients and optimiser state belong to no scope.
 */
import { OutOfMemoryError } from "../runtime/errors.js";
import { checkCallback, refuseLazy } from "../runtime/synchronous.js";

/** What a scope owns: a tensor, as far as lifetimes go. */
export interface Owned {
  /** Whether it belongs to no scope any more, but to the caller. */
  readonly kept: boolean;
  /**
   * Which tensors an op computed it from, and which of their values backward will read; null if no backward may come.
   */
  readonly node: { readonly inputs: readonly Owned[]; readonly reads: readonly Owned[] } | null;
  /** Frees its values, but leaves it in its graph, so that backward still finds what it was computed from. */
  release(): void;
  /** Frees it for good. */
  dispose(): void;
}

let current: Set<Owned> | undefined;
/** The tensors that each running `allOrNothing` has made so far, kept ones too. */
const attempts: Owned[][] = [];

/** Gives a new tensor to the innermost running scope, and to the innermost `allOrNothing`. */
export function enterScope(tensor: Owned): void {
  current?.add(tensor);
  attempts.at(-1)?.push(tensor);
}
/** Takes a tensor out of every scope: none will dispose of it. */
export function leaveScope(tensor: Owned): void {
  for (const s of stack) s.delete(tensor);
}
const stack: Set<Owned>[] = [];

/**
 * For each running `attempt`: how to take back what changed outside linear memory, by the object that changed. Such are
 * the random streams, which draws move on.
 */
const undoing: (Map<object, () => void> | null)[] = [];

/**
 * Runs fn. If it runs out of memory, takes back all changes that `onFailure` noted while it ran: the caller may do it
 * again, and gets what it would have got. @internal
 */
export function attempt<T>(fn: () => T): T {
  undoing.push(null);
  let failed = false;
  try {
    return fn();
  } catch (error) {
    failed = error instanceof OutOfMemoryError;
    throw error;
  } finally {
    const own = undoing.pop();
    const outer = undoing.length - 1;
    for (const [owner, undo] of own ?? []) {
      if (failed) undo();
      else if (outer >= 0 && !undoing[outer]?.has(owner)) (undoing[outer] ??= new Map()).set(owner, undo);
    }
  }
}

/**
 * Before `owner` changes: notes how to take that back.
 * @param snapshot is called at the first change within an `attempt`
 */
export function onFailure(owner: object, snapshot: () => () => void): void {
  const last = undoing.length - 1;
  if (last >= 0 && !undoing[last]?.has(owner)) (undoing[last] ??= new Map()).set(owner, snapshot());
}

/**
 * An optimiser calls this when its step is done. Running attempts forget what they noted: should they fail later, the
 * draws that led to the step stay drawn.
 */
export function settle(): void {
  undoing.fill(null);
}

/**
 * Runs fn and disposes every tensor created in it, but for those it returns (alone, in an array or
 * as the values of a plain object), which pass to the enclosing scope. Also when fn throws. Parameters,
 * gradients and what `keep()` was called on stay. If fn runs out of memory, the random streams are as before it (or as
 * after the last optimiser's step in it), so that a training step that is done again has the bits of one that never
 * failed.
 *
 * @throws ArgumentError if fn is no function; StateError if it is asynchronous or returns a promise, a generator or
 * another iterator, alone or in what it returns; whatever fn throws
 *
 * @example
 * import { init, scope, tensor, ops } from "wasm-lora";
 * await init();
 * const y = scope(() => ops.mul(ops.add(tensor([1]), tensor([2])), tensor([3])));
 * console.log(y.data); // Float32Array(1) [ 9 ]
 */
export function scope<T>(fn: () => T): T {
  checkCallback("scope", fn);
  return inScope(fn, (own) => {
    for (const tensor of own) tensor.dispose();
  });
}

/**
 * A scope for a part of a forward pass. Tensors whose values backward from the result will read live on; of the others
 * in the result's graph the values are freed, and the tensors stay as its links. All of these pass to the enclosing
 * scope.
 * @internal
 */
export function graphScope<T extends Owned>(fn: () => T): T {
  return inScope(fn, (own, result) => {
    const links = new Set<Owned>(result ? [result] : []);
    const read = new Set<Owned>();
    for (const { node } of links) {
      for (const t of node?.inputs ?? []) if (own.has(t) || t.kept) links.add(t);
      for (const t of node?.reads ?? []) read.add(t);
    }
    for (const tensor of own) {
      if (!links.has(tensor) && !read.has(tensor)) {
        tensor.dispose();
        continue;
      }
      if (!read.has(tensor)) tensor.release();
      current?.add(tensor);
    }
  });
}

/**
 * @param end what becomes of the tensors that fn created, but for those it returns, which pass to the enclosing scope;
 * of fn's result, unless it threw
 */
function inScope<T>(fn: () => T, end: (own: ReadonlySet<Owned>, result?: T) => void): T {
  const own = new Set<Owned>();
  const outer = current;
  current = own;
  stack.push(own);
  let result: T | undefined;
  try {
    const value = attempt(fn);
    refuseLazy("scope", value, "Its tensors would be freed before it ends.");
    result = value;
    return value;
  } finally {
    current = outer;
    stack.pop();
    for (const tensor of returned(result, own)) {
      own.delete(tensor);
      current?.add(tensor);
    }
    end(own, result);
  }
}

/**
 * Runs fn; if it throws, disposes every tensor created in it, also those that were kept. Ops, and functions that make
 * models, do their work in it: one that runs out of memory half-way leaves nothing behind. @internal
 */
export function allOrNothing<T>(fn: () => T): T {
  const own: Owned[] = [];
  attempts.push(own);
  let done = false;
  try {
    const result = attempt(fn);
    done = true;
    return result;
  } finally {
    attempts.pop();
    if (done) attempts.at(-1)?.push(...own);
    else for (const tensor of own) tensor.dispose();
  }
}

/** What a scope returns of its own: a tensor alone, or those among the values of an array or object. */
function returned(value: unknown, own: ReadonlySet<Owned>): Owned[] {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return [];
  const isOwn = (v: unknown): v is Owned => own.has(v as Owned);
  return isOwn(value) ? [value] : Object.values(value).filter(isOwn);
}

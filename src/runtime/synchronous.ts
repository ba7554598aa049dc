/**
 * Functions that are given to run within something (a scope, noGrad, another adapter) must be done when they return.
 * What is asynchronous or lazy would go on after it, on other terms.
 */
import { ArgumentError, StateError } from "./errors.js";

/**
 * Before fn runs: it must be a function, and none that cannot be done when it returns.
 * @throws ArgumentError, StateError
 */
export function checkCallback(where: string, fn: unknown): void {
  if (typeof fn !== "function") {
    throw new ArgumentError(
      `${where}: fn must be a function, as in ${where}(() => ...); got ${fn === null ? "null" : typeof fn}.`,
    );
  }
  const kind = Object.prototype.toString.call(fn);
  if (/Async|Generator/.test(kind))
    throw new StateError(
      `${where}: fn must be synchronous and done when it returns; it is an ${kind.slice(8, -1)}. Nothing was run.`,
    );
}

/**
 * After fn ran: what it returned must be there, not come later: no promise or other thenable, no generator, iterator or
 * stream, alone or within arrays and plain objects. A promise that is refused is nobody's any more, so its rejection is
 * taken care of.
 * @param why what would go wrong
 * @throws StateError
 */
export function refuseLazy(where: string, result: unknown, why: string): void {
  const lazy = found(result, new Set());
  if (lazy)
    throw new StateError(`${where}: fn must be synchronous and done when it returns; it returned ${lazy}. ${why}`);
}

/** Iterators that go on, later, on the terms of the moment at which they were made. */
const bound = new WeakSet<object>();

/** Lets an iterator leave such functions: it keeps to what was in force when it was made. */
export function bind<T extends object>(iterator: T): T {
  bound.add(iterator);
  return iterator;
}

function found(value: unknown, seen: Set<object>): string | undefined {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || seen.has(value) || bound.has(value))
    return undefined;
  const { then, next } = value as { then?: unknown; next?: unknown };
  if (typeof then === "function") {
    try {
      then.call(
        value,
        () => {},
        () => {},
      );
    } catch {
      /* It is refused anyway. */
    }
    return "a promise";
  }
  if (Symbol.asyncIterator in value || (typeof next === "function" && Symbol.iterator in value))
    return "an iterator, which runs later";
  const prototype: unknown = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== null && prototype !== Object.prototype) return undefined;
  seen.add(value);
  let lazy: string | undefined;
  // Every item is looked at, also after one was found: a promise that is left would reject with nobody to see it.
  for (const item of Array.isArray(value) ? (value as unknown[]) : Object.values(value))
    lazy = found(item, seen) ?? lazy;
  return lazy;
}

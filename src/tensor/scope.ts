/**
 * Lifetimes. A tensor that is created inside `scope(fn)` is disposed when fn ends, unless fn returns
 * it or `keep()` was called on it. Parameters, their gradients and optimiser state belong to no scope.
 */
import { StateError } from "../runtime/errors.js";
import type { Tensor } from "./tensor.js";

let current: Set<Tensor> | undefined;
/** What each running `allOrNothing` has made so far, kept or not. */
const attempts: Tensor[][] = [];

export function enterScope(tensor: Tensor): void {
  current?.add(tensor);
  attempts.at(-1)?.push(tensor);
}
export function leaveScope(tensor: Tensor): void {
  for (const s of stack) s.delete(tensor);
}
const stack: Set<Tensor>[] = [];

/**
 * Runs fn and disposes every tensor created in it, but for those it returns (alone, in an array or
 * as the values of a plain object), which pass to the enclosing scope. Also when fn throws. Parameters,
 * gradients and what `keep()` was called on stay.
 *
 * @throws StateError if fn returns a promise; whatever fn throws
 *
 * @example
 * import { init, scope, tensor, ops } from "wasm-lora";
 * await init();
 * const y = scope(() => ops.mul(ops.add(tensor([1]), tensor([2])), tensor([3])));
 * console.log(y.data); // Float32Array(1) [ 9 ]
 */
export function scope<T>(fn: () => T): T {
  const own = new Set<Tensor>();
  const outer = current;
  current = own;
  stack.push(own);
  let result: T | undefined;
  try {
    result = fn();
    if (result instanceof Promise) throw new StateError("scope: fn must be synchronous; its tensors would be freed before it ends.");
    return result;
  } finally {
    current = outer;
    stack.pop();
    for (const tensor of returned(result)) {
      if (own.delete(tensor)) current?.add(tensor);
    }
    for (const tensor of own) tensor.dispose();
  }
}

/**
 * Runs fn; if it throws, disposes every tensor created in it, also those that were kept. Ops and what makes
 * models run in it, so that one that runs out of memory half-way leaves nothing behind. @internal
 */
export function allOrNothing<T>(fn: () => T): T {
  const own: Tensor[] = [];
  attempts.push(own);
  let done = false;
  try {
    const result = fn();
    done = true;
    return result;
  } finally {
    attempts.pop();
    if (done) attempts.at(-1)?.push(...own);
    else for (const tensor of own) tensor.dispose();
  }
}

function returned(value: unknown): Tensor[] {
  if (typeof value !== "object" || value === null) return [];
  if (isTensor(value)) return [value];
  return Object.values(value).filter(isTensor);
}

// By shape, not instanceof: tensor.ts imports this file.
function isTensor(value: unknown): value is Tensor {
  return typeof value === "object" && value !== null && "dispose" in value && "requiresGrad" in value && "address" in value;
}

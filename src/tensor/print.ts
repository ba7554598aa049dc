/**
 * A tensor as text, for console.log and templates: values, shape and dtype; of large ones the ends, as torch prints
 * them.
 */
import type { DType } from "./dtype.js";

/** Of a tensor with more elements only the ends of each dimension are shown (torch.set_printoptions: threshold). */
const THRESHOLD = 1000;
const EDGE = 3;

/** What is shown of a tensor. */
interface Shown {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly size: number;
  readonly requiresGrad: boolean;
  readonly disposed: boolean;
  /** Throws where it has no memory. */
  valueAt(i: number): number;
}

export function printed(t: Shown, kind: string): string {
  const about = `[${t.shape.join(", ")}], ${t.dtype}${t.requiresGrad ? ", requiresGrad" : ""}`;
  try {
    const values = nested((i) => t.valueAt(i), t.shape, 0, t.size > THRESHOLD, kind.length + 1);
    return `${kind}(${values}, ${about})`;
  } catch {
    return `${kind}(${about}, ${t.disposed ? "disposed" : "without memory"})`;
  }
}

/** @param at position of the first value @param indent of further lines */
function nested(
  valueAt: (i: number) => number,
  shape: readonly number[],
  at: number,
  isLarge: boolean,
  indent: number,
): string {
  // Five digits say what a value is; integers are exact.
  if (shape.length === 0) {
    const value = valueAt(at);
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
  }
  const [n, ...rest] = shape as [number, ...number[]];
  const step = rest.reduce((a, b) => a * b, 1);
  const parts: string[] = [];
  for (let i = 0; i < n; i++) {
    if (isLarge && n > 2 * EDGE && i === EDGE) {
      parts.push("...");
      i = n - EDGE;
    }
    parts.push(nested(valueAt, rest, at + i * step, isLarge, indent + 1));
  }
  return `[${parts.join(rest.length === 0 ? ", " : `,\n${" ".repeat(indent + 1)}`)}]`;
}

/** Lets console.log of Node, Bun and Deno show `toString()`. */
export function printByToString(prototype: object): void {
  const value = function (this: object): string {
    return String(this);
  };
  for (const name of ["nodejs.util.inspect.custom", "Deno.customInspect"]) {
    Object.defineProperty(prototype, Symbol.for(name), { value, configurable: true, writable: true });
  }
}

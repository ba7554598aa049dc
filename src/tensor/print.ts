/**
 * A tensor as text, for console.log and templates: values, shape and dtype; of large ones the ends, as torch prints
 * them.
 */
import type { DType } from "./dtype.js";

/** Of a tensor with more elements only the ends of each dimension are shown (torch.set_printoptions: threshold). */
const THRESHOLD = 1000;
const EDGE = 3;

/** What is shown of a tensor. `data` throws for an int32 tensor, `indices` for the others, both for a disposed one. */
interface Shown {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly size: number;
  readonly requiresGrad: boolean;
  readonly data: ArrayLike<number>;
  readonly indices: ArrayLike<number>;
}

export function printed(t: Shown, kind: string): string {
  const about = `[${t.shape.join(", ")}], ${t.dtype}${t.requiresGrad ? ", requiresGrad" : ""}`;
  let values: ArrayLike<number>;
  try {
    values = t.dtype === "float32" ? t.data : t.indices;
  } catch {
    return `${kind}(${about}, disposed)`;
  }
  return `${kind}(${nested(values, t.shape, 0, t.size > THRESHOLD, kind.length + 1)}, ${about})`;
}

/** @param at position of the first value @param indent of further lines */
function nested(
  values: ArrayLike<number>,
  shape: readonly number[],
  at: number,
  isLarge: boolean,
  indent: number,
): string {
  // Five digits say what a value is; integers are exact.
  if (shape.length === 0)
    return Number.isInteger(values[at]) ? String(values[at]) : String(Number(values[at]!.toPrecision(5)));
  const [n, ...rest] = shape as [number, ...number[]];
  const step = rest.reduce((a, b) => a * b, 1);
  const parts: string[] = [];
  for (let i = 0; i < n; i++) {
    if (isLarge && n > 2 * EDGE && i === EDGE) {
      parts.push("...");
      i = n - EDGE;
    }
    parts.push(nested(values, rest, at + i * step, isLarge, indent + 1));
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

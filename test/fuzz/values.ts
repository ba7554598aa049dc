/**
 * Arguments of calls, as JSON that a corpus can keep: tensors and whatever JSON lacks stand in it as objects with a
 * "$".
 */
import { type Tensor, tensor } from "../../src/index.js";
import type { Random } from "./random.js";

export type Value = null | boolean | number | string | Value[] | { [key: string]: Value };

/** A tensor of values in [-1, 1), or of ids below `ids`. */
export function t(shape: readonly number[], more: { ids?: number; grad?: boolean; dead?: boolean } = {}): Value {
  return { $tensor: { shape: [...shape], ...more } as { [key: string]: Value } };
}
export const UNDEFINED: Value = { $undefined: true };

/** What no option and hardly any argument may be. */
const ODD: readonly Value[] = [
  null,
  UNDEFINED,
  true,
  false,
  0,
  1,
  -1,
  2,
  0.5,
  1.5,
  -0,
  NaN,
  Infinity,
  -Infinity,
  1e-40,
  1e39,
  1e308,
  2147483648,
  9007199254740991,
  9007199254740992,
  "",
  "1",
  "x",
  "none",
  "__proto__",
  [],
  [1],
  [0, 0],
  [1, 1, 1],
  [[1], [2, 3]],
  ["x"],
  [null],
  {},
  { length: 1e9 },
  { $bigint: true },
  { $function: true },
  { $date: true },
  { $map: true },
  { $promise: true },
  { $cyclic: true },
  { $array: "Float32Array" },
  { $array: "Float64Array" },
  { $array: "BigInt64Array" },
  { $module: true },
  t([2, 3]),
  t([3]),
  t([]),
  t([0]),
  t([2], { ids: 3 }),
  t([2, 3], { dead: true }),
  t([2, 3], { grad: true }),
];

export function odd(random: Random): Value {
  return random.pick(ODD);
}

/** The value with one thing in it replaced, taken away or added. */
export function changed(value: Value, random: Random): Value {
  const isTensor = typeof value === "object" && value !== null && "$tensor" in value;
  if (isTensor && random.once(2)) {
    const { shape, ...more } = (value as { $tensor: { shape: number[] } }).$tensor;
    const other = [...shape];
    if (random.once(3)) other.splice(random.below(other.length + 1), random.below(2), random.integer(0, 4));
    else if (other.length > 0) other[random.below(other.length)] = random.integer(0, 9);
    return t(other, { ...more, ...(random.once(6) ? { dead: true } : {}), ...(random.once(6) ? { ids: 4 } : {}) });
  }
  if (typeof value !== "object" || value === null || isTensor || random.once(4)) return odd(random);
  if (Array.isArray(value)) {
    const list = [...value];
    const at = random.below(list.length + 1);
    if (random.once(4)) list.splice(at, 0, odd(random));
    else if (random.once(4)) list.splice(at, 1);
    else if (at < list.length) list[at] = changed(list[at]!, random);
    return list;
  }
  const keys = Object.keys(value);
  const key = random.pick(keys.length > 0 && !random.once(4) ? keys : ["x", "lora_alpha", "length", "constructor"]);
  if (random.once(6)) return Object.fromEntries(Object.entries(value).filter(([k]) => k !== key));
  return { ...value, [key]: changed(value[key] ?? null, random) };
}

/** The real thing. Tensors belong to the scope that is open. */
export function built(value: Value): unknown {
  if (Array.isArray(value)) return value.map(built);
  if (typeof value !== "object" || value === null) return value;
  const [key] = Object.keys(value);
  const inner = value[key ?? ""];
  switch (key) {
    case "$undefined":
      return undefined;
    case "$bigint":
      return 1n;
    case "$function":
      return (): number => 1;
    case "$date":
      return new Date(0);
    case "$map":
      return new Map([["x", 1]]);
    case "$promise":
      return Promise.resolve(1);
    case "$module":
      return globalThis;
    case "$cyclic": {
      const list: unknown[] = [1];
      list.push(list);
      return list;
    }
    case "$array":
      return inner === "BigInt64Array"
        ? new BigInt64Array(2)
        : inner === "Float64Array"
          ? new Float64Array(2)
          : new Float32Array(6);
    case "$tensor":
      return builtTensor(inner as { shape: number[]; ids?: number; grad?: boolean; dead?: boolean });
    default:
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, built(v)]));
  }
}

function builtTensor({
  shape,
  ids,
  grad = false,
  dead = false,
}: {
  shape: number[];
  ids?: number;
  grad?: boolean;
  dead?: boolean;
}): Tensor {
  const size = shape.reduce((n, d) => n * d, 1);
  const made =
    ids === undefined
      ? tensor(
          Float32Array.from({ length: size }, (_, i) => ((i * 7919) % 199) / 100 - 1),
          shape,
        )
      : tensor(
          Int32Array.from({ length: size }, (_, i) => (i * 7919 + 1) % ids),
          shape,
        );
  if (grad) made.requiresGrad = true;
  if (dead) made.dispose();
  return made;
}

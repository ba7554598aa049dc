/** Argument checks shared by ops and layers: each throws a typed error that names place, argument, expected and got. */
import { ArgumentError, DTypeError, ShapeError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { type DType, isCompact } from "./dtype.js";
import { Tensor } from "./tensor.js";

export { shown, shownAll } from "../runtime/shown.js";

function howToMake(dtype: DType): string {
  return ` Make it with tensor(values${dtype === "int32" ? ', shape, "int32"' : ""}).`;
}

/** Throws unless t is a live tensor of this engine, of the dtype, and of the shape if one is given (null: any size). */
export function checkTensor(
  where: string,
  name: string,
  t: unknown,
  dtype: DType = "float32",
  shape?: readonly (number | null)[],
): asserts t is Tensor {
  if (!(t instanceof Tensor)) {
    const got = `${typeof t === "object" || t === undefined ? "" : `${typeof t} `}${shown(t)}`;
    const advice = Array.isArray(t) || ArrayBuffer.isView(t) ? howToMake(dtype) : "";
    throw new DTypeError(`${where}: ${name} must be a Tensor; got ${got}.${advice}`);
  }
  void t.address;
  if (t.dtype !== dtype) {
    const advice = isCompact(t.dtype) ? " Turn it into float32 by widen()." : howToMake(dtype);
    throw new DTypeError(`${where}: ${name} must be ${dtype}; got ${t.dtype}.${advice}`);
  }
  if (shape && (t.rank !== shape.length || shape.some((d, i) => d !== null && d !== t.shape[i]))) {
    throw new ShapeError(
      `${where}: ${name} has shape [${t.shape}]; expected [${shape.map((d) => d ?? "*").join(", ")}].`,
    );
  }
}

/** As `checkTensor`, for a weight, which may be stored in less memory than float32. */
export function checkWeight(
  where: string,
  name: string,
  t: unknown,
  shape?: readonly (number | null)[],
): asserts t is Tensor {
  checkTensor(where, name, t, t instanceof Tensor && isCompact(t.dtype) ? t.dtype : "float32", shape);
}

export function checkLastDimension(where: string, name: string, t: Tensor, size: number, meaning: string): void {
  if (t.rank === 0 || t.shape[t.rank - 1] !== size) {
    throw new ShapeError(`${where}: ${name} has shape [${t.shape}]; its last dimension must be ${meaning} = ${size}.`);
  }
}

export function checkSameShape(where: string, a: Tensor, b: Tensor): void {
  if (a.shape.join() !== b.shape.join())
    throw new ShapeError(`${where}: shapes [${a.shape}] and [${b.shape}] must be equal.`);
}

export function checkInteger(
  where: string,
  name: string,
  value: number,
  low: number,
  high = Number.MAX_SAFE_INTEGER,
): void {
  if (!Number.isSafeInteger(value) || value < low || value > high) {
    const range = high === Number.MAX_SAFE_INTEGER ? `at least ${low}` : `in ${low} .. ${high}`;
    throw new ArgumentError(`${where}: ${name} must be an integer ${range}; got ${shown(value)}.`);
  }
}

export function checkNumber(where: string, name: string, value: number, low: number, high = Infinity): void {
  if (typeof value !== "number" || !Number.isFinite(value) || value < low || value > high) {
    const range = low === -Infinity ? "" : high === Infinity ? ` at least ${low}` : ` in ${low} .. ${high}`;
    throw new ArgumentError(`${where}: ${name} must be a finite number${range}; got ${shown(value)}.`);
  }
}

/** As `checkNumber`, for what kernels take as float32: 1e39, which is infinite there, is refused too. */
export function checkFloat(where: string, name: string, value: number, low = -Infinity): void {
  checkNumber(where, name, value, low);
  if (!Number.isFinite(Math.fround(value))) {
    throw new ArgumentError(`${where}: ${name} must be finite in float32; got ${value}.`);
  }
}

export function checkBoolean(where: string, name: string, value: unknown): asserts value is boolean {
  if (typeof value !== "boolean") {
    throw new ArgumentError(`${where}: ${name} must be true or false; got ${shown(value)}.`);
  }
}

/** A layer's bias: a float32 tensor of `size` values, or null for none, as which undefined counts. */
export function checkBias(where: string, bias: Tensor | null | undefined, size: number): Tensor | null {
  if (bias === null || bias === undefined) return null;
  checkTensor(where, "bias", bias, "float32", [size]);
  return bias;
}

/**
 * Throws if a function got more arguments than it takes: the caller means something by them that would not happen.
 * @param advice what to write instead
 */
export function checkCount(where: string, given: ArrayLike<unknown>, most: number, advice = ""): void {
  if (given.length <= most) return;
  const last = shown(given[given.length - 1]);
  throw new ArgumentError(
    `${where}: expected ${most} argument${most === 1 ? "" : "s"}; got ${given.length}, of which the last is ` +
      `${last}.${advice}`,
  );
}

/** Throws unless every index is in 0 .. size - 1, or equal to `ignore`. */
export function checkIndices(where: string, name: string, t: Tensor, size: number, ignore?: number): void {
  const values = t.indices;
  for (let i = 0; i < values.length; i++) {
    const v = values[i]!;
    if ((v < 0 || v >= size) && v !== ignore) {
      throw new ArgumentError(`${where}: ${name} holds ${v} at position ${i}; expected 0 .. ${size - 1}.`);
    }
  }
}

/** What optimisers and clipping take for parameters. */
import { ArgumentError, ShapeError } from "../runtime/errors.js";
import { shown } from "../tensor/check.js";
import { Tensor } from "../tensor/tensor.js";

/**
 * An iterable as a list.
 * @throws ArgumentError for what newcomers give instead: a module, one parameter, names with parameters
 */
export function listOf(where: string, params: unknown): unknown[] {
  if (typeof params === "object" && params !== null && Symbol.iterator in params && !(params instanceof Map))
    return [...(params as Iterable<unknown>)];
  const isModule = typeof (params as { parameters?: unknown } | null | undefined)?.parameters === "function";
  throw new ArgumentError(
    `${where}: params must be a list of parameters; got ${shown(params)}. Write ` +
      `${isModule ? "model.parameters()" : "[...]"}.`,
  );
}

/**
 * Throws unless p is a live tensor of floats, which may be half ones, that no op computed.
 * @throws ArgumentError, DisposedError
 */
export function checkParameter(where: string, p: unknown, index: number): asserts p is Tensor {
  if (!(p instanceof Tensor)) {
    const advice = Array.isArray(p) && p[1] instanceof Tensor ? " Write model.parameters() for namedParameters()." : "";
    throw new ArgumentError(`${where}: params[${index}] must be a parameter; got ${shown(p)}.${advice}`);
  }
  if (p.dtype === "int32" || !p.isLeaf) {
    throw new ArgumentError(
      `${where}: params[${index}] of shape [${p.shape}] must be a parameter: ` +
        `${p.isLeaf ? `it is ${p.dtype}` : "it was computed by an op"}.`,
    );
  }
  void p.address;
}

/** A parameter's gradient, or null if it has none. @throws ShapeError if it has another shape; DisposedError */
export function gradientOf(where: string, p: Tensor, index: number): Tensor | null {
  const { grad } = p;
  if (!grad) return null;
  void grad.address;
  if (grad.dtype !== "float32" || grad.shape.join() !== p.shape.join()) {
    throw new ShapeError(
      `${where}: parameter ${index} has shape [${p.shape}] and a ${grad.dtype} gradient of shape [${grad.shape}]; ` +
        `they must be equal.`,
    );
  }
  return grad;
}

/** Copies of modules, with parameters of their own. */
import { Module, Parameter } from "../nn/module.js";
import { adopt } from "../random/seed.js";

/**
 * A module like this one, all below it too, with float32 copies of its parameters that train. It is made without
 * constructors, so what is in `#private` fields is not there.
 * @param shared copies of parameters that are copied once for all modules that have them
 * @throws OutOfMemoryError; then nothing is left behind
 */
export function copyOf<M extends Module>(module: M, shared: Map<Parameter, Parameter> | null = null): M {
  const made: Parameter[] = [];
  const known = new Map<object, unknown>();
  const copy = (value: unknown): unknown => {
    if (typeof value !== "object" || value === null) return value;
    if (known.has(value)) return known.get(value);
    if (value instanceof Parameter) {
      let own = shared?.get(value);
      if (!own) {
        own = new Parameter(value.shape);
        made.push(own);
        own.set(value.toFloat32());
      }
      shared?.set(value, own);
      known.set(value, own);
      return own;
    }
    if (value instanceof Module) {
      const own = Object.create(Object.getPrototypeOf(value) as object) as Module;
      known.set(value, own);
      for (const [property, part] of Object.entries(value))
        (own as unknown as Record<string, unknown>)[property] = copy(part);
      adopt(own, value);
      return own;
    }
    if (Array.isArray(value)) return value.map(copy);
    if (value instanceof Map) return new Map([...value].map(([key, part]) => [key, copy(part)]));
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, copy(part)]));
  };
  try {
    return copy(module) as M;
  } catch (error) {
    for (const p of made) p.dispose();
    throw error;
  }
}

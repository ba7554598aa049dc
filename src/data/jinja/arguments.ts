/** Arguments of what a template calls. */
import { fail, typeName, type Value } from "./values.js";

/** Arguments by place and by name. */
export type Named = ReadonlyMap<string, Value>;

/**
 * Arguments in the order of their names; undefined where one is not given.
 * @throws TemplateError for those that there are no names for
 */
export function bind(
  what: string,
  names: readonly string[],
  args: readonly Value[],
  named: Named,
): (Value | undefined)[] {
  if (args.length > names.length) fail(`${what}() takes at most ${names.length} arguments (${args.length} given)`);
  const bound: (Value | undefined)[] = names.map((_, i) => args[i]);
  for (const [name, value] of named) {
    const i = names.indexOf(name);
    if (i < 0) fail(`${what}() got an unexpected keyword argument '${name}'`);
    if (i < args.length) fail(`${what}() got multiple values for argument '${name}'`);
    bound[i] = value;
  }
  return bound;
}

export function asText(what: string, value: Value | undefined): string {
  return typeof value === "string"
    ? value
    : fail(`${what} must be str, not ${value === undefined ? "nothing" : typeName(value)}`);
}

export function asInteger(value: Value | undefined, fallback: number): number {
  if (value === undefined || value === null) return fallback;
  if (typeof value === "number" || typeof value === "boolean") return Number(value);
  return fail(`'${typeName(value)}' object cannot be interpreted as an integer`);
}

/** Values in messages. */

/** A value as messages show it, whatever it is: in short, and never an exception. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) {
    const { constructor } = value as { constructor?: unknown };
    return typeof constructor === "function" && constructor !== Object ? `a ${constructor.name}` : "an object";
  }
  return typeof value === "function" ? "a function" : String(value);
}

/** An array with its members, anything else as `shown`. */
export function shownAll(values: unknown): string {
  return Array.isArray(values) ? `[${values.map(shown).join()}]` : shown(values);
}

/** Values in messages. */

/** A value as messages show it, whatever it is: in short, and never an exception. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) {
    const name = className(value);
    return name === "" || name === "Object" ? "an object" : `a ${name}`;
  }
  return typeof value === "function" ? "a function" : String(value);
}

/** An array with its members, anything else as `shown`. */
export function shownAll(values: unknown): string {
  return Array.isArray(values) ? `[${values.map(shown).join()}]` : shown(values);
}

/**
 * The name of an object's class. The library's classes have theirs in a static `className`, since minifiers rename
 * classes; a class of the language or of the user is called as it calls itself.
 */
export function className(value: object): string {
  const { constructor: made } = value as { constructor?: unknown };
  if (typeof made !== "function") return "";
  // Not an inherited one: a user's layer that extends ours is another class.
  return Object.hasOwn(made, "className") ? String((made as { className?: unknown }).className) : made.name;
}

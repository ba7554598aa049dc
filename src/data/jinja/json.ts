/** json.dumps, as transformers gives it to templates: no escapes for HTML, and characters beyond ASCII as they are. */
import { fail, Float, floating, integer, isList, isMap, textOf, typeName, type Value } from "./values.js";

/** Arguments of json.dumps. */
export interface JsonOptions {
  indent: Value;
  separators: Value;
  ensureAscii: boolean;
  sortKeys: boolean;
}

export function toJson(value: Value, { indent, separators, ensureAscii, sortKeys }: JsonOptions): string {
  const step = typeof indent === "number" ? " ".repeat(Math.max(0, indent)) : indent === null ? null : textOf(indent);
  const [item, colon] = isList(separators) ? separators.map(textOf) : [step === null ? ", " : ",", ": "];
  const string = (text: string): string => {
    const json = JSON.stringify(text);
    if (!ensureAscii) return json;
    return json.replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  };
  const key = (name: Value): string => {
    if (typeof name === "string") return string(name);
    if (typeof name === "number" || typeof name === "boolean" || name === null || name instanceof Float)
      return string(write(name, ""));
    return fail(`keys must be str, int, float, bool or None, not ${typeName(name)}`);
  };
  const joined = (parts: readonly string[], before: string, open: string, close: string): string => {
    if (parts.length === 0) return open + close;
    if (step === null) return open + parts.join(item) + close;
    const line = `\n${before}${step}`;
    return `${open}${line}${parts.join(`${item}${line}`)}\n${before}${close}`;
  };
  const write = (one: Value, before: string): string => {
    if (one === null) return "null";
    if (typeof one === "string") return string(one);
    if (typeof one === "number") return integer(one);
    if (typeof one === "boolean") return String(one);
    if (one instanceof Float) return floating(one.value).replace("nan", "NaN").replace("inf", "Infinity");
    const deeper = before + (step ?? "");
    if (isList(one))
      return joined(
        one.map((part) => write(part, deeper)),
        before,
        "[",
        "]",
      );
    if (isMap(one)) {
      const entries = Array.from(one, ([name, part]) => [key(name), part] as const);
      if (sortKeys) entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
      return joined(
        entries.map(([name, part]) => `${name}${colon}${write(part, deeper)}`),
        before,
        "{",
        "}",
      );
    }
    return fail(`Object of type ${typeName(one)} is not JSON serializable`);
  };
  return write(value, "");
}

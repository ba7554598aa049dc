/** Rows in JSON, one a line or all in a list. Where it is broken is found here, since engines tell it differently. */
import { asObject, JsonCursor, show } from "../io/json.js";
import { FormatError } from "../runtime/errors.js";
import type { FoundRow } from "./found_row.js";

/**
 * A JSON text's value.
 * @param fail throws the caller's error; the message says what was expected, what came, and in which line and column
 * @param firstLine the number of the text's first line in its file
 */
export function strictJson(text: string, fail: (message: string) => never, firstLine = 1): unknown {
  const cursor = new JsonCursor(text, fail, firstLine);
  cursor.skipValue(true);
  cursor.end(" \t\n\r");
  return JSON.parse(text);
}

/** Each line of a text that is not blank, with its number. Within a value of JSON no line can end. */
function* linesOf(text: string): Generator<[line: string, number: number]> {
  let number = 1;
  for (const line of text.split(/\r\n?|\n/)) {
    if (/[^ \t]/.test(line)) yield [line, number];
    number++;
  }
}

/** @throws FormatError naming the line and column */
export function jsonLines(text: string, name: string): FoundRow[] {
  return Array.from(linesOf(text), ([line, number]) => ({
    value: strictJson(
      line,
      (message) => {
        // A value that goes on in the next line.
        const advice = message.endsWith("the end of the text")
          ? " JSON Lines have a whole object on each line; what is spread over lines, or a list, is a .json file."
          : "";
        throw new FormatError(`${name}: ${message}.${advice}`);
      },
      number,
    ),
    where: `${name}:${number}`,
  }));
}

/** @throws FormatError naming the line and column, or what the file holds instead of a list */
export function jsonRows(text: string, name: string): FoundRow[] {
  if (holdsLines(text)) return jsonLines(text, name);
  const value = strictJson(text, (message) => {
    throw new FormatError(`${name}: ${message}.`);
  });
  return listOf(value, name).map((row, i) => ({ value: row, where: `${name}: row ${i + 1}` }));
}

/** Whether a text is JSON Lines: its first line is a whole object, and another line follows. */
function holdsLines(text: string): boolean {
  const lines = linesOf(text);
  const first = lines.next();
  if (first.done || lines.next().done || !/^[ \t]*\{/.test(first.value[0])) return false;
  try {
    JSON.parse(first.value[0]);
    return true;
  } catch {
    return false;
  }
}

/** The list that a file consists of, or the only one in its object. */
function listOf(value: unknown, name: string): unknown[] {
  if (Array.isArray(value)) return value;
  const lists = Object.entries(asObject(value) ?? {}).filter((entry): entry is [string, unknown[]] =>
    Array.isArray(entry[1]),
  );
  if (lists.length === 1) return lists[0]![1];
  const got =
    lists.length === 0 ? show(value) : `an object with the lists ${lists.map(([key]) => show(key)).join(", ")}`;
  throw new FormatError(
    `${name}: the file holds ${got}; expected a list of objects, or an object with one such list: {"data": [...]}.`,
  );
}

/** The rows of a file of training data, whatever format they lie in. */
import { asObject, checkText, show } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { csvRows } from "./csv_rows.js";
import type { FoundRow } from "./found_row.js";
import { jsonLines, jsonRows } from "./json_rows.js";
import { parquetRows } from "./parquet_rows.js";
import { decodeText } from "./text.js";

/** One row of a file, or of a request. */
export interface DataRow {
  /** Its columns by their names. */
  value: Record<string, unknown>;
  /** Its place, as errors name it: "chats.jsonl:12" (a line), "rows.json: row 3". */
  where: string;
}

type Reader = (bytes: Uint8Array, name: string) => Promise<FoundRow[]> | FoundRow[];

const READERS: Readonly<Record<string, Reader>> = {
  jsonl: (bytes, name) => jsonLines(decodeText(bytes, name), name),
  ndjson: (bytes, name) => jsonLines(decodeText(bytes, name), name),
  json: (bytes, name) => jsonRows(decodeText(bytes, name), name),
  csv: (bytes, name) => csvRows(decodeText(bytes, name), name, [",", ";", "\t"]),
  tsv: (bytes, name) => csvRows(decodeText(bytes, name), name, ["\t"]),
  parquet: parquetRows,
};

const extensionOf = (name: string): string => /\.([^./\\]*)$/.exec(name)?.[1]?.toLowerCase() ?? "";

/**
 * Whether a file holds rows, by its name's end: .jsonl, .ndjson, .json, .csv, .tsv or .parquet.
 *
 * @example
 * console.log(data.isRowsFile("chats.jsonl"), data.isRowsFile("novel.txt")); // true false
 */
export function isRowsFile(name: string): boolean {
  return Object.hasOwn(READERS, extensionOf(name));
}

/**
 * The rows of a file, by its name's end: JSON Lines (.jsonl, .ndjson: one object a line, blank lines between them left
 * out), JSON (.json: a list of objects, an object with one list of them such as {"data": [...]}, or JSON Lines under
 * that name), tables with a header line (.csv, by commas, or by semicolons or tabs where the header has no comma; .tsv)
 * and Parquet. Texts are UTF-8 or UTF-16, with or without a byte order mark, their lines ending in LF or CRLF. An
 * object that has one key twice is refused, since one of the two values would be lost.
 *
 * @param name of the file; its end tells the format, and errors name it
 * @throws FormatError naming the file and the line and column, or the row, for what is not that format, or holds no
 * row; ArgumentError for another end of the name
 *
 * @example
 * const bytes = new TextEncoder().encode('{"prompt": "2 + 2 =", "completion": " 4"}\n');
 * const rows = await data.parseRows(bytes, "sums.jsonl");
 * console.log(rows[0].value.prompt, rows[0].where); // 2 + 2 = sums.jsonl:1
 */
export async function parseRows(bytes: Uint8Array, name: string): Promise<DataRow[]> {
  checkText("parseRows", "name", name);
  if (!(bytes instanceof Uint8Array))
    throw new ArgumentError(`parseRows: bytes must be a Uint8Array; got ${shown(bytes)}.`);
  if (!isRowsFile(name)) {
    const ends = Object.keys(READERS).map((end) => `.${end}`);
    throw new ArgumentError(`parseRows: name is ${show(name)}; expected one that ends in ${ends.join(", ")}.`);
  }
  const found = await READERS[extensionOf(name)]!(bytes, name);
  if (found.length === 0) throw new FormatError(`${name}: the file holds no rows; expected one or more.`);
  return found.map(({ value, where }) => {
    const object = asObject(value);
    if (object === undefined)
      throw new FormatError(`${where}: the row is ${show(value)}; expected an object: {"text": "..."}.`);
    return { value: object, where };
  });
}

/** Rows of a table in text, one header line first. */
import { show } from "../io/json.js";
import { FormatError } from "../runtime/errors.js";
import type { FoundRow } from "./found_row.js";

const FAULTS: Readonly<Record<string, string>> = {
  MissingQuotes: 'a quoted field begins here, and no closing " ends it',
  InvalidQuotes: 'a quoted field begins here, and text follows its closing "; a " within a field is written ""',
};

/**
 * @param separators the first that stands in the header separates fields
 * @throws FormatError naming the line and column
 */
export async function csvRows(text: string, name: string, separators: readonly string[]): Promise<FoundRow[]> {
  const { default: papaparse } = await import("papaparse/papaparse.min.js");
  const [header = ""] = text.split(/[\r\n]/, 1);
  const delimiter = separators.find((separator) => header.includes(separator)) ?? separators[0]!;
  const source = withLineFeeds(text, delimiter);
  const { data, errors } = papaparse.parse<string[]>(source, { delimiter, newline: "\n" });
  const [fault] = errors;
  if (fault !== undefined) {
    // The parser tells where the field's text begins, behind its quote.
    const before = source.slice(0, Math.max(0, (fault.index ?? 0) - 1)).split("\n");
    throw new FormatError(
      `${name}: line ${before.length}, column ${before.at(-1)!.length + 1}: ` +
        `${FAULTS[fault.code] ?? fault.message.replace(/\.$/, "")}.`,
    );
  }
  let columns: string[] | undefined;
  let line = 1;
  const rows: FoundRow[] = [];
  for (const fields of data) {
    const start = line;
    line += 1 + fields.reduce((breaks, field) => breaks + field.split("\n").length - 1, 0);
    if (fields.length === 1 && fields[0]!.trim() === "") continue;
    if (columns === undefined) columns = columnsOf(fields, `${name}: line ${start}`);
    else if (fields.length !== columns.length) {
      throw new FormatError(
        `${name}: line ${start}: the row has ${fields.length} fields, the header ${columns.length} ` +
          `(${show(columns.join(delimiter))}); a field that holds a separator is put in quotes.`,
      );
    } else {
      const entries = columns.map((column, i) => [column, fields[i]!] as const).filter(([column]) => column !== "");
      rows.push({ value: Object.fromEntries(entries), where: `${name}:${start}` });
    }
  }
  return rows;
}

/** The columns' names; one without a name, as tools write before their row numbers, is "". */
function columnsOf(fields: readonly string[], where: string): string[] {
  const columns = fields.map((field) => field.trim());
  const twice = columns.find((column, i) => column !== "" && columns.indexOf(column) < i);
  if (twice !== undefined)
    throw new FormatError(`${where}: the header has two columns ${show(twice)}; give each another name.`);
  return columns;
}

/** The text with LF for CRLF and CR, but within quotes, where they are a field's own. */
function withLineFeeds(text: string, delimiter: string): string {
  if (!text.includes("\r")) return text;
  const parts = text.split('"');
  // A " opens a field where one begins, or once more behind the one that closed it (""). Elsewhere it is a character.
  let [wasQuoted, isQuoted] = [true, false];
  for (const [i, part] of parts.entries()) {
    if (!isQuoted) parts[i] = part.replace(/\r\n?/g, "\n");
    const opens = part === "" ? wasQuoted : part.endsWith(delimiter) || /[\r\n]$/.test(part);
    [wasQuoted, isQuoted] = [isQuoted, !isQuoted && opens];
  }
  return parts.join('"');
}

/** Rows of training data from a request: JSON Lines, or a list in JSON. Each is judged, and all bad ones are named. */
import { ArgumentError, data, FormatError } from "wasm-lora";
import { HttpError, readBody } from "./http.mjs";
import { LIMITS } from "./limits.mjs";

/** Rows are called after the file that they would be. */
const NAMES = {
  "application/jsonl": "rows.jsonl",
  "application/x-ndjson": "rows.jsonl",
  "application/json": "rows.json",
};

const encoder = new TextEncoder();

/**
 * A request's rows as tokens. One bad row, and none is taken.
 * @returns { rows, tokens, scored, truncated }
 * @throws HttpError 400 with every bad row and why, 413, 415; FormatError for what holds no rows
 */
export async function readRows(request, base) {
  const { rows, faults } = await parse(request);
  const all = rows.length + faults.length;
  const tokenised = { rows: [], truncated: 0, skipped: [] };
  for (const row of rows) {
    const found = judged(row.where, faults, () => base.tokenize(data.readExamples([row])));
    tokenised.truncated += found?.truncated ?? 0;
    tokenised.rows.push(...(found?.rows ?? []));
  }
  if (faults.length > 0) {
    const named = faults.slice(0, LIMITS.faultsNamed);
    throw new HttpError(
      400,
      "ERR_ROWS",
      `${faults.length} of ${all} rows cannot be trained on, and none was taken; the first is ${named[0].row}: ` +
        named[0].reason,
      {},
      { rows: named },
    );
  }
  // Each is good; whether they are of one kind is seen in all of them.
  data.readExamples(rows);
  const { tokens, scored, truncated } = data.summarize(tokenised);
  return { rows: tokenised.rows, tokens, scored, truncated };
}

async function parse(request) {
  const type = request.headers.get("content-type")?.split(";")[0].trim().toLowerCase() ?? "none";
  if (!Object.hasOwn(NAMES, type)) {
    throw new HttpError(
      415,
      "ERR_CONTENT_TYPE",
      `the rows' content-type must be ${Object.keys(NAMES).join(" or ")}; got ${type.slice(0, 60)}.`,
    );
  }
  const name = NAMES[type];
  const bytes = await readBody(request);
  try {
    return { rows: await data.parseRows(bytes, name), faults: [] };
  } catch (error) {
    if (!(error instanceof FormatError) || name !== "rows.jsonl") throw error;
    const found = await parseLines(data.decodeText(bytes, name), name);
    if (found.faults.length === 0) throw error;
    return found;
  }
}

/** Line by line, so that one that is broken does not hide the others. */
async function parseLines(text, name) {
  const rows = [];
  const faults = [];
  for (const [i, line] of text.split(/\r\n?|\n/).entries()) {
    if (!/[^ \t]/.test(line)) continue;
    const where = `${name}:${i + 1}`;
    // What and where the fault is, the library says the same in every engine.
    await data.parseRows(encoder.encode(line), name).then(
      ([{ value }]) => rows.push({ value, where }),
      ({ message }) => faults.push({ row: where, reason: message.replace(/^[^:]*:(1:| line 1,) /, "") }),
    );
  }
  return { rows, faults };
}

function judged(row, faults, read) {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof ArgumentError)) throw error;
    faults.push({ row, reason: error.message.replace(`${row}: `, "") });
    return undefined;
  }
}

/** Rows as what a Durable Object keeps, and back. */
export function packRows(rows) {
  return {
    ids: join(rows.map(({ ids }) => ids)),
    labels: join(rows.map(({ labels }) => labels)),
    lengths: Int32Array.from(rows, ({ ids }) => ids.length),
  };
}

export function unpackRows({ ids, labels, lengths }) {
  let end = 0;
  return Array.from(lengths, (length, i) => {
    const start = end;
    end += length;
    return { ids: ids.slice(start, end), labels: labels.slice(start, end), where: `row ${i + 1}` };
  });
}

function join(lists) {
  const all = new Int32Array(lists.reduce((n, { length }) => n + length, 0));
  let at = 0;
  for (const list of lists) {
    all.set(list, at);
    at += list.length;
  }
  return all;
}

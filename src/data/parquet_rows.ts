/** Rows of a Parquet file. */
import { show } from "../io/json.js";
import { FormatError, WasmLoraError } from "../runtime/errors.js";
import type { FoundRow } from "./found_row.js";

/** A page may grow to so many times its bytes, and this beside: a hostile file must not take all memory. */
const MOST_GROWTH = 2000;
const GROWTH_ALLOWANCE = 16 << 20;
/** A few bytes may stand for any number of equal rows, and these would not fit in memory. */
const MOST_ROWS = 1 << 22;
const MOST_VALUES = 1 << 27;

/** @throws FormatError */
export async function parquetRows(bytes: Uint8Array, name: string): Promise<FoundRow[]> {
  // By their modules' paths: hyparquet's face for servers asks for a file system, and a page need not load all of it.
  const { parquetMetadata, parquetSchema } = await import("hyparquet/src/metadata.js");
  const { parquetReadAsync } = await import("hyparquet/src/read.js");
  const { assembleAsync, asyncGroupToRows } = await import("hyparquet/src/rowgroup.js");
  const { snappyUncompress } = await import("hyparquet/src/snappy.js");
  const { gunzip } = await import("hyparquet-compressors/src/gzip.js");
  const { decompressLz4, decompressLz4Raw } = await import("hyparquet-compressors/src/lz4.js");
  const { decompress } = await import("fzstd");
  const fail = (message: string, cause?: unknown): never => {
    throw new FormatError(`${name}: not a Parquet file that can be read: ${message}.`, { cause });
  };
  const into = (codec: (input: Uint8Array, output: Uint8Array) => unknown) => (input: Uint8Array, length: number) => {
    const output = new Uint8Array(length);
    codec(input, output);
    return output;
  };
  const bounded = (codec: (input: Uint8Array, length: number) => Uint8Array) => (input: Uint8Array, length: number) =>
    length >= 0 && length <= MOST_GROWTH * input.length + GROWTH_ALLOWANCE
      ? codec(input, length)
      : fail(`a page of ${input.length} bytes says that it holds ${length}`);
  // A copy, since the reader keeps views of what it is given, and pages may not share their memory.
  const { buffer } = new Uint8Array(bytes);
  // Nothing is read before all columns are known: where a damaged file ends the planning, none of them fails unheard.
  let begin = (): void => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const file = {
    byteLength: bytes.length,
    slice: async (start: number, end?: number) => {
      await begun;
      return buffer.slice(start, end);
    },
  };
  try {
    const metadata = parquetMetadata(buffer, { geoparquet: false });
    const { num_rows: count, row_groups: parts } = metadata;
    if (count > MOST_ROWS) fail(`it holds ${count} rows, and at most ${MOST_ROWS} are taken; write it in parts`);
    const values = parts
      .flatMap(({ columns }) => columns)
      .reduce((n, { meta_data: column }) => n + Number(column?.num_values ?? 0), 0);
    if (values > MOST_VALUES)
      fail(`it holds ${values} values, and at most ${MOST_VALUES} are taken; write it in parts`);
    const groups = parquetReadAsync({
      file,
      metadata,
      compressors: {
        SNAPPY: bounded(into(snappyUncompress)),
        GZIP: bounded(into(gunzip)),
        LZ4: bounded(decompressLz4),
        LZ4_RAW: bounded(decompressLz4Raw),
        ZSTD: bounded(into(decompress)),
      },
    });
    begin();
    await Promise.all(
      groups.flatMap(({ groupRows, asyncColumns }) =>
        asyncColumns.map(async ({ data: pages, pathInSchema }) => {
          const values = (await pages).data.reduce((n, { length }) => n + length, 0);
          if (values !== groupRows)
            fail(`its column ${show(pathInSchema.join("."))} has ${values} values for ${groupRows} rows`);
        }),
      ),
    );
    const schema = parquetSchema(metadata);
    const rows: FoundRow[] = [];
    for (const group of groups) {
      const assembled = assembleAsync(group, schema);
      for (const row of await asyncGroupToRows(assembled, 0, group.groupRows, undefined, "object"))
        rows.push({ value: plain(row), where: `${name}: row ${rows.length + 1}` });
    }
    return rows;
  } catch (error) {
    if (error instanceof WasmLoraError) throw error;
    return fail(error instanceof Error ? error.message.replace(/\.$/, "") : String(error), error);
  }
}

/**
 * A value as JSON would hold it. A struct has all fields of its column in each row, with null where the row has none:
 * those are left out.
 */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (Array.isArray(value)) return value.map(plain);
  if (ArrayBuffer.isView(value)) return Array.from(value as Uint8Array, plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, field]) => field !== null && field !== undefined)
      .map(([key, field]) => [key, plain(field)]),
  );
}

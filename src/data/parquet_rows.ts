/** Rows of a Parquet file. */
import { FormatError, WasmLoraError } from "../runtime/errors.js";
import type { FoundRow } from "./found_row.js";

/** A page may grow to so many times its bytes, and this beside: a hostile file must not take all memory. */
const MOST_GROWTH = 2000;
const GROWTH_ALLOWANCE = 16 << 20;
/** More rows than that have no room in memory. */
const MOST_ROWS = 50_000_000;

/** @throws FormatError */
export async function parquetRows(bytes: Uint8Array, name: string): Promise<FoundRow[]> {
  // By their modules' paths: hyparquet's face for servers asks for a file system, and a page need not load all of it.
  const { parquetMetadataAsync } = await import("hyparquet/src/metadata.js");
  const { parquetReadObjects } = await import("hyparquet/src/read.js");
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
  const file = { byteLength: bytes.length, slice: (start: number, end?: number) => buffer.slice(start, end) };
  try {
    const metadata = await parquetMetadataAsync(file, { geoparquet: false });
    if (metadata.num_rows > MOST_ROWS) fail(`it holds ${metadata.num_rows} rows; at most ${MOST_ROWS} are taken`);
    const rows = await parquetReadObjects({
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
    return rows.map((row, i) => ({ value: plain(row), where: `${name}: row ${i + 1}` }));
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

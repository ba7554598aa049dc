/** Files that come as streams: from a server, from a page's cache, or from a folder that a visitor picked. */
import { FormatError } from "../runtime/errors.js";

/** A file whose bytes come in order, as often as they are asked for. */
export interface StreamedFile {
  /** Where it is, for errors. */
  readonly path: string;
  /** Its bytes; null where nobody says before the end. */
  readonly size: number | null;
  /** The bytes from there on, in parts of any length. Who leaves the loop early ends the stream. */
  stream(from: number): AsyncIterable<Uint8Array>;
}

/** A folder of such files. */
export interface StreamedFolder {
  /** Where it is, for errors. */
  readonly path: string;
  /** What is in it, where that is known. */
  readonly names?: readonly string[] | undefined;
  /**
   * The file of that name. Its path is this one's, a slash and the name.
   * @param optional a file that is not there is undefined then
   * @throws FileError
   */
  open(name: string, optional: boolean): Promise<StreamedFile | undefined>;
}

/** Takes a stream as it is needed, in parts of the length that is asked for. */
export class StreamReader {
  readonly #parts: AsyncIterator<Uint8Array>;
  /** What has come and was not taken. */
  #held: Uint8Array = new Uint8Array(0);

  constructor(parts: AsyncIterable<Uint8Array>) {
    this.#parts = parts[Symbol.asyncIterator]();
  }

  /** The next bytes, at most so many, as they come: a view for now. Undefined at the end. */
  async part(most: number): Promise<Uint8Array | undefined> {
    while (this.#held.length === 0) {
      const next = await this.#parts.next();
      if (next.done) return undefined;
      this.#held = next.value;
    }
    const part = this.#held.subarray(0, most);
    this.#held = this.#held.subarray(part.length);
    return part;
  }

  /** The next bytes, so many, or all that are left. */
  async take(length: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let left = length;
    while (left > 0) {
      const part = await this.part(left);
      if (!part) break;
      parts.push(part);
      left -= part.length;
    }
    return joined(parts);
  }

  /** Gives bytes back: they come again. */
  giveBack(bytes: Uint8Array): void {
    this.#held = joined([bytes, this.#held]);
  }

  /** Ends the stream. */
  async close(): Promise<void> {
    await this.#parts.return?.();
  }
}

/** Configurations, tokenizers and indices are smaller by far. */
const MOST_BYTES = 128 << 20;

/**
 * All of a small file.
 * @param onPart is told how many bytes have come
 * @throws FormatError for one without an end
 */
export async function readStreamed(file: StreamedFile, onPart?: (loaded: number) => void): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let loaded = 0;
  for await (const part of file.stream(0)) {
    parts.push(part);
    loaded += part.length;
    if (loaded > MOST_BYTES)
      throw new FormatError(
        `${file.path}: it is longer than ${MOST_BYTES} bytes, the most that is read of a file that is not weights; ` +
          `check the address.`,
      );
    onPart?.(loaded);
  }
  return joined(parts);
}

/**
 * The place in the file at which an answer begins that was asked for its bytes from there on: there, or at the start
 * where the server took no range.
 * @param size of the file; null where nobody knows
 * @throws FormatError for an answer from elsewhere in the file
 * @internal
 */
export async function startOf(
  { status, headers, body }: Response,
  from: number,
  size: number | null,
  path: string,
): Promise<number> {
  if (status !== 206) return 0;
  const range = headers.get("content-range");
  const start = /^bytes (\d{1,15})-/.exec(range ?? "")?.[1];
  // A page may not be shown the range, and not every server says the length.
  const length = headers.get("content-encoding") ? null : headers.get("content-length");
  const isElsewhere =
    range !== null ? Number(start) !== from : size !== null && length !== null && Number(length) !== size - from;
  if (isElsewhere) {
    await body?.cancel();
    throw new FormatError(
      `${path}: the server was asked for the bytes from ${from} on, and sent ${range ?? `${length} bytes`} instead; ` +
        `try again, and if that does not help, look for what changes it on its way (a proxy, a mirror).`,
    );
  }
  return from;
}

/** The parts of a body, as fetch and Blob have them. Not every browser can loop over one. @internal */
export async function* partsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array, void> {
  const reader = body.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    await reader.cancel();
  }
}

/** The bytes from `from` on of a body that begins at `at` of its file. @returns where it ended @internal */
export async function* partsFrom(
  body: ReadableStream<Uint8Array>,
  at: number,
  from: number,
): AsyncGenerator<Uint8Array, number> {
  for await (const part of partsOf(body)) {
    const skipped = Math.max(0, from - at);
    at += part.length;
    if (skipped < part.length) yield part.subarray(skipped);
  }
  return at;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((n, { length }) => n + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

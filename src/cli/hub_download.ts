/**
 * One file from the hub into the cache: resumed where a part of it is there, compared with its checksum, and under its
 * name only when it is whole.
 */
import { createHash, type Hash } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { exists } from "../io/files.js";
import type { HubName } from "../io/hub_name.js";
import { FileError, FormatError, WasmLoraError } from "../runtime/errors.js";
import { ATTEMPTS, bodyOf, reasonOf, request, Unreachable, type Hub, type HubFile } from "./hub_client.js";

/** A part that another program left is taken over when nobody has written it for so long. */
const ABANDONED_MS = 60_000;

/** Apart from huggingface_hub's <checksum>.incomplete, for its locks are none that can be taken here. */
function partPath(blobs: string, checksum: string): string {
  return join(blobs, `${checksum}.wasm-lora.incomplete`);
}

/** How much is there of a file, from an earlier try or of what huggingface_hub began and left. */
export function claimPart(blobs: string, { checksum, size }: HubFile): number {
  const path = partPath(blobs, checksum);
  const theirs = join(blobs, `${checksum}.incomplete`);
  const left = statSync(theirs, { throwIfNoEntry: false });
  if (left && Date.now() - left.mtimeMs > ABANDONED_MS && !exists(path)) {
    try {
      renameSync(theirs, path);
    } catch {
      // It has been finished or removed meanwhile.
    }
  }
  return Math.min(size, statSync(path, { throwIfNoEntry: false })?.size ?? 0);
}

/**
 * @param url where its bytes are
 * @param blobs the folder of the repository's blobs; its lock must be held
 * @param onBytes told how many more are there; fewer than 0 where a part turned out to be of no use
 * @throws Unreachable; FileError; FormatError for contents that are not those of the checksum, which are deleted
 */
export async function download(
  hub: Hub,
  name: HubName,
  url: string,
  file: HubFile,
  blobs: string,
  onBytes: (count: number) => void,
): Promise<void> {
  const part = new Part(partPath(blobs, file.checksum), file);
  try {
    let isFresh = part.length === 0;
    for (let failures = 0; ; ) {
      const before = part.length;
      let reason = "";
      try {
        if (part.length < file.size) reason = await receive(part, hub, name, url, onBytes);
      } catch (error) {
        if (error instanceof WasmLoraError || error instanceof Unreachable) throw error;
        reason = reasonOf(error);
      }
      if (part.length < file.size) {
        failures = part.length > before ? 0 : failures + 1;
        if (failures === ATTEMPTS)
          throw new Unreachable(`${file.path} ended after ${part.length} of ${file.size} bytes (${reason})`);
        continue;
      }
      if (part.isRight()) break;
      onBytes(-part.length);
      // A part of yesterday may have been damaged since; what came just now is what the server has.
      if (isFresh) throw part.refuse(url);
      part.clear();
      isFresh = true;
    }
    part.finish(join(blobs, file.checksum));
  } finally {
    part.close();
  }
}

/** @returns why it ended, if that was too early */
async function receive(
  part: Part,
  hub: Hub,
  name: HubName,
  url: string,
  onBytes: (count: number) => void,
): Promise<string> {
  const response = await request(hub, name, url, { from: part.length });
  const start = response.status === 206 ? /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] : "0";
  if (response.status === 416 || Number(start) !== part.length) {
    // The server takes no ranges, or has another file: from the start.
    onBytes(-part.length);
    part.clear();
    if (start !== "0" || response.status === 416) {
      await response.body?.cancel();
      return "the server does not continue it";
    }
  }
  for await (const bytes of bodyOf(response)) {
    if (bytes.length > part.file.size - part.length) throw part.refuse(url);
    part.append(bytes);
    onBytes(bytes.length);
  }
  return "the connection was closed";
}

/** A file that is being received, and the checksum of what is there. */
class Part {
  length = 0;
  readonly #fd: number;
  #hash: Hash;
  #isOpen = true;

  constructor(
    readonly path: string,
    readonly file: HubFile,
  ) {
    this.#fd = this.#try(() => openSync(path, "a+"));
    this.#hash = this.#newHash();
    const buffer = new Uint8Array(1 << 20);
    for (let count = 1; count > 0; ) {
      count = this.#try(() => readSync(this.#fd, buffer, 0, buffer.length, this.length));
      this.#hash.update(buffer.subarray(0, count));
      this.length += count;
    }
    if (this.length > file.size) this.clear();
  }

  append(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) done += this.#try(() => writeSync(this.#fd, bytes, done));
    this.#hash.update(bytes);
    this.length += bytes.length;
  }

  clear(): void {
    this.#try(() => ftruncateSync(this.#fd));
    this.length = 0;
    this.#hash = this.#newHash();
  }

  isRight(): boolean {
    return this.#hash.digest("hex") === this.file.checksum;
  }

  /** What came is something else: it goes. */
  refuse(url: string): FormatError {
    this.close();
    rmSync(this.path, { force: true });
    return new FormatError(
      `${this.file.path} as it came from ${url} is not what its size and checksum say (${this.file.size} ` +
        `bytes, ${this.file.checksum}); it was deleted. Try again; if that does not help, look for what changes it ` +
        `on its way (a proxy, a mirror).`,
    );
  }

  /** Gives it its name. */
  finish(path: string): void {
    this.#try(() => {
      fsyncSync(this.#fd);
      this.close();
      renameSync(this.path, path);
    });
  }

  close(): void {
    if (this.#isOpen) closeSync(this.#fd);
    this.#isOpen = false;
  }

  /** Git's checksum is of a blob's header and contents. */
  #newHash(): Hash {
    const { checksum, size } = this.file;
    return checksum.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
  }

  #try<T>(work: () => T): T {
    try {
      return work();
    } catch (cause) {
      throw new FileError(
        `cannot write ${this.path}: ${(cause as Error).message}; HF_HUB_CACHE says where the cache is.`,
        {
          cause,
        },
      );
    }
  }
}

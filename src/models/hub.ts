/**
 * Models of the hub by fetch, in every runtime. Where there is a Cache storage, as in a page, their files are kept
 * there in parts, so that a download that was interrupted goes on, and the next visit downloads nothing.
 *
 * Source: https://huggingface.co/docs/hub/api (api/models/<repo>/revision/<revision>, <repo>/resolve/<commit>/<file>).
 */
import { parseJson } from "../io/files.js";
import { HUB, isCommit, spellHubName, type HubName } from "../io/hub_name.js";
import { asObject, show } from "../io/json.js";
import { partsFrom, partsOf, readStreamed, startOf, type StreamedFolder } from "../io/streamed_file.js";
import { FileError, FormatError } from "../runtime/errors.js";

/** The name of its Cache storage. */
const STORAGE = "wasm-lora-hub";
/** So much is kept as one entry: what is lost when a download ends, and what is in memory beside the weights. */
const PART_BYTES = 16 << 20;
/** After so many failures in a row a server counts as unreachable. */
const ATTEMPTS = 5;

/** Where a revision's files are, and how large they are. */
interface Listing {
  commit: string;
  sizes: ReadonlyMap<string, number>;
}

/**
 * The folder of a model on the hub, as it is now; without a connection, as it was when it was last asked for.
 * @param partBytes what is kept as one entry
 * @throws FileError naming what is not there or could not be asked for; FormatError for an answer that is none
 */
export async function hubFolder(
  name: HubName,
  endpoint: string,
  signal: AbortSignal | undefined,
  partBytes = PART_BYTES,
): Promise<StreamedFolder> {
  const { repo } = name;
  const storage = await openStorage();
  const { commit, sizes } = await list(name, endpoint, storage, signal);
  const folder = `${endpoint}/${repo}/resolve/${commit}`;
  return {
    path: `memory:${folder}`,
    names: [...sizes.keys()],
    open: async (file, optional) => {
      const size = sizes.get(file);
      const url = `${folder}/${file}`;
      if (size !== undefined) return { path: `memory:${url}`, size, stream: (from) => bytesOf(url, size, from) };
      if (optional) return undefined;
      throw new FileError(
        `cannot fetch ${url}: ${spellHubName(name)} has no such file; name a model in safetensors, or a GGUF file of ` +
          `one, as ${repo}:Q8_0.`,
      );
    },
  };

  /** A file's bytes from there on, from the storage as far as they are in it. */
  async function* bytesOf(url: string, size: number, from: number): AsyncGenerator<Uint8Array, void> {
    for (let at = from - (from % partBytes); at < size; ) {
      const part = await storage.get(partOf(url, at), Math.min(partBytes, size - at));
      if (part) {
        if (at + part.length > from) yield part.subarray(Math.max(0, from - at));
        at += part.length;
      } else {
        at = yield* download(url, size, at, from);
      }
    }
  }

  /** Downloads from `at` on, up to the end or to what is in the storage. @returns where that is */
  async function* download(url: string, size: number, at: number, from: number): AsyncGenerator<Uint8Array, number> {
    let part: Uint8Array[] = [];
    let filled = 0;
    for (let failures = 0; at < size; ) {
      const before = at + filled;
      let reason = "the connection ended";
      try {
        for await (const bytes of answer(url, before, size, {
          signal: signal ?? null,
          ...(storage.keeps() ? onceKept() : {}),
        })) {
          for (let taken = 0; taken < bytes.length; ) {
            const length = Math.min(partBytes, size - at);
            if (length === 0) throw new FormatError(`${url}: it is longer than the ${size} bytes that it should be.`);
            const some = bytes.subarray(taken, taken + length - filled);
            if (storage.keeps()) part.push(some);
            const skipped = Math.max(0, from - (at + filled));
            filled += some.length;
            taken += some.length;
            if (skipped < some.length) yield some.subarray(skipped);
            if (filled < length) continue;
            await storage.put(partOf(url, at), part);
            at += filled;
            filled = 0;
            part = [];
            if (at < size && (await storage.has(partOf(url, at)))) return at;
          }
        }
      } catch (error) {
        if (error instanceof FileError || error instanceof FormatError || signal?.aborted) throw error;
        reason = (error as Error).message;
      }
      failures = at + filled > before ? 0 : failures + 1;
      if (failures === ATTEMPTS) throw unreachable(url, `${reason} after ${at + filled} of ${size} bytes`);
      if (failures > 0) await rest(failures);
    }
    return at;
  }
}

/** Parts of one file differ in what a server leaves out of account. */
function partOf(url: string, at: number): string {
  return `${url}?from=${at}`;
}

function rest(failures: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 250 << failures));
}

/** What a server has from there on, whether or not it heeds a range. @throws FileError if it says that there is none */
async function* answer(url: string, from: number, size: number, init: RequestInit): AsyncGenerator<Uint8Array, void> {
  const response = await fetch(url, { ...init, headers: from > 0 ? { range: `bytes=${from}-` } : {} });
  if (!response.ok) await refuse(url, response);
  yield* partsFrom(response.body!, await startOf(response, from, size, url), from);
}

/** What is put into the storage need not be in the browser's own cache as well. A worker may know no such option. */
function onceKept(): RequestInit {
  try {
    return new Request(HUB, { cache: "no-store" }).cache === "no-store" ? { cache: "no-store" } : {};
  } catch {
    return {};
  }
}

/** @throws FileError for what will not become better, Error for what may */
async function refuse(url: string, { status, body }: Response): Promise<never> {
  await body?.cancel();
  if (status === 429 || status >= 500) throw new Error(`the server answered ${status}`);
  throw new FileError(
    `cannot fetch ${url}: the server answered ${status}${
      [401, 403, 404].includes(status)
        ? ": there is no such model or revision, or it is private or gated. Check the name; one that asks for a " +
          "login is downloaded by the command line with HF_TOKEN (wasm-lora inspect <name>), and read as a folder"
        : ""
    }.`,
  );
}

function unreachable(url: string, reason: string): FileError {
  return new FileError(
    `cannot fetch ${url}: ${reason}; check the connection, and in a page that its policy lets it reach the hub ` +
      `(connect-src).`,
  );
}

async function list(
  name: HubName,
  endpoint: string,
  storage: Storage,
  signal: AbortSignal | undefined,
): Promise<Listing> {
  const { repo, revision = "main" } = name;
  const url = `${endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}?blobs=true`;
  const kept = await storage.get(url);
  // A commit stays what it is.
  if (kept && isCommit(revision)) return parseListing(kept, url);
  let reason = "";
  for (let failures = 0; failures < (kept ? 1 : 2); failures++) {
    if (failures > 0) await rest(failures);
    try {
      const response = await fetch(url, { signal: signal ?? null });
      if (!response.ok) await refuse(url, response);
      const bytes = await readStreamed({ path: url, size: null, stream: () => partsOf(response.body!) });
      const listing = parseListing(bytes, url);
      await storage.put(url, [bytes]);
      return listing;
    } catch (error) {
      if (error instanceof FileError || error instanceof FormatError || signal?.aborted) throw error;
      reason = (error as Error).message;
    }
  }
  if (kept) return parseListing(kept, url);
  throw unreachable(url, reason);
}

function parseListing(bytes: Uint8Array, url: string): Listing {
  const fail = (what: string): never => {
    throw new FormatError(`${url}: ${what}; expected the hub's answer about a model.`);
  };
  const { sha, siblings } = asObject(parseJson(bytes, url)) ?? {};
  if (!isCommit(sha)) return fail(`sha is ${show(sha)}`);
  if (!Array.isArray(siblings)) return fail(`siblings is ${show(siblings)}`);
  const sizes = new Map<string, number>();
  for (const sibling of siblings) {
    const { rfilename: file, size } = asObject(sibling) ?? {};
    if (typeof file !== "string") return fail(`a file is called ${show(file)}`);
    if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0)
      return fail(`the size of ${show(file)} is ${show(size)}`);
    sizes.set(file, size);
  }
  return { commit: sha, sizes };
}

/** Entries by their addresses. */
interface Storage {
  /** @param length that it must have */
  get(url: string, length?: number): Promise<Uint8Array | undefined>;
  has(url: string): Promise<boolean>;
  /** Whether it is of use to put anything there. */
  keeps(): boolean;
  /** What cannot be kept, for there is no room, will be fetched again. */
  put(url: string, parts: readonly Uint8Array[]): Promise<void>;
}

/** Cache storage; where there is none, or it may not be used, nothing is kept. */
async function openStorage(): Promise<Storage> {
  let cache: Cache | undefined;
  const attempt = async <T>(work: (cache: Cache) => Promise<T>): Promise<T | undefined> => {
    try {
      return cache && (await work(cache));
    } catch {
      cache = undefined;
      return undefined;
    }
  };
  try {
    cache = await globalThis.caches?.open(STORAGE);
  } catch {
    // As in a frame that must not keep anything.
  }
  return {
    get: (url, length) =>
      attempt(async (cache) => {
        const response = await cache.match(url);
        const bytes = response && new Uint8Array(await response.arrayBuffer());
        return length === undefined || bytes?.length === length ? bytes : undefined;
      }),
    has: async (url) => (await attempt((cache) => cache.match(url))) !== undefined,
    keeps: () => cache !== undefined,
    put: async (url, parts) => {
      await attempt((cache) => cache.put(url, new Response(new Blob(parts as Uint8Array<ArrayBuffer>[]))));
    },
  };
}

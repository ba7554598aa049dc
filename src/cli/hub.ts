/**
 * The folder that a command's argument names: a path, or org/name[@revision] of a model on the Hugging Face hub, which
 * is in the cache then, downloaded if need be. Or a GGUF file: a path, or org/name:file of one on the hub.
 */
import { readdirSync, statfsSync } from "node:fs";
import { ensureWritableDirectory, exists } from "../io/files.js";
import { chooseGguf, partsOf } from "../io/gguf/files.js";
import { INDEX_FILE, MODEL_FILE, readWeightMap } from "../io/huggingface.js";
import { parseHubName, spellHubName, type HubName } from "../io/hub_name.js";
import { FileError, FormatError } from "../runtime/errors.js";
import { megabytes } from "./format.js";
import { SIGNALS } from "./signals.js";
import { CachedRepo, hubCache } from "./hub_cache.js";
import {
  addressOf,
  FIRST_ATTEMPTS,
  hubOfEnvironment,
  readRevision,
  Unreachable,
  type Hub,
  type HubFile,
} from "./hub_client.js";
import { claimPart, download } from "./hub_download.js";
import { ADAPTER_FILES, firstFiles, ggufFiles, weightFiles, type Wanted } from "./hub_files.js";
import { tryLock, type FolderLock } from "./lock.js";
import { downloadProgress } from "./progress.js";

/** How often a download looks whether another process has finished its own. */
const LOOK_MS = 500;

/** Bytes of a download that somebody waits for. */
const WORTH_SAYING = 1e6;

/** A folder on the disk, or a GGUF file, and of a model of the hub the commit. */
export interface Found {
  path: string;
  commit?: string | undefined;
}

export interface FindOptions {
  /** Ask nobody: what is in the cache is all there is. HF_HUB_OFFLINE says the same. */
  offline?: boolean | undefined;
  /** Called now and then while it takes its time. */
  keep?: (() => void) | undefined;
}

/**
 * @param where the command, for errors
 * @param named what stands on the command line: what exists on the disk wins
 * @throws FileError saying what is not there, not permitted or not reachable, and what to do; FormatError for what the
 * server should not have sent
 */
export async function findFolder(
  where: string,
  named: string,
  asked: Wanted | "either",
  { offline = false, keep = () => {} }: FindOptions = {},
): Promise<Found> {
  const name = parseHubName(named);
  // What is neither is refused by whoever reads it.
  if (!name || exists(named)) return { path: named };
  const repo = new CachedRepo(hubCache(), name.repo);
  const fail = (reason: string): never => {
    throw new FileError(`${where}: there is no folder ${named} here, and ${reason}`);
  };
  if (offline || isOffline()) {
    return (
      fromCache(repo, name, asked) ??
      fail(
        `the cache ${repo.cache} has no whole ${asked === "either" ? "model" : asked} of that name; run it once ` +
          `without ${offline ? "--offline" : "HF_HUB_OFFLINE"}, so that it is downloaded.`,
      )
    );
  }
  const hub = hubOfEnvironment();
  const cached = undamaged(() => fromCache(repo, name, asked));
  try {
    // What can be had from the cache is not waited for.
    const { commit, files } = await readRevision(hub, name, cached ? 1 : FIRST_ATTEMPTS);
    const wanted = asked === "either" ? (files.has(ADAPTER_FILES[1]) ? "adapter" : "model") : asked;
    const gguf = name.file === undefined ? undefined : chooseGguf(files.keys(), name.file, name.repo);
    const pinned = { repo: name.repo, revision: commit };
    const fetchAll = (some: readonly HubFile[]): Promise<void> => fetchFiles(where, hub, repo, pinned, some, keep);
    const path = repo.snapshot(commit);
    if (gguf !== undefined) {
      await fetchAll(ggufFiles(files, gguf, name.repo));
      tryToRemember(repo, name.revision ?? "main", commit);
      return { path: `${path}/${gguf}`, commit };
    }
    const first = firstFiles(files, wanted, name.repo);
    const index = first.find((file) => file.path === INDEX_FILE);
    let shards: Iterable<string> = [];
    if (index) {
      const file = `${path}/${INDEX_FILE}`;
      await fetchAll([index]);
      let shardOf = undamaged(() => readWeightMap(file));
      if (!shardOf) {
        repo.forget(commit, index);
        await fetchAll([index]);
        shardOf = readWeightMap(file);
      }
      shards = shardOf.values();
    }
    await fetchAll([...first, ...(wanted === "model" ? weightFiles(files, shards, name.repo) : [])]);
    tryToRemember(repo, name.revision ?? "main", commit);
    return { path, commit };
  } catch (error) {
    if (error instanceof Unreachable) {
      if (!cached)
        return fail(
          `${error.message}. What has come stays: try again; or name a folder, or another hub with HF_ENDPOINT.`,
        );
      console.error(`${error.message}; taking ${spellHubName(name)} as it is in the cache, ${cached.path}.`);
      return cached;
    }
    throw error;
  }
}

function isOffline(): boolean {
  return /^(1|on|yes|true)$/i.test(process.env["HF_HUB_OFFLINE"] ?? "");
}

/** What is read of the cache, unless it is damaged there: it is downloaded anew then. */
function undamaged<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** What the cache has whole. @throws FormatError for an index that is none */
function fromCache(repo: CachedRepo, { revision, file }: HubName, asked: Wanted | "either"): Found | undefined {
  const commit = repo.commitOf(revision);
  if (commit === undefined) return undefined;
  const path = repo.snapshot(commit);
  if (file !== undefined) {
    const gguf = cachedGguf(readdirSync(path, { recursive: true, encoding: "utf8" }), file);
    return gguf === undefined ? undefined : { path: `${path}/${gguf}`, commit };
  }
  const has = (file: string): boolean => exists(`${path}/${file}`);
  const shards = (): Iterable<string> => new Set(readWeightMap(`${path}/${INDEX_FILE}`).values());
  const isAdapter = ADAPTER_FILES.every(has);
  const isModel = has("config.json") && (has(MODEL_FILE) || (has(INDEX_FILE) && [...shards()].every(has)));
  return (asked !== "model" && isAdapter) || (asked !== "adapter" && isModel) ? { path, commit } : undefined;
}

/** The GGUF file of a snapshot that a name means, if it is there with all of its parts. */
function cachedGguf(names: readonly string[], file: string): string | undefined {
  const all = new Set(names.map((name) => name.replaceAll("\\", "/")));
  try {
    const gguf = chooseGguf(all, file, "");
    return partsOf(gguf).every((part) => all.has(part)) ? gguf : undefined;
  } catch (error) {
    if (error instanceof FileError) return undefined;
    throw error;
  }
}

/** A cache that only others may write to serves as it is. */
function tryToRemember(repo: CachedRepo, revision: string, commit: string): void {
  try {
    repo.remember(revision, commit);
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
  }
}

/** Downloads those files of a commit that the cache lacks. */
async function fetchFiles(
  where: string,
  hub: Hub,
  repo: CachedRepo,
  pinned: { repo: string; revision: string },
  files: readonly HubFile[],
  keep: () => void,
): Promise<void> {
  const { revision: commit } = pinned;
  const isMissing = (file: HubFile): boolean => !repo.has(commit, file);
  if (!files.some(isMissing)) return;
  for (const folder of [repo.locks, repo.blobs]) ensureWritableDirectory(folder);
  const lock = await takeLock(where, repo, keep);
  try {
    // Another process may have brought some of it meanwhile, and another revision may have the same contents.
    const missing = files.filter(isMissing).filter((file) => {
      if (!repo.hasBlob(file)) return true;
      repo.link(commit, file.path, file.checksum);
      return false;
    });
    if (missing.length === 0) return;
    const total = missing.reduce((sum, { size }) => sum + size, 0);
    const there = missing.reduce((sum, file) => sum + claimPart(repo.blobs, file), 0);
    refuseFullDisk(repo.cache, total - there);
    const isLong = total > WORTH_SAYING;
    if (isLong)
      console.error(
        `Downloading ${missing.length === 1 ? missing[0]!.path : `${missing.length} files`} of ` +
          `${spellHubName(pinned)}, ${megabytes(total)} MB${there > 0 ? ` (${megabytes(there)} are there)` : ""}, ` +
          `from ${hub.endpoint} to ${repo.snapshot(commit)}`,
      );
    const progress = isLong ? downloadProgress(total, there) : undefined;
    const stop = (): void => {
      progress?.stop();
      console.error(`Stopped. What has come stays in ${repo.cache}: the same command goes on with it.`);
      process.exit(130);
    };
    for (const signal of SIGNALS) process.once(signal, stop);
    try {
      for (const file of missing) {
        await download(hub, pinned, addressOf(hub, pinned.repo, commit, file.path), file, repo.blobs, (bytes) => {
          progress?.add(bytes);
          lock.keep();
          keep();
        });
        repo.link(commit, file.path, file.checksum);
      }
    } finally {
      for (const signal of SIGNALS) process.off(signal, stop);
      progress?.stop();
    }
  } finally {
    lock.release();
  }
}

/** One process at a time downloads from a repository; the others wait and find what it brought. */
async function takeLock(where: string, repo: CachedRepo, keep: () => void): Promise<FolderLock> {
  for (let isFirst = true; ; isFirst = false) {
    const lock = tryLock(where, repo.locks);
    if ("keep" in lock) return lock;
    if (isFirst) console.error(`Waiting for ${lock.who}, which downloads from the same repository (${lock.path}).`);
    keep();
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** @throws FileError before anything is downloaded that would not fit */
function refuseFullDisk(cache: string, needed: number): void {
  const { bavail, bsize } = statfsSync(cache);
  const free = bavail * bsize;
  if (needed > free)
    throw new FileError(
      `cannot download ${megabytes(needed)} MB to ${cache}: its disk has ${megabytes(free)} MB free; make room, or ` +
        `name a folder on another disk with HF_HUB_CACHE.`,
    );
}

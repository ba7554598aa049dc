/**
 * The cache on the disk that huggingface_hub, transformers and this program share:
 *
 *   models--org--name/blobs/<checksum>            each content once
 *   models--org--name/refs/<branch or tag>        the commit that it was
 *   models--org--name/snapshots/<commit>/<file>   links to the blobs
 *
 * Source: huggingface_hub, file_download.py and constants.py.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { ensureWritableDirectory, exists, writeAtomic } from "../io/files.js";
import { isCommit } from "../io/hub_name.js";
import { FileError } from "../runtime/errors.js";

function inHome(path: string): string {
  return path.replace(/^~(?=$|[\\/])/, homedir());
}

/** Of all that is Hugging Face's: HF_HOME, or below XDG_CACHE_HOME or ~/.cache. */
export function huggingFaceHome(): string {
  const { HF_HOME, XDG_CACHE_HOME } = process.env;
  return inHome(HF_HOME || join(XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface"));
}

/** The cache's folder: HF_HUB_CACHE, or below `huggingFaceHome`. */
export function hubCache(): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = process.env;
  return inHome(HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(huggingFaceHome(), "hub"));
}

/** A repository's part of the cache. */
export class CachedRepo {
  readonly blobs: string;
  /** Where huggingface_hub, too, keeps the locks of this repository. */
  readonly locks: string;
  readonly #folder: string;

  constructor(
    readonly cache: string,
    repo: string,
  ) {
    const name = `models--${repo.replace("/", "--")}`;
    this.#folder = join(cache, name);
    this.blobs = join(this.#folder, "blobs");
    this.locks = join(cache, ".locks", name);
  }

  snapshot(commit: string): string {
    return join(this.#folder, "snapshots", commit);
  }

  /** The commit that a revision was when it was last asked for, if its snapshot is here. */
  commitOf(revision = "main"): string | undefined {
    let commit = revision;
    try {
      if (!isCommit(revision)) commit = readFileSync(join(this.#folder, "refs", revision), "utf8").trim();
    } catch {
      return undefined;
    }
    return isCommit(commit) && exists(this.snapshot(commit)) ? commit : undefined;
  }

  /** Remembers what a branch or a tag is now; without it the snapshot is found by its commit alone. */
  remember(revision: string, commit: string): void {
    if (revision === commit || this.commitOf(revision) === commit) return;
    const path = join(this.#folder, "refs", revision);
    ensureWritableDirectory(dirname(path));
    writeAtomic(path, commit);
  }

  /** Whether a snapshot has a file whole. */
  has(commit: string, { path, size }: { path: string; size: number }): boolean {
    return statSync(join(this.snapshot(commit), path), { throwIfNoEntry: false })?.size === size;
  }

  /** Whether a content is there whole, whichever file had it. */
  hasBlob({ checksum, size }: { checksum: string; size: number }): boolean {
    return statSync(join(this.blobs, checksum), { throwIfNoEntry: false })?.size === size;
  }

  /** Removes a file whose contents are not what they should be, so that it is missing. */
  forget(commit: string, { path, checksum }: { path: string; checksum: string }): void {
    for (const file of [join(this.snapshot(commit), path), join(this.blobs, checksum)]) {
      try {
        rmSync(file, { force: true });
      } catch (cause) {
        throw new FileError(`cannot remove ${file}, which is damaged: ${(cause as Error).message}.`, { cause });
      }
    }
  }

  /** Puts a blob into a snapshot under a file's name. */
  link(commit: string, path: string, blob: string): void {
    const pointer = join(this.snapshot(commit), path);
    const content = join(this.blobs, blob);
    try {
      mkdirSync(dirname(pointer), { recursive: true });
      rmSync(pointer, { force: true });
      try {
        symlinkSync(relative(dirname(pointer), content), pointer);
      } catch (error) {
        // Windows without the permission for links: huggingface_hub copies there, too.
        if (!["EPERM", "ENOSYS", "ENOTSUP"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
        copyFileSync(content, pointer);
      }
    } catch (cause) {
      throw new FileError(`cannot write ${pointer}: ${(cause as Error).message}.`, { cause });
    }
  }
}

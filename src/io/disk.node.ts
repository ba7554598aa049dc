/**
 * Files on disk under Node, Deno and Bun; see files.ts. Whatever reads or writes a file goes through here; but for the
 * kernels (runtime/load.node.ts), and for the program's folders, which it locks, renames and clears itself (cli/).
 */
import { randomBytes } from "node:crypto";
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname } from "node:path";
import { FileError } from "../runtime/errors.js";
import type { FileToWrite } from "./file_to_write.js";
import type { NewFile, OpenFile } from "./open_file.js";

/** Node refuses single reads and writes of 2^31 bytes and more. */
const CHUNK_BYTES = 1 << 30;

const NOT_PERMITTED =
  "the runtime does not permit it; allow it (deno run --allow-read --allow-write, node --allow-fs-read " +
  "--allow-fs-write)";

/** By an error's code; Deno's have their name alone. */
const ADVICE: Record<string, string> = {
  ERR_ACCESS_DENIED: NOT_PERMITTED,
  NotCapable: NOT_PERMITTED,
  PermissionDenied: NOT_PERMITTED,
  ENOENT: "it does not exist; check the path",
  ENOTDIR: "a part of the path is a file; check the path",
  EISDIR: "it is a directory; name a file in it",
  EEXIST: "a file of that name is in the way; remove it or choose another path",
  EACCES: "permission was denied; change the permissions or choose another path",
  EPERM: "permission was denied; change the permissions or choose another path",
  EROFS: "the file system is read-only; choose another path",
  ENOSPC: "no space is left on the device; free some",
  EDQUOT: "the quota of disk space is used up; free some",
  EFBIG: "the file would be larger than the system allows; raise the limit (ulimit -f) or choose another path",
  ENAMETOOLONG: "the name is too long; choose a shorter one",
  ELOOP: "links lead to each other; check the path",
  EBUSY: "it is in use; choose another path",
  EIO: "the device failed; check it",
  EMFILE: "too many files are open; close some",
};

function fileError(doing: string, path: string, cause: unknown): FileError {
  if (cause instanceof FileError) return cause;
  const { code = "", name, message } = cause as NodeJS.ErrnoException;
  return new FileError(`cannot ${doing} ${path}: ${ADVICE[code] ?? ADVICE[name] ?? message}.`, { cause });
}

/** Whether a file is at `path`. */
export function exists(path: string): boolean {
  try {
    return existsSync(path);
  } catch (cause) {
    throw fileError("look for", path, cause);
  }
}

/** Opens a file, of any size. */
export function openFile(path: string): OpenFile {
  let fd: number | undefined;
  const close = (): void => {
    if (fd !== undefined) closeSync(fd);
    fd = undefined;
  };
  try {
    // Before opening: to open a named pipe would wait for its writer.
    const kind = statSync(path);
    if (!kind.isFile() && !kind.isDirectory())
      throw new FileError(`cannot read ${path}: it is not a regular file; name one.`);
    fd = openSync(path, "r");
    const stat = fstatSync(fd);
    if (stat.isDirectory()) throw new FileError(`cannot read ${path}: ${ADVICE["EISDIR"]}.`);
    return { path, size: stat.size, read: (at, into) => readAt(path, fd!, at, into), close };
  } catch (error) {
    close();
    throw fileError("read", path, error);
  }
}

function readAt(path: string, fd: number, at: number, into: Uint8Array): void {
  try {
    for (let done = 0; done < into.length; ) {
      const count = readSync(fd, into, done, Math.min(into.length - done, CHUNK_BYTES), at + done);
      if (count === 0)
        throw new FileError(`cannot read ${path}: it became shorter meanwhile; wait for its writer and try again.`);
      done += count;
    }
  } catch (error) {
    throw fileError("read", path, error);
  }
}

/** Makes a file to be written in parts, of any size, where there is none. */
export function createFile(path: string): NewFile {
  const told = <T>(run: () => T): T => {
    try {
      return run();
    } catch (error) {
      throw fileError("write", path, error);
    }
  };
  const fd = told(() => openSync(path, "wx"));
  return {
    write: (at, bytes) => told(() => writeAt(fd, at, bytes)),
    close: () => told(() => syncAndClose(fd)),
  };
}

/** Puts bytes behind a file's end. */
export function append(path: string, bytes: Uint8Array): void {
  try {
    appendFileSync(path, bytes);
  } catch (cause) {
    throw fileError("write", path, cause);
  }
}

function writeAt(fd: number, at: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, Math.min(bytes.length - done, CHUNK_BYTES), at + done);
}

function syncAndClose(fd: number): void {
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Of a file that is being written: <its name>.<process>.<16 random digits>.tmp. Containers on one volume share the
 * process number.
 */
const TEMPORARY = /\.\d+\.[0-9a-f]{16}\.tmp$/;
/** The folder by which `ensureWritableDirectory` tries. */
const PROBE = /^\.writable-\w{6}$/;
/** No writer rests as long between two parts of a file: what is older was left by a killed one. */
const STALE_MS = 3_600_000;

/**
 * Writes beside each path and, when all is on the disk, renames: whatever happens meanwhile, a path holds its old
 * contents or all of the new ones, and if there is no room for all files, none is changed. On failure nothing is left
 * behind.
 */
export function writeAtomic(files: readonly FileToWrite[]): void {
  const drafts = files.map((file) => ({
    ...file,
    temporary: `${file.path}.${process.pid}.${randomBytes(8).toString("hex")}.tmp`,
  }));
  let at = "";
  try {
    for (const { path, bytes, temporary } of drafts) {
      at = path;
      writeNew(temporary, bytes);
    }
    for (const { path, previous, temporary } of drafts) {
      at = path;
      replace(path, temporary, previous);
    }
  } catch (error) {
    for (const { temporary } of drafts) {
      try {
        rmSync(temporary, { force: true });
      } catch {
        // Whatever hinders the cleaning up, the first error is the one to tell.
      }
    }
    throw fileError("write", at, error);
  }
  for (const { path } of drafts) {
    const directory = dirname(path);
    const name = basename(path);
    syncDirectory(directory);
    sweep(
      directory,
      (other, age) => other.startsWith(`${name}.`) && TEMPORARY.test(other.slice(name.length)) && age > STALE_MS,
    );
  }
}

function writeNew(path: string, bytes: Uint8Array): void {
  // "wx": never opened if it is there, for a link of this name would be followed.
  const fd = openSync(path, "wx");
  try {
    writeAt(fd, 0, bytes);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function replace(path: string, by: string, previous: string | undefined): void {
  const keeps = previous !== undefined && existsSync(path);
  if (keeps) renameSync(path, previous);
  try {
    renameSync(by, path);
  } catch (error) {
    if (keeps) renameSync(previous, path);
    throw error;
  }
}

/** Removes what killed writers left in a directory that nobody else writes into. */
export function removeTemporaries(directory: string): void {
  sweep(directory, (name) => TEMPORARY.test(name) || PROBE.test(name));
}

/**
 * A new name lasts through a loss of power when its directory is on the disk too. Not every system can do that: then it
 * stays with the file.
 */
function syncDirectory(directory: string): void {
  try {
    syncAndClose(openSync(directory, "r"));
  } catch {
    // Where a folder cannot be synchronised, the file itself is whole and in its place all the same.
  }
}

/** @param stale judges by the name and by how long ago, in milliseconds, anything was written */
function sweep(directory: string, stale: (name: string, age: number) => boolean): void {
  try {
    for (const name of readdirSync(directory)) {
      // By the name alone first: a folder may hold many files, and each question for an age is a system call.
      if (!stale(name, Infinity)) continue;
      try {
        if (stale(name, Date.now() - statSync(`${directory}/${name}`).mtimeMs))
          rmSync(`${directory}/${name}`, { recursive: true, force: true });
      } catch {
        // Somebody else has taken it away meanwhile, or it is not ours to remove.
      }
    }
  } catch {
    // What cannot be tidied up is left: the caller's own work has succeeded.
  }
}

/** Creates the directory and its parents if need be. */
export function ensureWritableDirectory(path: string): void {
  try {
    makeDirectory(path);
    // Tried, not asked: access() judges by the real user, and on Windows not by the permissions.
    rmdirSync(mkdtempSync(`${path}/.writable-`));
  } catch (error) {
    throw fileError("write into", path, error);
  }
}

/** Not mkdirSync's recursive: in Node 20 it never returns where a parent answers ENOENT to mkdir (/proc). */
function makeDirectory(path: string): void {
  const parent = dirname(path);
  const isDirectory = (): boolean => existsSync(path) && statSync(path).isDirectory();
  if (!existsSync(parent)) makeDirectory(parent);
  if (isDirectory()) return;
  try {
    mkdirSync(path);
  } catch (error) {
    // Another process may have made the folder meanwhile, which is as good.
    if (!isDirectory()) throw error;
  }
}

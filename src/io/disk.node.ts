/** Files on disk under Node, Deno and Bun: the only place that touches a file system. See files.ts. */
import {
  closeSync, existsSync, fstatSync, fsyncSync, mkdirSync, mkdtempSync, openSync, readSync, renameSync, rmdirSync, rmSync, statSync, writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { FileError } from "../runtime/errors.js";

/** Node refuses single reads and writes of 2^31 bytes and more. */
const CHUNK_BYTES = 1 << 30;

const ADVICE: Record<string, string> = {
  ENOENT: "it does not exist; check the path",
  ENOTDIR: "a part of the path is a file; check the path",
  EISDIR: "it is a directory; name a file in it",
  EEXIST: "a file of that name is in the way; remove it or choose another path",
  EACCES: "permission was denied; change the permissions or choose another path",
  EPERM: "permission was denied; change the permissions or choose another path",
  EROFS: "the file system is read-only; choose another path",
  ENOSPC: "no space is left on the device; free some",
  EMFILE: "too many files are open; close some",
};

function fileError(doing: string, path: string, cause: unknown): FileError {
  if (cause instanceof FileError) return cause;
  const { code = "", message } = cause as NodeJS.ErrnoException;
  return new FileError(`cannot ${doing} ${path}: ${ADVICE[code] ?? message}.`, { cause });
}

/** Whether anything is at `path`. */
export function exists(path: string): boolean {
  return existsSync(path);
}

/** A file's bytes; files beyond 2 GiB too, as far as memory allows. */
export function readBytes(path: string): Uint8Array {
  let fd: number | undefined;
  try {
    // Before opening: to open a named pipe would wait for its writer.
    const kind = statSync(path);
    if (!kind.isFile() && !kind.isDirectory()) throw new FileError(`cannot read ${path}: it is not a regular file; name one.`);
    fd = openSync(path, "r");
    const bytes = new Uint8Array(fstatSync(fd).size);
    for (let done = 0; done < bytes.length;) {
      const count = readSync(fd, bytes, done, Math.min(bytes.length - done, CHUNK_BYTES), null);
      if (count === 0) throw new FileError(`cannot read ${path}: it became shorter meanwhile; wait for its writer and try again.`);
      done += count;
    }
    return bytes;
  } catch (error) {
    throw fileError("read", path, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/**
 * Writes beside `path` and renames: whatever happens meanwhile, `path` holds its old contents or all
 * of the new ones. On failure nothing is left behind.
 */
export function writeAtomic(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.${process.pid}.tmp`;
  let fd: number | undefined, created = false;
  try {
    // Removed and created anew ("wx"), never opened: a link of this name would be followed.
    rmSync(temporary, { force: true });
    fd = openSync(temporary, "wx");
    created = true;
    for (let done = 0; done < bytes.length;) {
      done += writeSync(fd, bytes, done, Math.min(bytes.length - done, CHUNK_BYTES));
    }
    fsyncSync(fd);
    closeSync(fd);
    fd = undefined;
    renameSync(temporary, path);
  } catch (error) {
    try {
      if (fd !== undefined) closeSync(fd);
      if (created) rmSync(temporary, { force: true });
    } catch {
      // Whatever hinders the cleaning up, the first error is the one to tell.
    }
    throw fileError("write", path, error);
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
  if (!existsSync(parent)) makeDirectory(parent);
  if (!existsSync(path) || !statSync(path).isDirectory()) mkdirSync(path);
}

/**
 * Files, in and out: whole, or read in parts. A path that starts with "memory:" is a key of `memoryFiles`, in every
 * runtime; any other is on disk, where there is one (Node, Deno, Bun). Every fault is a FileError (or, for contents, a
 * FormatError) that names the path and what to do next.
 */
import * as disk from "#disk";
import { FileError, FormatError } from "../runtime/errors.js";
import type { FileToWrite } from "./file_to_write.js";
import { JsonCursor } from "./json.js";
import type { NewFile, OpenFile } from "./open_file.js";
import { signatureOf } from "./signature.js";

/**
 * Files that are in memory: what browsers and workers have instead of a disk. Whatever takes or writes a
 * file or a folder also takes a path that starts with "memory:".
 *
 * @example
 * const { model } = models.loadModel("models/base"); // in a page: "memory:base", its files set from fetch()
 * peft.getLoraModel(model, { targetModules: ["q_proj"] }).savePretrained("memory:adapter");
 * const names = [...io.memoryFiles.keys()].map((path) => path.replace("memory:adapter/", ""));
 * console.log(names.join(" ")); // adapter_model.safetensors adapter_config.json
 */
export const memoryFiles: Map<string, Uint8Array> = new Map();

function isInMemory(path: string): boolean {
  return path.startsWith("memory:");
}

/** Whether a file is at `path`. */
export function exists(path: string): boolean {
  return isInMemory(path) ? memoryFiles.has(path) : disk.exists(path);
}

/** A file to be read in parts, of any size; whoever opens it closes it. @throws FileError */
export function openFile(path: string): OpenFile {
  if (!isInMemory(path)) return disk.openFile(path);
  const bytes = readBytes(path);
  return {
    path,
    size: bytes.length,
    read: (at, into) => into.set(bytes.subarray(at, at + into.length)),
    close: () => {},
  };
}

/**
 * Makes a file on disk to be written in parts, of any size. It is not atomic: for folders that get their name when they
 * are complete.
 * @throws FileError, also where a file is there already
 */
export function createFile(path: string): NewFile {
  return disk.createFile(path);
}

/** A file's bytes; files beyond 2 GiB too, as far as memory allows. @throws FileError */
export function readBytes(path: string): Uint8Array {
  if (isInMemory(path)) {
    const bytes = memoryFiles.get(path);
    if (!bytes) throw new FileError(`cannot read ${path}: io.memoryFiles has no such key; set it first.`);
    return bytes;
  }
  const file = disk.openFile(path);
  try {
    const bytes = new Uint8Array(file.size);
    file.read(0, bytes);
    return bytes;
  } finally {
    file.close();
  }
}

/** @throws FileError; FormatError as `parseJson` */
export function readJson(path: string): unknown {
  return parseJson(readBytes(path), path);
}

/**
 * A byte order mark is left out, as RFC 8259 allows.
 * @throws FormatError naming what the file is instead, or the line and column of what is not JSON
 */
export function parseJson(bytes: Uint8Array, path: string): unknown {
  let text: string;
  try {
    // The copy is for browsers, whose TextDecoder refuses shared memory.
    text = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(bytes));
  } catch {
    const signature = signatureOf(bytes);
    throw new FormatError(`${path}: not JSON: the file is ${signature ?? "not valid UTF-8"}.`);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    const signature = signatureOf(bytes);
    if (signature) throw new FormatError(`${path}: not JSON: the file is ${signature}.`, { cause });
    // Engines tell the position in their own ways or not at all, so it is found once more.
    const cursor = new JsonCursor(text, (message) => {
      throw new FormatError(`${path}: not JSON: ${message}.`, { cause });
    });
    cursor.skipValue();
    cursor.end(" \t\n\r");
    throw new FormatError(`${path}: not JSON: ${(cause as Error).message}.`, { cause });
  }
}

/**
 * Whatever happens meanwhile (a kill, a full disk, another writer, of this process too), `path` holds its old contents
 * or all of the new ones.
 * @param previous a path for the old contents
 * @throws FileError; then nothing was changed
 */
export function writeAtomic(path: string, contents: Uint8Array | string, previous?: string): void {
  writeTogether([
    { path, bytes: typeof contents === "string" ? new TextEncoder().encode(contents) : contents, previous },
  ]);
}

/**
 * Writes files that belong together, all in memory or all on disk. Each by itself is replaced as by `writeAtomic`, but
 * only when all are on the disk: a kill finds the old ones or the new ones, save between two renamings, and a full disk
 * the old ones.
 * @throws FileError
 */
export function writeTogether(files: readonly FileToWrite[]): void {
  if (!isInMemory(files[0]!.path)) return disk.writeAtomic(files);
  for (const { path, bytes, previous } of files) {
    const old = memoryFiles.get(path);
    if (previous !== undefined && old) memoryFiles.set(previous, old);
    memoryFiles.set(path, bytes);
  }
}

/**
 * Puts a text behind a file's end. It is not atomic: after a kill a part of it may be there, or all of it not yet.
 * @throws FileError
 */
export function appendText(path: string, text: string): void {
  const bytes = new TextEncoder().encode(text);
  if (!isInMemory(path)) {
    disk.append(path, bytes);
    return;
  }
  const old = memoryFiles.get(path) ?? new Uint8Array();
  const whole = new Uint8Array(old.length + bytes.length);
  whole.set(old);
  whole.set(bytes, old.length);
  memoryFiles.set(path, whole);
}

/**
 * Removes what killed writers left in a directory. It must be the caller's own: another writer's file would go, too.
 */
export function removeTemporaries(directory: string): void {
  if (!isInMemory(directory)) disk.removeTemporaries(directory);
}

/** Creates the directory and its parents if need be. @throws FileError */
export function ensureWritableDirectory(path: string): void {
  if (!isInMemory(path)) disk.ensureWritableDirectory(path);
}

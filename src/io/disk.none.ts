/** Where there is no file system: browsers and workers. See files.ts. */
import { FileError } from "../runtime/errors.js";
import type { FileToWrite } from "./file_to_write.js";
import type { NewFile, OpenFile } from "./open_file.js";

function refuse(path: string): never {
  throw new FileError(
    `cannot use ${path}: this runtime has no file system; keep the bytes in io.memoryFiles and use a path that ` +
      `starts with "memory:".`,
  );
}

export function exists(path: string): boolean {
  return refuse(path);
}
export function openFile(path: string): OpenFile {
  return refuse(path);
}
export function createFile(path: string): NewFile {
  return refuse(path);
}
export function writeAtomic(files: readonly FileToWrite[]): void {
  refuse(files[0]!.path);
}
export function append(path: string): void {
  refuse(path);
}
export function removeTemporaries(directory: string): void {
  refuse(directory);
}
export function ensureWritableDirectory(path: string): void {
  refuse(path);
}

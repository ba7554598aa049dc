/** Where the package keeps its own files. */
import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = new URL("../../../", import.meta.url);

/** Folder of the embedded base model, relative to the working directory where that is shorter. */
export const BASE_MODEL = shorter(fileURLToPath(new URL("models/base", root)));

/**
 * Whether a path was the embedded model's, here or wherever the package was. Its contents are compared by whoever must
 * know.
 */
export function isBaseModel(path: string): boolean {
  return /(^|[\\/])models[\\/]base[\\/]?$/.test(path);
}

export function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL("package.json", root), "utf8")) as { version: string }).version;
}

function shorter(path: string): string {
  const fromHere = relative(process.cwd(), path);
  return fromHere && !fromHere.startsWith("..") ? fromHere : path;
}

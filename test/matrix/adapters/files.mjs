/**
 * node:fs, node:os, node:path and node:url, as far as the tests use them, on the library's own files in
 * memory: a path on "disk" is a key of io.memoryFiles, so whatever a test writes the library can read.
 */
import { Buffer } from "buffer/";
import { memoryFiles } from "../../../dist/src/io/files.js";

const directories = new Set();
let temporary = 0;

/** @param pack the length of a JSON header (u32), the header { path: [from, to] }, the bytes of all files */
export function fill(pack) {
  const start = 4 + new DataView(pack).getUint32(0, true);
  const index = JSON.parse(new TextDecoder().decode(new Uint8Array(pack, 4, start - 4)));
  for (const [path, [from, to]] of Object.entries(index)) {
    memoryFiles.set(`memory:/${path}`, new Uint8Array(pack, start + from, to - from));
  }
}

const keyOf = (path) => (path instanceof URL ? fileURLToPath(path) : path).replace(/\/+$/, "");
const below = (key) => [...memoryFiles.keys(), ...directories].filter((other) => other.startsWith(`${key}/`));

function missing(call, key) {
  throw Object.assign(new Error(`ENOENT: no such file or directory, ${call} '${key}'`), { code: "ENOENT" });
}

export function existsSync(path) {
  const key = keyOf(path);
  return memoryFiles.has(key) || directories.has(key) || below(key).length > 0;
}

export function readFileSync(path, encoding) {
  const bytes = memoryFiles.get(keyOf(path)) ?? missing("open", keyOf(path));
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return encoding ? buffer.toString(encoding) : buffer;
}

export function writeFileSync(path, contents) {
  memoryFiles.set(keyOf(path), typeof contents === "string" ? new TextEncoder().encode(contents) : contents);
}

export function readdirSync(path, { withFileTypes = false } = {}) {
  const key = keyOf(path);
  if (!existsSync(path)) missing("scandir", key);
  const names = [...new Set(below(key).map((other) => other.slice(key.length + 1).split("/")[0]))];
  return withFileTypes ? names.map((name) => ({ name, isDirectory: () => !memoryFiles.has(`${key}/${name}`) })) : names;
}

export function mkdirSync(path) {
  directories.add(keyOf(path));
}

export function mkdtempSync(prefix) {
  const path = `${prefix}${temporary++}`;
  mkdirSync(path);
  return path;
}

export function rmSync(path, { force = false } = {}) {
  if (!force && !existsSync(path)) missing("rm", keyOf(path));
  for (const key of [keyOf(path), ...below(keyOf(path))]) {
    memoryFiles.delete(key);
    directories.delete(key);
  }
}

export function tmpdir() {
  return "memory:/tmp";
}
export function join(...parts) {
  return parts.join("/").replace(/\/+/g, "/");
}
export function fileURLToPath(url) {
  return `memory:${url.pathname}`;
}

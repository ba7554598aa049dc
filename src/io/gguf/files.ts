/**
 * GGUF files as they lie: one file, or the parts that llama-gguf-split makes of it, name-00001-of-00003.gguf and so on.
 * The first part has the metadata; each has its own tensors, and says under split.* which part it is.
 * Source: ggml-org/llama.cpp, tools/gguf-split and src/llama-model-loader.cpp.
 */
import { FileError, FormatError } from "../../runtime/errors.js";
import { show } from "../json.js";
import { exists, openFile } from "../files.js";
import type { OpenFile } from "../open_file.js";
import { StreamReader, type StreamedFile } from "../streamed_file.js";
import { readGgufHeader, readStreamedGgufHeader, type GgufHeader, type GgufTensor } from "./header.js";
import type { GgufMetadata } from "./types.js";

/** Whether a name is that of a GGUF file. */
export function isGgufName(name: string): boolean {
  return /\.gguf$/i.test(name);
}

/** Whether a GGUF file is at a path; a folder may be called so too. */
export function isGgufFile(path: string): boolean {
  return isGgufName(path) && exists(path) && !exists(`${path}/config.json`);
}

/** Where it stands what a model is: in config.json of its folder, or in a GGUF file itself. */
export function configPath(path: string): string {
  return isGgufFile(path) ? path : `${path}/config.json`;
}

/** The headers of a model's files together. */
export interface GgufIndex {
  /** The path of the first file. */
  path: string;
  metadata: GgufMetadata;
  /** By name, with the paths of their files. */
  tensors: Map<string, GgufTensor & { file: string }>;
  /** Where the last tensor of each file ends, by path. */
  sizes: Map<string, number>;
  /** So many bytes may follow it. */
  padding: number;
}

/** A model's files, open. */
export interface OpenGguf extends GgufIndex {
  /** Reads bytes of a file from there on. @throws FileError */
  read(file: string, at: number, into: Uint8Array): void;
  /** Whoever opened them closes them. */
  close(): void;
}

/** A model's files as they come, of which the headers have come. */
export interface StreamedGguf extends GgufIndex {
  /**
   * The bytes of a file's tensors, from the first tensor's on; of the first file the stream that the header came with.
   */
  data(path: string): StreamReader;
  /** The bytes of a file from there on, in a stream of its own. */
  from(path: string, at: number): StreamReader;
  /** Ends what has not been asked for. */
  close(): Promise<void>;
}

/**
 * Opens a GGUF file, or all parts of one that was split, of which any may be named.
 * @throws FileError, FormatError
 */
export function openGguf(path: string): OpenGguf {
  const files = new Map<string, OpenFile>();
  const headers = new Map<string, GgufHeader>();
  const close = (): void => {
    for (const file of files.values()) file.close();
  };
  try {
    for (const part of partsOf(path)) {
      const file = openFile(part);
      files.set(part, file);
      headers.set(part, readGgufHeader(file));
    }
    return { ...joined(headers), read: (file, at, into) => files.get(file)!.read(at, into), close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * As `openGguf`, from files that come as streams.
 * @param open the file of a name beside the one that is named
 * @throws FileError, FormatError
 */
export async function openStreamedGguf(
  path: string,
  open: (path: string) => Promise<StreamedFile>,
): Promise<StreamedGguf> {
  const files = new Map<string, StreamedFile>();
  const headers = new Map<string, GgufHeader>();
  let begun: [path: string, reader: StreamReader] | undefined;
  try {
    for (const part of partsOf(path)) {
      const file = await open(part);
      const reader = new StreamReader(file.stream(0));
      files.set(part, file);
      try {
        headers.set(part, await readStreamedGgufHeader(part, file.size, reader));
      } catch (error) {
        await reader.close();
        throw error;
      }
      if (begun) await reader.close();
      else begun = [part, reader];
    }
    return {
      ...joined(headers),
      data: (path) => {
        if (begun?.[0] !== path) return new StreamReader(files.get(path)!.stream(headers.get(path)!.dataStart));
        const [, reader] = begun;
        begun = undefined;
        return reader;
      },
      from: (path, at) => new StreamReader(files.get(path)!.stream(at)),
      close: async () => begun?.[1].close(),
    };
  } catch (error) {
    await begun?.[1].close();
    throw error;
  }
}

const PART = /-(\d{5})-of-(\d{5})(?=\.gguf$)/i;

/**
 * The one GGUF file of a list that a name means: the whole name, or, as llama.cpp takes it, the end of one before
 * ".gguf" in any case, as Q4_K_M. Of a file that was split it is the first part.
 * @param wanted undefined: the only one that there is
 * @param where whose files these are, for errors
 * @throws FileError if there is none, or more than one
 */
export function chooseGguf(names: Iterable<string>, wanted: string | undefined, where: string): string {
  const all = [...names].filter((name) => isGgufName(name) && !/(^|\/)mmproj/i.test(name));
  if (wanted !== undefined && all.includes(wanted)) return wanted;
  const first = all.filter((name) => !PART.test(name) || PART.exec(name)![1] === "00001");
  const end = wanted?.toLowerCase();
  const ends = (name: string): boolean => {
    const stem = name
      .toLowerCase()
      .replace(PART, "")
      .replace(/\.gguf$/, "");
    return end === undefined || stem === end || (stem.endsWith(end) && /[\W_]/.test(stem.at(-end.length - 1)!));
  };
  const found = first.filter(ends);
  if (found.length === 1) return found[0]!;
  const some = (list: readonly string[]): string =>
    list.slice(0, 8).join(", ") + (list.length > 8 ? ` and ${list.length - 8} more` : "");
  const named = wanted === undefined ? "GGUF files" : `GGUF files called ${show(wanted)}`;
  if (found.length > 1) throw new FileError(`${where} has ${found.length} ${named}, ${some(found)}; name one of them.`);
  throw new FileError(`${where} has no ${named}${first.length > 0 ? `; it has ${some(first)}` : ""}.`);
}

/** The paths of a model's files, by that of one. */
export function partsOf(path: string): string[] {
  const [name, , count] = PART.exec(path) ?? [];
  if (name === undefined || Number(count) === 0) return [path];
  return Array.from({ length: Number(count) }, (_, i) =>
    path.replace(PART, `-${String(i + 1).padStart(5, "0")}-of-${count}`),
  );
}

function joined(headers: ReadonlyMap<string, GgufHeader>): GgufIndex {
  const tensors: GgufIndex["tensors"] = new Map();
  const sizes = new Map<string, number>();
  const [first, { metadata, alignment }] = [...headers][0]!;
  const number = (header: GgufHeader, key: string): unknown => header.metadata.get(key)?.value;
  for (const [i, [path, header]] of [...headers].entries()) {
    const count = number(header, "split.count") ?? 1;
    const part = number(header, "split.no") ?? 0;
    if (count !== headers.size)
      throw new FormatError(
        `${path}: by its split.count it is one of ${String(count)} files; its name says ${headers.size}, as in ` +
          `name-00001-of-00002.gguf, by which the others are found.`,
      );
    if (part !== i)
      throw new FormatError(`${path}: by its split.no it is part ${Number(part) + 1}, by its name part ${i + 1}.`);
    sizes.set(path, header.end);
    for (const [name, tensor] of header.tensors) {
      if (tensors.has(name))
        throw new FormatError(`${path}: tensor ${show(name)} is in ${tensors.get(name)!.file} too.`);
      tensors.set(name, { ...tensor, file: path });
    }
  }
  const expected = metadata.get("split.tensors.count")?.value ?? tensors.size;
  if (expected !== tensors.size)
    throw new FormatError(
      `${first}: by its split.tensors.count there are ${String(expected)} tensors; its parts have ${tensors.size}.`,
    );
  return { path: first, metadata, tensors, sizes, padding: alignment - 1 };
}

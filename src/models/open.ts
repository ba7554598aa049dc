/** Models from files that a visitor of a page picked. */
import { isGgufName } from "../io/gguf/files.js";
import { partsOf, type StreamedFile, type StreamedFolder } from "../io/streamed_file.js";
import { ArgumentError, FileError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import type { AnyLoadedModel, LoadModelOptions } from "./families.js";
import type { Head } from "./parts/family.js";
import { loadStreamed, loadStreamedGguf } from "./streamed.js";

// A server's project may have no `lib` that names this; where there is one, this adds nothing.
declare global {
  interface File {}
}

/**
 * A model from files that a visitor of a page picked, as `loadModel` from a disk: those of
 * `<input type="file" webkitdirectory>`, or of `showDirectoryPicker()`. Of a folder with folders in it the outermost
 * with a config.json counts; where there is none, the GGUF file. The weights are read a few MB at a time and never
 * leave the machine; the small files are in `io.memoryFiles` then, under the result's `path`.
 *
 * @param files File objects, in any order
 * @throws FileError naming what is missing or could not be read; FormatError as `loadModel`; ArgumentError
 *
 * @example
 * const example = async (input: HTMLInputElement) => {
 *   const { model, tokenizer } = await models.openModel(input.files);
 *   return tokenizer.decode(models.generate(model, tokenizer.encode("Gravity is"), { maxNewTokens: 20 }));
 * };
 */
export async function openModel<H extends Head = "causal-lm">(
  files: Iterable<File>,
  options?: LoadModelOptions<H>,
): Promise<AnyLoadedModel<H>> {
  checkOptions("openModel", options, ["head", "numLabels", "quantize", "onProgress"]);
  const folder = pickedFolder(files);
  return folder.names ? loadStreamedGguf<H>(folder, undefined, options ?? {}) : loadStreamed<H>(folder, options ?? {});
}

function pickedFolder(files: Iterable<File>): StreamedFolder {
  if (typeof files !== "object" || files === null || !(Symbol.iterator in files))
    throw new ArgumentError(`openModel: files must be a list of File objects; got ${shown(files)}.`);
  const list = [...files];
  const stray = list.findIndex((file) => typeof file?.slice !== "function" || typeof file.name !== "string");
  if (stray >= 0)
    throw new ArgumentError(`openModel: files must be a list of File objects; it holds ${shown(list[stray])}.`);
  const byPath = new Map(list.map((file) => [file.webkitRelativePath || file.name, file]));
  const depth = (path: string): number => path.split("/").length;
  const [config] = [...byPath.keys()]
    .filter((path) => /(?:^|\/)config\.json$/.test(path))
    .sort((a, b) => depth(a) - depth(b));
  const names = [...byPath.keys()].filter(isGgufName);
  if (config === undefined && names.length === 0)
    throw new FileError(
      `openModel: none of the ${list.length} files is a config.json; pick the folder that holds it, the tokenizer ` +
        `and the weights (.safetensors), or a GGUF file.`,
    );
  const root = config?.slice(0, -"config.json".length) ?? "";
  const path = `memory:${root.replace(/\/$/, "") || "picked"}`;
  return {
    path,
    ...(config === undefined ? { names } : {}),
    open: async (name, optional) => {
      const file = byPath.get(root + name);
      if (file) return pickedFile(`${path}/${name}`, file);
      if (optional) return undefined;
      throw new FileError(`cannot read ${path}/${name}: it was not picked; pick the whole folder.`);
    },
  };
}

function pickedFile(path: string, file: File): StreamedFile {
  return {
    path,
    size: file.size,
    stream: async function* (from) {
      try {
        yield* partsOf(file.slice(from).stream());
      } catch (cause) {
        throw new FileError(`cannot read ${path}: ${(cause as Error).message}; pick the folder again.`, { cause });
      }
    },
  };
}

/** Models from folders whose files come as streams: what fetchModel and openModel share. */
import { memoryFiles, parseJson } from "../io/files.js";
import { chooseGguf } from "../io/gguf/files.js";
import { layOutGguf } from "../io/gguf/writer.js";
import { readStreamed, type StreamedFile, type StreamedFolder } from "../io/streamed_file.js";
import { openStreamedWeights } from "../io/streamed_weights.js";
import { familyOfConfig, type AnyLoadedModel, type HeadModels, type LoadModelOptions } from "./families.js";
import { openStreamedGgufWeights } from "./gguf_weights.js";
import type { FamilyConfig, Head } from "./parts/family.js";
import { loadStreamedFamily } from "./load.js";

/**
 * The model of a GGUF file of a folder. What is in `io.memoryFiles` then, under the file's path, is what it says of
 * itself, without its tensors: its tokenizer is read from that.
 * @param name of the file, or what `chooseGguf` takes for one
 * @throws FileError, FormatError as `loadModel`; then nothing is kept
 */
export async function loadStreamedGguf<H extends Head>(
  folder: StreamedFolder,
  name: string | undefined,
  options: LoadModelOptions<H>,
): Promise<AnyLoadedModel<H>> {
  const file = folder.names ? chooseGguf(folder.names, name, folder.path.replace(/^memory:/, "")) : name!;
  const path = `${folder.path}/${file}`;
  const open = async (part: string): Promise<StreamedFile> =>
    (await folder.open(part.slice(folder.path.length + 1), false))!;
  const files = await openStreamedGgufWeights(path, open);
  const family = familyOfConfig(files.json, path);
  const loaded = await loadStreamedFamily<FamilyConfig, HeadModels[H], H>(family, path, files.json, options, files);
  const said = new Map([...files.gguf].filter(([key]) => !key.startsWith("split.")));
  memoryFiles.set(path, layOutGguf(said, []).header);
  return loaded;
}

/** The files beside the weights, of which only the first must be there. */
const SMALL_FILES = [
  "config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
  "additional_chat_templates/tool_use.jinja",
  "generation_config.json",
] as const;

/**
 * The model of a folder. Its weights go into linear memory as they come, and are nowhere else; the small files are in
 * `io.memoryFiles` under the folder's path then.
 * @param folder with a path that starts with "memory:"
 * @throws FileError, FormatError as `loadModel`; then nothing is kept
 */
export async function loadStreamed<H extends Head>(
  folder: StreamedFolder,
  options: LoadModelOptions<H>,
): Promise<AnyLoadedModel<H>> {
  const { path } = folder;
  const small = new Map<string, Uint8Array>();
  await Promise.all(
    SMALL_FILES.map(async (name) => {
      const file = await folder.open(name, name !== "config.json");
      const told = (loaded: number): void => options.onProgress?.({ file: name, loaded, total: file!.size });
      if (file) small.set(file.path, await readStreamed(file, told));
    }),
  );
  const config = `${path}/config.json`;
  const json = parseJson(small.get(config)!, config);
  const family = familyOfConfig(json, config);
  const loaded = await loadStreamedFamily<FamilyConfig, HeadModels[H], H>(
    family,
    path,
    json,
    options,
    await openStreamedWeights(folder),
  );
  for (const [name, bytes] of small) memoryFiles.set(name, bytes);
  return loaded;
}

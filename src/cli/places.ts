/** Where a model or a text is that was named somewhere else: contents decide in the end, so a path is only a hint. */
import { dirname, isAbsolute, resolve } from "node:path";
import { exists, readJson } from "../io/files.js";
import { isGgufName } from "../io/gguf/files.js";
import { parseHubName, spellHubName } from "../io/hub_name.js";
import { show } from "../io/json.js";
import { FileError } from "../runtime/errors.js";
import { findFolder, type FindOptions } from "./hub.js";
import { BASE_MODEL, isBaseModel } from "./paths.js";

/**
 * A path as it reads from the working directory, or, since what names it (a run, an adapter) mostly lies below the
 * folder that it was named in, from one of the folders above that.
 * @param file what must be there: "" for a file at the path itself, or the name of one in the folder
 */
function findFrom(path: string, nearby: string, file: string): string | undefined {
  const isThere = (candidate: string): boolean => exists(file === "" ? candidate : `${candidate}/${file}`);
  if (isThere(path)) return path;
  if (isAbsolute(path) || path.startsWith("memory:") || nearby.startsWith("memory:")) return undefined;
  for (let folder = dirname(resolve(nearby)); ; folder = dirname(folder)) {
    const candidate = resolve(folder, path);
    if (isThere(candidate)) return candidate;
    if (folder === dirname(folder)) return undefined;
  }
}

/** A model's folder or GGUF file; the embedded one may have moved with the package. */
function findModel(path: string, nearby: string): string | undefined {
  return findFrom(path, nearby, isGgufName(path) ? "" : "config.json") ?? (isBaseModel(path) ? BASE_MODEL : undefined);
}

/**
 * A resumed run's model: a folder, or a name on the hub, of the commit that the run began with.
 * @throws FileError if it is not there
 */
export function modelOfRun(path: string, commit: string | undefined, out: string): string {
  const name = commit === undefined ? undefined : parseHubName(path);
  if (name) return spellHubName({ ...name, revision: commit });
  return findModel(path, out) ?? gone("model", path, "--model");
}

/** A resumed run's data, or its template. @param option names it. @throws FileError if it is not there */
export function dataOfRun(path: string, out: string, option: string): string {
  return findFrom(path, out, "") ?? gone(option.slice(2), path, option);
}

function gone(what: string, path: string, option: string): never {
  throw new FileError(
    `finetune: the run's ${what} was ${show(path)}, and nothing is there now; say where it is with ${option}.`,
  );
}

/** What a command was told about its model. */
interface Told extends FindOptions {
  model?: string | undefined;
  /** Its folder. */
  adapter?: string | undefined;
  /** What names the model on this command's line. By default --model. */
  option?: string | undefined;
}

/**
 * The folder of the model that a command works on. Where --model is left out: the adapter's base by its config, a
 * folder or a name on the hub; else the embedded one.
 * @throws as `findFolder`, and FileError if the base is not there; the readers' errors if the config is none
 */
export async function modelFor(
  where: string,
  { model, adapter, option = "--model", ...options }: Told,
): Promise<string> {
  if (model !== undefined) return (await findFolder(where, model, "model", options)).path;
  if (adapter === undefined) return BASE_MODEL;
  const path = `${adapter}/adapter_config.json`;
  const name = (readJson(path) as { base_model_name_or_path?: unknown } | null)?.base_model_name_or_path;
  if (name === undefined || name === null || name === "") return BASE_MODEL;
  const found = typeof name === "string" ? findModel(name, adapter) : undefined;
  if (found === undefined && typeof name === "string" && parseHubName(name)) {
    try {
      return (await findFolder(where, name, "model", options)).path;
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      throw new FileError(
        `${error.message} It is what ${path} names as the adapter's base; ${option} names another, such as the ` +
          `folder or the GGUF file that it was trained on.`,
        { cause: error },
      );
    }
  }
  if (found === undefined || found.startsWith("memory:")) {
    throw new FileError(
      `${where}: ${path} names ${show(name)} as the adapter's base, and no model's folder is there; say where it ` +
        `is with ${option}.`,
    );
  }
  return found;
}

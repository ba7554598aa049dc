/** Models from a server, and the base model from wherever the package is: their files go into io.memoryFiles first. */
import { memoryFiles, readBytes } from "../io/files.js";
import { INDEX_FILE, MODEL_FILE, parseWeightMap } from "../io/huggingface.js";
import { show } from "../io/json.js";
import { ArgumentError, FileError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { BASE_FILES, baseUrl } from "./base_url.js";
import { loadModel, type AnyLoadedModel } from "./families.js";
import { loadLlama, type Llama, type LlamaConfig } from "./llama.js";
import type { LoadedModel } from "./load.js";

// A server's project may have no `lib` that names these; where there is one, these add nothing.
declare global {
  interface AbortSignal {}
  interface URL {}
}

/** How far a download is. */
export interface FetchProgress {
  /** Its name in the folder. */
  file: string;
  /** Bytes so far. */
  loaded: number;
  /** Bytes of the file; null where the server does not say. */
  total: number | null;
}

/** Options of `fetchModel`. */
export interface FetchModelOptions {
  /** Called for each part that comes. */
  onProgress?: ((progress: FetchProgress) => void) | undefined;
  /** Ends the download; the promise is rejected with its reason. */
  signal?: AbortSignal | undefined;
}

/**
 * A model from a folder on a server, as `loadModel` from a disk: config.json, the weights (model.safetensors, or the
 * shards of its index) and, where they are there, tokenizer.json, tokenizer_config.json and generation_config.json. In
 * a page the server must allow the page's origin (CORS). The files are in `io.memoryFiles` then, under the result's
 * `path`.
 *
 * @param url of the folder: on the Hugging Face hub "https://huggingface.co/<owner>/<name>/resolve/main"
 * @throws FileError naming what could not be fetched; FormatError as `loadModel`; ArgumentError for what is no web
 * address
 *
 * @example
 * const example = async () => {
 *   const url = "https://huggingface.co/HuggingFaceTB/SmolLM-135M/resolve/main";
 *   const { model, tokenizer } = await models.fetchModel(url);
 *   return tokenizer.decode(models.generate(model, tokenizer.encode("Gravity is"), { maxNewTokens: 20 }));
 * };
 */
export async function fetchModel(url: string | URL, options?: FetchModelOptions): Promise<AnyLoadedModel> {
  checkOptions("fetchModel", options, ["onProgress", "signal"]);
  const folder = folderUrl(url);
  const path = `memory:${folder.href.replace(/\/$/, "")}`;
  const files = new Map<string, Uint8Array>();
  const get = async (file: string, optional = false): Promise<Uint8Array | undefined> => {
    const bytes = await download(new URL(file, folder), file, options ?? {}, optional);
    if (bytes) files.set(file, bytes);
    return bytes;
  };
  await Promise.all([
    get("config.json"),
    ...["tokenizer.json", "tokenizer_config.json", "generation_config.json"].map((file) => get(file, true)),
  ]);
  if (!(await get(MODEL_FILE, true))) {
    const index = await get(INDEX_FILE, true);
    if (!index)
      throw new FileError(
        `fetchModel: ${folder.href} has neither ${MODEL_FILE} nor ${INDEX_FILE}; save pickled weights (.bin) as ` +
          `safetensors.`,
      );
    for (const shard of new Set(parseWeightMap(index, `${folder.href}${INDEX_FILE}`).values())) await get(shard);
  }
  for (const [file, bytes] of files) memoryFiles.set(`${path}/${file}`, bytes);
  return loadModel(path);
}

/**
 * The embedded base model: a Llama of 0.9 M parameters that knows the State of the Union addresses, with its tokenizer.
 * In Node, Deno and Bun it is read from the package, in pages and workers fetched from beside its code; the next time
 * it is in memory.
 *
 * @throws FileError, EngineError if the package's files cannot be found from the code, as in some bundles
 *
 * @example
 * const { model, tokenizer, eosTokenIds } = await models.loadBase();
 * const options = { maxNewTokens: 12, temperature: 0, stopToken: eosTokenIds };
 * const ids = models.generate(model, tokenizer.encode("My fellow citizens"), options);
 * console.log(tokenizer.decode(ids)); //  of the United States and the United States of the United States
 */
export async function loadBase(): Promise<LoadedModel<Llama, LlamaConfig>> {
  await Promise.all(
    BASE_FILES.map(async (file) => {
      if (memoryFiles.has(`${BASE}/${file}`)) return;
      const url = baseUrl(file);
      memoryFiles.set(
        `${BASE}/${file}`,
        url.protocol === "file:" ? readBytes(diskPath(url)) : (await download(url, file, {}, false))!,
      );
    }),
  );
  return loadLlama(BASE);
}

const BASE = "memory:wasm-lora/models/base";

/** node:url's fileURLToPath, which browsers lack. */
function diskPath({ pathname, host }: URL): string {
  const path = decodeURIComponent(pathname);
  return host ? `//${host}${path}` : path.replace(/^\/(?=[A-Za-z]:\/)/, "");
}

function folderUrl(url: string | URL): URL {
  let folder: URL | undefined;
  try {
    folder = new URL(url, (globalThis as { location?: { href: string } }).location?.href);
  } catch {
    // What is no URL at all is refused below, with what is no web address.
  }
  if (folder === undefined || !/^https?:$/.test(folder.protocol)) {
    throw new ArgumentError(
      `fetchModel: url is ${show(url instanceof URL ? url.href : url)}; expected the web address of a folder ` +
        `(https://...). A folder on disk is read by loadModel.`,
    );
  }
  folder.search = folder.hash = "";
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  return folder;
}

/** @returns undefined for what is optional and not there; a server of pages may answer with a page then */
async function download(
  url: URL,
  file: string,
  { onProgress, signal }: FetchModelOptions,
  optional: boolean,
): Promise<Uint8Array | undefined> {
  const fail = (what: string, cause?: unknown): never => {
    throw new FileError(`cannot fetch ${url.href}: ${what}.`, cause === undefined ? undefined : { cause });
  };
  // What a bundler has put into the code; a page's policy may forbid to fetch it.
  const inline = /^data:[^,]*;base64,(.*)$/s.exec(url.href);
  if (inline) return Uint8Array.from(atob(inline[1]!), (c) => c.charCodeAt(0));
  try {
    const response = await fetch(url, { signal: signal ?? null });
    if (response.status === 404 || response.status === 410)
      return optional ? undefined : fail(`the server answered ${response.status}, not found; ${NOT_FOUND}`);
    if (!response.ok)
      return fail(
        `the server answered ` +
          `${response.status}${
            response.status === 401 || response.status === 403
              ? ": it asks for a login or a " + "permission; download the folder and read it by loadModel"
              : ""
          }`,
      );
    const bytes = await readBody(response, (loaded, total) => onProgress?.({ file, loaded, total }));
    return optional && isPage(bytes) ? undefined : bytes;
  } catch (cause) {
    if (cause instanceof FileError || signal?.aborted) throw cause;
    return fail(
      `${(cause as Error).message}; check the address and the connection, and in a page that the server allows the ` +
        `page's origin (CORS)`,
      cause,
    );
  }
}

const NOT_FOUND =
  "url must be the folder's, on the Hugging Face hub https://huggingface.co/<owner>/<name>/resolve/main";

function isPage(bytes: Uint8Array): boolean {
  return /^\s*<(?:!doctype|html)/i.test(String.fromCharCode(...bytes.subarray(0, 64)));
}

async function readBody(
  response: Response,
  progress: (loaded: number, total: number | null) => void,
): Promise<Uint8Array> {
  // The length is that of what travels: compressed, it says nothing of the file.
  const length = response.headers.get("content-encoding") ? null : response.headers.get("content-length");
  const total = length !== null && /^\d{1,15}$/.test(length) ? Number(length) : null;
  const parts: Uint8Array[] = [];
  let loaded = 0;
  const reader = response.body!.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    loaded += part.value.length;
    progress(loaded, total);
  }
  if (total !== null && loaded < total) throw new Error(`the connection ended after ${loaded} of ${total} bytes`);
  const bytes = new Uint8Array(loaded);
  loaded = 0;
  for (const part of parts.splice(0)) {
    bytes.set(part, loaded);
    loaded += part.length;
  }
  return bytes;
}

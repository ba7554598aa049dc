/** Models from a server, and the base model from wherever the package is. */
import { memoryFiles, readBytes } from "../io/files.js";
import { HUB, parseHubName } from "../io/hub_name.js";
import { show } from "../io/json.js";
import { partsFrom, readStreamed, startOf, type StreamedFile } from "../io/streamed_file.js";
import { ArgumentError, FileError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { BASE_FILES, baseUrl } from "./base_url.js";
import type { AnyLoadedModel, LoadModelOptions } from "./families.js";
import type { Head } from "./parts/family.js";
import { hubFolder } from "./hub.js";
import type { Llama, LlamaConfig } from "./families/llama.js";
import type { LoadedModel } from "./load.js";
import { loadLlama } from "./one_family.js";
import { loadStreamed, loadStreamedGguf } from "./streamed.js";

// A server's project may have no `lib` that names these; where there is one, these add nothing.
declare global {
  interface AbortSignal {}
  interface URL {}
}

/** Options of `fetchModel`. */
export interface FetchModelOptions<H extends Head = "causal-lm"> extends LoadModelOptions<H> {
  /** The hub that a name is looked for on, default "https://huggingface.co". */
  endpoint?: string | undefined;
  /** Ends the download; the promise is rejected with its reason. */
  signal?: AbortSignal | undefined;
}

/**
 * A model from the Hugging Face hub, or from a folder on any server, as `loadModel` from a disk: config.json, the
 * weights (model.safetensors, or the shards of its index) and, where they are there, tokenizer.json,
 * tokenizer_config.json, chat templates and generation_config.json. In a page the server must allow the page's origin
 * (CORS), as the hub does. The weights go into linear memory as they come; the small files are in `io.memoryFiles`
 * then, under the result's `path`, which of a model of the hub ends with its commit. Of a GGUF file nothing else is
 * needed: what it says of itself is in `io.memoryFiles` then.
 *
 * Where there is Cache storage (`caches`: pages, their workers, Deno), what comes from the hub is kept there under
 * "wasm-lora-hub": the next time nothing is downloaded, and a download that was interrupted goes on.
 *
 * @param from "org/name" or "org/name@revision" on the hub, or a GGUF file of it, "org/name:Q8_0" or
 * "org/name:file.gguf"; or the web address of a folder or of a GGUF file (in a page also a relative one, which begins
 * with a slash or a dot: "./models/base")
 * @throws FileError naming what could not be fetched; FormatError as `loadModel`; ArgumentError for what is neither
 *
 * @example
 * const example = async () => {
 *   const { model, tokenizer } = await models.fetchModel("HuggingFaceTB/SmolLM2-135M");
 *   return tokenizer.decode(models.generate(model, tokenizer.encode("Gravity is"), { maxNewTokens: 20 }));
 * };
 */
export async function fetchModel<H extends Head = "causal-lm">(
  from: string | URL,
  options?: FetchModelOptions<H>,
): Promise<AnyLoadedModel<H>> {
  checkOptions("fetchModel", options, ["endpoint", "head", "numLabels", "quantize", "onProgress", "signal"]);
  const name = typeof from === "string" ? parseHubName(from) : undefined;
  if (name) {
    const folder = await hubFolder(name, endpointOf(options), options?.signal);
    return name.file === undefined
      ? loadStreamed<H>(folder, options ?? {})
      : loadStreamedGguf<H>(folder, name.file, options ?? {});
  }
  const address = folderUrl(from);
  // A GGUF file is one of the folder that it lies in.
  const gguf = /[^/]+\.gguf(?=\/$)/i.exec(address.pathname)?.[0];
  const folder = gguf === undefined ? address : new URL("..", address);
  const path = `memory:${folder.href.replace(/\/$/, "")}`;
  const open = (name: string, optional: boolean): Promise<StreamedFile | undefined> =>
    openUrl(`${path}/${name}`, new URL(name, folder), optional, options?.signal);
  return gguf === undefined
    ? loadStreamed<H>({ path, open }, options ?? {})
    : loadStreamedGguf<H>({ path, open }, decodeURIComponent(gguf), options ?? {});
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
        url.protocol === "file:" ? readBytes(diskPath(url)) : (inlined(url) ?? (await download(url))),
      );
    }),
  );
  return loadLlama(BASE);
}

const BASE = "memory:wasm-lora/models/base";

/** What a bundler has put into the code; a page's policy may forbid to fetch it. */
function inlined({ href }: URL): Uint8Array | undefined {
  const inline = /^data:[^,]*;base64,(.*)$/s.exec(href);
  return inline ? Uint8Array.from(atob(inline[1]!), (c) => c.charCodeAt(0)) : undefined;
}

async function download(url: URL): Promise<Uint8Array> {
  return readStreamed((await openUrl(url.href, url, false, undefined))!);
}

/** node:url's fileURLToPath, which browsers lack. */
function diskPath({ pathname, host }: URL): string {
  const path = decodeURIComponent(pathname);
  return host ? `//${host}${path}` : path.replace(/^\/(?=[A-Za-z]:\/)/, "");
}

function endpointOf({ endpoint = HUB }: { endpoint?: string | undefined } = {}): string {
  if (typeof endpoint !== "string" || !/^https?:\/\/[^\s/]/.test(endpoint))
    throw new ArgumentError(`fetchModel: endpoint is ${show(endpoint)}; expected a web address as ${HUB}.`);
  return endpoint.replace(/\/+$/, "");
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
      `fetchModel: got ${show(url instanceof URL ? url.href : url)}; expected the name of a model on the hub ` +
        `(org/name) or the web address of a folder or of a GGUF file (https://...). What is on disk is read by ` +
        `loadModel.`,
    );
  }
  folder.search = folder.hash = "";
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  return folder;
}

const NOT_FOUND = "the address must be the folder's; a model on the Hugging Face hub is named as org/name";
/** So many bytes are skipped rather than left out by a range, which not every server and page allows. */
const SKIPPED = 1 << 20;

/**
 * @returns undefined for what is optional and not there; a server of pages may answer with a page then
 * @throws FileError
 */
async function openUrl(
  path: string,
  url: URL,
  optional: boolean,
  signal: AbortSignal | undefined,
): Promise<StreamedFile | undefined> {
  const response = await request(url, 0, signal);
  if (response.status === 404 || response.status === 410) {
    await response.body?.cancel();
    if (optional) return undefined;
    throw fetchError(url, `the server answered ${response.status}, not found; ${NOT_FOUND}`);
  }
  const bytes = bytesOf(url, response, 0, null, signal);
  const first = await bytes.next();
  if (optional && !first.done && isPage(first.value)) {
    await bytes.return();
    return undefined;
  }
  let begun: AsyncIterable<Uint8Array> | undefined = (async function* () {
    if (!first.done) yield first.value;
    yield* bytes;
  })();
  const size = sizeOf(response);
  return {
    path,
    size,
    stream: (from) => {
      // The answer that told of the file is read where it is the first one that is asked for.
      const whole = from === 0 ? begun : undefined;
      if (whole) begun = undefined;
      return whole ?? bytesFrom(url, from, size, signal);
    },
  };
}

async function* bytesFrom(
  url: URL,
  from: number,
  size: number | null,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void> {
  yield* bytesOf(url, await request(url, from > SKIPPED ? from : 0, signal), from, size, signal);
}

/** What a file answers with from there on, whether or not the server heeds a range. */
async function* bytesOf(
  url: URL,
  response: Response,
  from: number,
  size: number | null,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void> {
  const start = await startOf(response, from, size, url.href);
  const total = sizeOf(response);
  try {
    const end = yield* partsFrom(response.body!, start, from);
    if (total !== null && end < total) throw new Error(`the connection ended after ${end} of ${total} bytes`);
  } catch (cause) {
    throw signal?.aborted ? cause : unreachable(url, cause);
  }
}

/** The whole file's bytes, if the server says them. */
function sizeOf({ headers, status }: Response): number | null {
  // The length is that of what travels: compressed, it says nothing of the file.
  const length = headers.get("content-encoding")
    ? null
    : status === 206
      ? headers.get("content-range")?.split("/")[1]
      : headers.get("content-length");
  return length && /^\d{1,15}$/.test(length) ? Number(length) : null;
}

/** @throws FileError for an answer that is neither the file nor "not found" */
async function request(url: URL, from: number, signal: AbortSignal | undefined): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { signal: signal ?? null, headers: from > 0 ? { range: `bytes=${from}-` } : {} });
  } catch (cause) {
    throw signal?.aborted ? cause : unreachable(url, cause);
  }
  const { status } = response;
  if (response.ok || status === 404 || status === 410) return response;
  await response.body?.cancel();
  const login = status === 401 || status === 403;
  throw fetchError(
    url,
    `the server answered ${status}` +
      (login ? ": it asks for a login or a permission; download the folder and read it by loadModel" : ""),
  );
}

function unreachable(url: URL, cause: unknown): FileError {
  return fetchError(
    url,
    `${(cause as Error).message}; check the address and the connection, and in a page that the server allows the ` +
      `page's origin (CORS)`,
    cause,
  );
}

function fetchError(url: URL, what: string, cause?: unknown): FileError {
  return new FileError(`cannot fetch ${url.href}: ${what}.`, cause === undefined ? undefined : { cause });
}

function isPage(bytes: Uint8Array): boolean {
  return /^\s*<(?:!doctype|html)/i.test(String.fromCharCode(...bytes.subarray(0, 64)));
}

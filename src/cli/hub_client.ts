/** Asks the hub: which commit a revision is, what it holds, and for the bytes of a file. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { HUB, isCommit, type HubName } from "../io/hub_name.js";
import { show } from "../io/json.js";
import { ArgumentError, FileError, FormatError, WasmLoraError } from "../runtime/errors.js";
import { megabytes } from "./format.js";
import { huggingFaceHome } from "./hub_cache.js";

/** A server that has the hub's endpoints. */
export interface Hub {
  /** Without a slash at its end. */
  endpoint: string;
  /** Whose it is; sent to the endpoint alone. */
  token: string | undefined;
}

/** A file of a commit. */
export interface HubFile {
  path: string;
  size: number;
  /** SHA-256 (64 digits) of a large file, or git's SHA-1 of a small one; the name of its blob, too. */
  checksum: string;
}

/** A revision as it is now. */
export interface Commit {
  commit: string;
  files: ReadonlyMap<string, HubFile>;
}

/** The server does not answer, or not now: what is in the cache may do instead. */
export class Unreachable extends Error {}

/** After so many failures in a row, a server that has answered before counts as unreachable. */
export const ATTEMPTS = 5;
/** At first it is rather the connection that is missing, or the name a mistyped folder's. */
export const FIRST_ATTEMPTS = 2;
const MOST_REDIRECTS = 5;
/** What is read of the answers about a repository, all together: some 200,000 files. */
const MOST_BYTES = 64 << 20;
const MOST_PAGES = 1000;
/** The longest time that a server may ask to be left alone. */
const LONGEST_WAIT_S = 60;

/** HF_ENDPOINT and HF_TOKEN, or the token that `hf auth login` saved. @throws ArgumentError naming one that is none */
export function hubOfEnvironment(): Hub {
  const { HF_ENDPOINT, HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH } = process.env;
  const endpoint = (HF_ENDPOINT || HUB).replace(/\/+$/, "");
  if (!/^https?:\/\/[^\s/]/.test(endpoint) || !URL.canParse(endpoint))
    throw new ArgumentError(`HF_ENDPOINT is ${show(endpoint)}; expected a web address as ${HUB}.`);
  const path = HF_TOKEN_PATH || join(huggingFaceHome(), "token");
  let token = HF_TOKEN || HUGGING_FACE_HUB_TOKEN;
  try {
    token ||= readFileSync(path, "utf8");
  } catch {
    // Nobody has logged in here.
  }
  token = token?.trim();
  // What is wrong with it is not shown: it is a secret.
  if (token && !/^[!-~]+$/.test(token))
    throw new ArgumentError(
      `${HF_TOKEN ? "HF_TOKEN" : path} holds no token (a token has neither spaces nor control characters); get one ` +
        `at ${endpoint}/settings/tokens.`,
    );
  return { endpoint, token: token || undefined };
}

/** Where the bytes of a file are. */
export function addressOf({ endpoint }: Hub, repo: string, commit: string, path: string): string {
  return `${endpoint}/${repo}/resolve/${commit}/${path}`;
}

/**
 * What a revision is now.
 * @throws Unreachable; FileError saying what is not there or not permitted; FormatError for an answer that is none
 */
export async function readRevision(hub: Hub, name: HubName, attempts: number): Promise<Commit> {
  const { listFiles, modelInfo } = await import("@huggingface/hub");
  const { repo, revision = "main" } = name;
  const fail = (what: string): never => {
    throw new FormatError(`${hub.endpoint}: the answer about ${repo} ${what}; expected the hub's.`);
  };
  let pages = 0;
  let left = MOST_BYTES;
  // A body that does not come whole is asked for again, as an answer that does not come at all.
  const read = async (response: Response): Promise<Response> => {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for await (const part of bodyOf(response)) {
      left -= part.length;
      if (left < 0) return fail(`is longer than ${megabytes(MOST_BYTES)} MB`);
      parts.push(part);
    }
    return new Response(new Blob(parts), response);
  };
  const ask = (url: unknown): Promise<Response> => {
    if (++pages > MOST_PAGES) return fail(`has more than ${MOST_PAGES} pages`);
    return request(hub, name, String(url), { attempts, read });
  };
  try {
    const shared = { hubUrl: hub.endpoint, fetch: ask };
    const { sha: commit } = await modelInfo({ ...shared, name: repo, revision, additionalFields: ["sha"] });
    if (!isCommit(commit)) return fail(`names the commit ${show(commit)}`);
    const files = new Map<string, HubFile>();
    for await (const { type, path, size, oid, lfs } of listFiles({
      ...shared,
      repo: { type: "model", name: repo },
      revision: commit,
      recursive: true,
    })) {
      if (type !== "file") continue;
      const checksum = lfs?.oid ?? oid ?? "";
      if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(checksum) || !Number.isSafeInteger(size) || size < 0)
        return fail(`gives ${show(path)} the checksum ${show(checksum)} and the size ${show(size)}`);
      files.set(path, { path, size, checksum });
    }
    return { commit, files };
  } catch (error) {
    // A page where JSON is expected, as a proxy's login.
    if (error instanceof SyntaxError || error instanceof TypeError) return fail(`is no JSON (${error.message})`);
    throw error;
  }
}

/**
 * @param options.from first byte that is wanted
 * @param options.read what belongs to the answer: when it fails, it is tried again
 * @throws Unreachable; FileError saying what is not there or not permitted; what `read` throws of this library's errors
 */
export async function request(
  hub: Hub,
  name: HubName,
  url: string,
  {
    from = 0,
    attempts = ATTEMPTS,
    read,
  }: {
    from?: number | undefined;
    attempts?: number | undefined;
    read?: ((response: Response) => Promise<Response>) | undefined;
  },
): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    let reason: string;
    let most = attempts;
    let wait = 1 << (attempt - 1);
    try {
      const response = await follow(hub, url, from);
      if (response.ok || (from > 0 && response.status === 416)) return (await read?.(response)) ?? response;
      if (response.status !== 429 && response.status < 500) throw await refusal(hub, name, url, response);
      await response.body?.cancel();
      reason = `the server answered ${response.status}`;
      if (attempts > 1) most = ATTEMPTS;
      const asked = response.headers.get("retry-after");
      if (asked !== null && /^\d{1,6}$/.test(asked)) wait = Math.min(Number(asked), LONGEST_WAIT_S);
    } catch (error) {
      if (error instanceof WasmLoraError) throw error;
      reason = reasonOf(error);
    }
    if (attempt >= most) throw new Unreachable(`${new URL(url).host} cannot be reached (${reason})`);
    await sleep(wait * 1000);
  }
}

/** An error of the connection, in the system's word where it has one. */
export function reasonOf(error: unknown): string {
  const { message, cause } = error as Error & { cause?: { code?: string; message?: string } };
  return cause?.code ?? cause?.message ?? message;
}

/** Redirects are followed here, for the token must not reach the servers that they lead to. */
async function follow({ endpoint, token }: Hub, url: string, from: number): Promise<Response> {
  const { origin } = new URL(endpoint);
  for (let hops = 0; ; hops++) {
    const { origin: at } = new URL(url);
    const headers: Record<string, string> = { "accept-encoding": "identity", "user-agent": "wasm-lora" };
    if (token !== undefined && at === origin) headers["authorization"] = `Bearer ${token}`;
    if (from > 0) headers["range"] = `bytes=${from}-`;
    const controller = new AbortController();
    const { signal } = controller;
    const response = await within(fetch(url, { headers, redirect: "manual", signal }), () => controller.abort());
    const target = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || target === null) return response;
    await response.body?.cancel();
    if (hops === MOST_REDIRECTS) throw new Error(`more than ${MOST_REDIRECTS} redirects`);
    url = new URL(target, url).href;
    if (!/^https?:/.test(url)) throw new Error("a redirect to what is no web address");
  }
}

/** What comes, as it comes, until the server goes silent. Who leaves the loop early ends the connection. */
export async function* bodyOf({ body }: Response): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  if (!body) return;
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await within(reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    // Whatever ended it, nothing more is wanted; a connection that failed cannot be cancelled.
    reader.cancel().catch(() => {});
  }
}

/**
 * Ends the wait for a server that has gone silent. HF_HUB_DOWNLOAD_TIMEOUT says after how many seconds.
 * @param end ends the connection, too, which would hold the process for minutes
 */
async function within<T>(promise: Promise<T>, end?: () => void): Promise<T> {
  const seconds = Number(process.env["HF_HUB_DOWNLOAD_TIMEOUT"]) || 10;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`silent for ${seconds} s`));
      end?.();
    }, seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What the hub will not give, and what to do about it. */
async function refusal(hub: Hub, name: HubName, url: string, response: Response): Promise<FileError> {
  await response.body?.cancel();
  const { endpoint, token } = hub;
  const { repo, revision = "main" } = name;
  const { status } = response;
  const code = response.headers.get("x-error-code");
  const tokens = `${endpoint}/settings/tokens`;
  // Public models are refused, too, to who shows a token that is none.
  if (status === 401 && token !== undefined && code === null)
    return new FileError(
      `${endpoint} refuses the token: it may have expired. Set HF_TOKEN to another (${tokens}), or unset it (and ` +
        `hf auth logout) for what is public.`,
    );
  if (code === "GatedRepo" || (status === 403 && code !== "RepoNotFound"))
    return new FileError(
      `${repo} is gated: accept its licence at ${endpoint}/${repo}, and set HF_TOKEN to a token of that account ` +
        `(${tokens})${token === undefined ? "" : "; the token that was sent is of none that has been let in"}.`,
    );
  if (code === "RevisionNotFound") {
    const known = await refsOf(hub, name);
    return new FileError(
      `${repo} has no revision ${show(revision)}${known.length > 0 ? `; it has ${known.join(", ")}` : ""}. Name a ` +
        `branch, a tag or a commit after the @, or leave it out.`,
    );
  }
  if (code === "EntryNotFound") return new FileError(`cannot fetch ${url}: ${repo} has no such file.`);
  if (status === 401 || status === 404) {
    const near = await alikes(hub, name);
    return new FileError(
      `there is neither a folder ${repo} here nor a model of that name on ${endpoint}` +
        `${near.length > 0 ? ` (there are ${near.join(", ")})` : ""}, or it is private. Check its name; ` +
        (token === undefined
          ? `for a private one set HF_TOKEN (${tokens}).`
          : `for a private one, that the token is of an account that may read it (${tokens}).`),
    );
  }
  return new FileError(`cannot fetch ${url}: the server answered ${status}.`);
}

/** Characters that a hint is worth. */
const MOST_HINT = 1 << 20;

/** A question whose answer helps an error's reader, and no more. */
async function asking(hub: Hub, path: string): Promise<unknown> {
  try {
    const response = await follow(hub, `${hub.endpoint}/api/models${path}`, 0);
    let text = "";
    const decoder = new TextDecoder();
    for await (const part of bodyOf(response)) {
      text += decoder.decode(part, { stream: true });
      if (text.length > MOST_HINT) return undefined;
    }
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const namesOf = (list: unknown, key: string): string[] =>
  (Array.isArray(list) ? list : [])
    .map((entry: Record<string, unknown> | null) => entry?.[key])
    .filter((name): name is string => typeof name === "string");

async function refsOf(hub: Hub, { repo }: HubName): Promise<string[]> {
  const refs = (await asking(hub, `/${repo}/refs`)) as { branches?: unknown; tags?: unknown } | undefined;
  return [...namesOf(refs?.branches, "name"), ...namesOf(refs?.tags, "name")].slice(0, 8);
}

async function alikes(hub: Hub, { repo }: HubName): Promise<string[]> {
  const word = repo.slice(repo.indexOf("/") + 1);
  return namesOf(await asking(hub, `?search=${encodeURIComponent(word)}&limit=3`), "id").slice(0, 3);
}

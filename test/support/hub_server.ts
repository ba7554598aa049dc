/**
 * A Hugging Face hub on this machine, as far as a download meets it: the model's API with its pages, and files, of
 * which the large ones are on another server, at an address with a signature.
 *
 * Source: https://huggingface.co/docs/hub/api; huggingface_hub, file_download.py.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A state of a repository. */
interface State {
  commit: string;
  files: Record<string, Uint8Array>;
}

interface Repo {
  /** What each revision is. */
  refs: Record<string, State>;
  /** Only with this token, which has accepted the licence. */
  token?: string | undefined;
  gated?: boolean | undefined;
}

/** What an answer has instead of what was asked for. */
export type Fault =
  | { status: number; headers?: Record<string, string>; body?: string }
  /** The connection ends after so many bytes of the body. */
  | { cut: number }
  /** Nothing follows so many bytes of the body, and the connection stays open. */
  | { stall: number }
  /** These bytes, of the same length. */
  | { instead: Uint8Array }
  /** Nothing, and the connection stays open. */
  | "silence";

export interface Asked {
  server: "hub" | "storage";
  method: string;
  url: string;
  headers: IncomingMessage["headers"];
}

const PAGE = 3;
const sha1 = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
/** As on the hub, where .gitattributes decides. */
const isLarge = (path: string): boolean => /\.(safetensors|bin|gguf)$/.test(path);

export class HubServer {
  /** What HF_ENDPOINT is to be. */
  endpoint = "";
  /** All requests so far. */
  readonly asked: Asked[] = [];
  /** Faults are looked for here first. */
  fault: (asked: Asked) => Fault | undefined = () => undefined;
  /** How large a file is said to be, if not as large as it is. */
  claims: Record<string, number> = {};
  readonly #repos = new Map<string, Repo>();
  readonly #large = new Map<string, Uint8Array>();
  #storage = "";
  #close: (() => void)[] = [];

  /** @param together whether both servers are one, as a page's policy may ask */
  static async start({ together = false } = {}): Promise<HubServer> {
    const hub = new HubServer();
    if (!together) hub.#storage = await hub.#listen("storage", (...all) => hub.#answerStorage(...all));
    hub.endpoint = await hub.#listen("hub", (...all) => hub.#answer(...all));
    if (together) hub.#storage = `${hub.endpoint}/storage`;
    return hub;
  }

  /** Both servers end, with all connections. */
  stop(): void {
    for (const close of this.#close) close();
  }

  /** @returns the commit, by the contents */
  publish(name: string, files: Record<string, Uint8Array>, revision = "main", rights: Omit<Repo, "refs"> = {}): string {
    const repo = this.#repos.get(name) ?? { refs: {} };
    const contents = Object.entries(files).map(([path, bytes]) => `${path} ${sha1(bytes)}\n`);
    const commit = createHash("sha1").update(contents.join("")).digest("hex");
    const state = { commit, files };
    this.#repos.set(name, { ...repo, ...rights, refs: { ...repo.refs, [revision]: state, [commit]: state } });
    return commit;
  }

  async #listen(
    server: Asked["server"],
    answer: (url: URL, asked: Asked, response: ServerResponse, fault: Fault | undefined) => void,
  ): Promise<string> {
    const http = createServer((request, response) => {
      const { method = "", url = "", headers } = request;
      const asked = { server, method, url, headers };
      this.asked.push(asked);
      const fault = this.fault(asked);
      // Pages may ask, and see what a download needs.
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader("access-control-allow-headers", "range");
      response.setHeader("access-control-expose-headers", "content-range, content-length, link");
      if (method === "OPTIONS") {
        response.writeHead(204).end();
        return;
      }
      if (fault === "silence") return;
      if (fault && "status" in fault) {
        response.writeHead(fault.status, fault.headers).end(fault.body);
        return;
      }
      answer(new URL(url, origin), asked, response, fault);
    });
    await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
    // Two names of this machine: for whom a token is, is told by the host.
    const origin = `http://${server === "hub" ? "127.0.0.1" : "localhost"}:${(http.address() as AddressInfo).port}`;
    this.#close.push(() => {
      http.close();
      http.closeAllConnections();
    });
    return origin;
  }

  #answer(url: URL, asked: Asked, response: ServerResponse, fault: Fault | undefined): void {
    const json = (body: unknown, headers: Record<string, string> = {}): void => {
      response.writeHead(200, { "content-type": "application/json", ...headers });
      end(response, Buffer.from(JSON.stringify(body)), fault);
    };
    const refuse = (status: number, code: string): void => {
      response.writeHead(status, { "x-error-code": code, "content-type": "application/json" });
      response.end(JSON.stringify({ error: code }));
    };
    if (asked.headers.authorization === "Bearer hf_expired") {
      response.writeHead(401, { "x-error-message": "Invalid credentials in Authorization header" }).end();
      return;
    }
    if (url.pathname.startsWith("/storage/")) return this.#answerStorage(url, asked, response, fault);
    if (url.pathname === "/api/models") {
      const word = url.searchParams.get("search") ?? "";
      return json([...this.#repos.keys()].filter((id) => id.includes(word.slice(0, 3))).map((id) => ({ id })));
    }
    const [, api, name = "", kind, rest = ""] =
      /^(\/api\/models)?\/([^/]+\/[^/]+)\/(revision|tree|refs|resolve)\/?(.*)$/.exec(url.pathname) ?? [];
    const repo = this.#repos.get(name);
    const isKnown = asked.headers.authorization === `Bearer ${repo?.token}`;
    // A private repository is not told apart from none.
    if (!repo || (repo.token !== undefined && !repo.gated && !isKnown)) return refuse(401, "RepoNotFound");
    if (kind === "refs") {
      const names = Object.keys(repo.refs).filter((ref) => !/^[0-9a-f]{40}$/.test(ref));
      return json({ branches: names.map((ref) => ({ name: ref })), tags: [] });
    }
    const parts = rest.split("/");
    const state = repo.refs[decodeURIComponent(parts[0]!)];
    if (!state) return refuse(404, "RevisionNotFound");
    const { commit, files } = state;
    const siblings = Object.entries(files).map(([path, { length }]) => ({ rfilename: path, size: length }));
    if (api && kind === "revision")
      return json({ _id: "1", id: name, sha: commit, private: false, gated: repo.gated ?? false, siblings });
    if (api) {
      const from = Number(url.searchParams.get("cursor") ?? 0);
      const page = Object.entries(files)
        .slice(from, from + PAGE)
        .map(([path, bytes]) => {
          const size = this.claims[path] ?? bytes.length;
          const lfs = { lfs: { oid: sha256(bytes), size, pointerSize: 134 } };
          return { type: "file", oid: sha1(bytes), size, path, ...(isLarge(path) ? lfs : {}) };
        });
      url.searchParams.set("cursor", String(from + PAGE));
      const next = from + PAGE < Object.keys(files).length;
      return json(page, next ? { link: `<${url.href}>; rel="next"` } : {});
    }
    if (repo.gated && !isKnown) return refuse(asked.headers.authorization ? 403 : 401, "GatedRepo");
    const path = parts.slice(1).join("/");
    const bytes = files[path];
    if (!bytes) return refuse(404, "EntryNotFound");
    const etag = isLarge(path) ? sha256(bytes) : sha1(bytes);
    const headers = { "x-repo-commit": commit, etag: `"${etag}"` };
    if (!isLarge(path)) return this.#send(bytes, asked, response, fault, headers);
    this.#large.set(etag, bytes);
    const location = `${this.#storage}/${etag}?signature=${sha1(Buffer.from(etag))}`;
    response
      .writeHead(302, { ...headers, location, "x-linked-etag": `"${etag}"`, "x-linked-size": bytes.length })
      .end();
  }

  #answerStorage(url: URL, asked: Asked, response: ServerResponse, fault: Fault | undefined): void {
    const etag = url.pathname.split("/").at(-1)!;
    const bytes = this.#large.get(etag);
    if (!bytes || url.searchParams.get("signature") !== sha1(Buffer.from(etag))) response.writeHead(403).end();
    else this.#send(bytes, asked, response, fault, { etag: `"${etag}"` });
  }

  #send(
    bytes: Uint8Array,
    asked: Asked,
    response: ServerResponse,
    fault: Fault | undefined,
    headers: Record<string, string>,
  ): void {
    const whole = fault && typeof fault === "object" && "instead" in fault ? fault.instead : bytes;
    const from = Number(/^bytes=(\d+)-$/.exec(asked.headers.range ?? "")?.[1] ?? 0);
    const body = whole.subarray(from);
    const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(from > 0 ? 206 : 200, {
      ...headers,
      "accept-ranges": "bytes",
      "content-length": body.length,
      ...(from > 0 ? { "content-range": range } : {}),
    });
    if (asked.method === "HEAD") response.end();
    else end(response, body, fault);
  }
}

/** Sends a body, or what a fault leaves of it. */
function end(response: ServerResponse, body: Uint8Array, fault: Fault | undefined): void {
  if (typeof fault !== "object") response.end(body);
  else if ("cut" in fault) response.write(body.subarray(0, fault.cut), () => setTimeout(() => response.destroy(), 20));
  else if ("stall" in fault) response.write(body.subarray(0, fault.stall));
  else response.end(body);
}

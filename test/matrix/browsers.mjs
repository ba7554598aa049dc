/**
 * Browsers: a page, served with COOP and COEP, asks for bundles and posts their results. Chromium is driven by
 * Puppeteer. WebKitGTK's MiniBrowser, which it does not know, and Firefox are started on the page's address: under
 * WebDriver BiDi, a worker of Firefox 153 that starts workers stands still in two of three runs.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundles, fileOf, root } from "./bundle.mjs";

export const CHROMIUM = "/usr/bin/chromium",
  FIREFOX = "/usr/bin/firefox-esr";

const page = fileURLToPath(new URL("web/", import.meta.url));
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
const HEADERS = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

function fileFor(path) {
  if (path === "/") return join(page, "index.html");
  if (path === "/worker.mjs") return join(page, "worker.mjs");
  if (path === "/fixtures.bin") return join(bundles, "fixtures.bin");
  return /^\/(dist\/matrix\/web\/[\w-]+\.js|build\/wasm-lora(\.fused)?\.wasm)$/.test(path) ? join(root, path) : null;
}

/** Serves the page; `run` hands it a bundle and waits for its result. */
async function serve() {
  /** What is to run, and the page's request that waits for it; one of them may be there first. */
  let job = null;
  let waiting = null;
  let settle = null;
  const handOut = () => {
    if (job === null || waiting === null) return;
    waiting.writeHead(200, HEADERS).end(job);
    job = waiting = null;
  };
  const server = createServer(async (request, response) => {
    if (request.url === "/job") {
      waiting = response;
      handOut();
    } else if (request.url === "/result") {
      let text = "";
      for await (const part of request) text += part;
      response.writeHead(204, HEADERS).end();
      settle(JSON.parse(text));
    } else {
      const file = fileFor(request.url);
      const body = file && (await readFile(file).catch(() => null));
      response
        .writeHead(body ? 200 : 404, {
          ...HEADERS,
          "content-type": TYPES[extname(file ?? "")] ?? "application/octet-stream",
        })
        .end(body);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    run: (bundle) =>
      new Promise((resolve) => {
        settle = resolve;
        job = `/dist/matrix/web/${fileOf(bundle)}`;
        handOut();
      }),
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** @param launch opens a page and gives what closes it and a promise that rejects when it dies */
export async function openPage(launch) {
  const { url, run, close } = await serve();
  let opened;
  try {
    opened = await launch(url);
  } catch (error) {
    close();
    throw error;
  }
  return {
    run: (bundle) => Promise.race([run(bundle), opened.died]),
    async close() {
      await opened.close();
      close();
    },
  };
}

const isRoot = process.getuid() === 0;

export async function chromiumPage(url) {
  const { launch } = await import("puppeteer-core");
  const opened = await launch({ executablePath: CHROMIUM, headless: true, args: isRoot ? ["--no-sandbox"] : [] });
  const died = new Promise((_, reject) => opened.once("disconnected", () => reject(new Error("the browser ended"))));
  died.catch(() => {});
  await (await opened.newPage()).goto(url);
  return { died, close: () => opened.close() };
}

/** Starts a command in a home of its own, which `argsOf` is told. */
function started(command, argsOf) {
  const home = mkdtempSync(join(tmpdir(), "wasm-lora-browser-"));
  // A group of its own: xvfb-run leaves the X server and the browser to whoever ends it, and Firefox its processes.
  const child = spawn(command, argsOf(home), {
    stdio: "ignore",
    detached: true,
    env: { ...process.env, HOME: home, NO_AT_BRIDGE: "1" },
  });
  const ended = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
  const died = ended.then(() => {
    throw new Error("the browser ended");
  });
  died.catch(() => {});
  return {
    died,
    async close() {
      process.kill(-child.pid);
      await ended;
      rmSync(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    },
  };
}

export const firefoxPage = (url) => started(FIREFOX, (home) => ["--headless", "--no-remote", "--profile", home, url]);

export const miniBrowserPage = (url) => started("xvfb-run", () => ["-a", miniBrowser(), url]);

/** Where WebKitGTK's packages put it (a folder named after the architecture, one after the library); "" if nowhere. */
export function miniBrowser() {
  const libraries = existsSync("/usr/lib") ? readdirSync("/usr/lib").map((folder) => join("/usr/lib", folder)) : [];
  return (
    libraries
      .flatMap((folder) => ["webkit2gtk-4.1", "webkitgtk-6.0"].map((library) => join(folder, library, "MiniBrowser")))
      .find((file) => existsSync(file)) ?? ""
  );
}

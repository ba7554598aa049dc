/**
 * Built pages in headless Chromium, under a policy that forbids everything but the page's own files and WebAssembly.
 */
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { chromium } from "playwright-core";

export const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'";
/** Threads are workers of their own source. */
export const WITH_THREADS = `${POLICY}; worker-src blob:`;
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Serves a folder while `use` runs; use gets the address and, afterwards, the list of paths that were asked for. */
async function serve(folder, use, policy) {
  const requests = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const file = join(folder, pathname === "/" ? "index.html" : pathname);
    if (pathname !== "/favicon.ico") requests.push(pathname);
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "content-security-policy": policy,
      // Cross-origin isolated, so that there are threads.
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
    });
    response.end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await use(`http://localhost:${server.address().port}/`, requests);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

/** The digest that the page at `address` shows. @throws with what the browser logged, if it shows none */
export async function digestAt(address) {
  if (!existsSync(EXECUTABLE))
    throw new Error(`Chromium is not at ${EXECUTABLE}: install it (apt-get install chromium) or set CHROMIUM`);
  const browser = await chromium.launch({ executablePath: EXECUTABLE, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage();
    const log = [];
    page.on("console", (message) => log.push(message.text()));
    page.on("pageerror", (error) => log.push(String(error)));
    page.on("requestfailed", (request) => log.push(`${request.url()} failed`));
    await page.goto(address);
    const output = page.locator("output");
    try {
      await output.waitFor({ timeout: 20_000 });
    } catch {
      throw new Error(`the page showed nothing; the browser says: ${log.join("; ")}`);
    }
    const text = await output.textContent();
    if ((await output.getAttribute("id")) !== "digest") throw new Error(`${text}; the browser says: ${log.join("; ")}`);
    return text;
  } finally {
    await browser.close();
  }
}

/** The digest of the page in `folder`, and the paths that it asked for. */
export function digestOfPage(folder, query = "", policy = POLICY) {
  return serve(folder, async (address, requests) => ({ digest: await digestAt(address + query), requests }), policy);
}

/** What a page of that folder fails with where the policy does not name WebAssembly. */
export async function faultUnderPolicy(folder) {
  return (
    await digestOfPage(folder, "", POLICY.replace(" 'wasm-unsafe-eval'", "")).then(
      () => {
        throw new Error("the policy forbids nothing");
      },
      (error) => error,
    )
  ).message;
}

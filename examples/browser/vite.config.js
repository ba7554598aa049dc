import { readFileSync } from "node:fs";
import { defineConfig } from "vite";

/** The hub that the page loads models from: HF_ENDPOINT, or Hugging Face's own, with the servers that it leads to. */
const HUB = (process.env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
const HUB_SERVERS =
  HUB === "https://huggingface.co" ? `${HUB} https://*.huggingface.co https://*.hf.co` : new URL(HUB).origin;

/**
 * What the page may do: it asks nobody but its own origin and, for models, the hub. WebAssembly needs
 * 'wasm-unsafe-eval'; uPlot and the library generate no code. blob: is the adapter that the page offers for download
 * and, of a worker, a thread of the library's.
 */
const CONTENT_SECURITY_POLICY =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; " +
  "style-src 'self'; img-src 'self' data:; " +
  `connect-src 'self' blob: ${HUB_SERVERS}; ` +
  "base-uri 'none'; form-action 'none'";

/** In the page too, since a static host sends no headers. Before all else: it holds for what follows it. */
const policyInPage = {
  name: "policy-in-page",
  apply: "build",
  transformIndexHtml: () => [
    {
      tag: "meta",
      attrs: { "http-equiv": "Content-Security-Policy", content: CONTENT_SECURITY_POLICY },
      injectTo: "head-prepend",
    },
  ],
};

/** Where the library lives, as its package says. */
const { homepage } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const linkHome = { name: "link-home", transformIndexHtml: (html) => html.replaceAll("%HOMEPAGE%", homepage) };

/**
 * Isolates the page, so that it has shared memory and computes on all cores; its worker needs the second header too.
 * Vite's own options leave them out of answers 304, and there WebKit starts no worker.
 */
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const isolate = ({ middlewares }) => {
  middlewares.use((_, response, next) => {
    for (const [name, value] of Object.entries(ISOLATED)) response.setHeader(name, value);
    next();
  });
};
const isolated = { name: "isolated", configureServer: isolate, configurePreviewServer: isolate };

export default defineConfig({
  plugins: [policyInPage, linkHome, isolated],
  define: { __HUB__: JSON.stringify(HUB) },
  base: "./",
  // One page, not an application with routes: what is not there is answered 404, not with the page.
  appType: "mpa",
  // The library and the model are the repository's own files.
  server: { fs: { allow: ["../.."] } },
  // The small JSON files too stay files: a data: URL may not be fetched under the policy above.
  build: { target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
  preview: { headers: { "Content-Security-Policy": `${CONTENT_SECURITY_POLICY}; frame-ancestors 'none'` } },
});

/** The built page on servers of its own, for the tests. */
import { fileURLToPath } from "node:url";
import { preview } from "vite";

const OPTIONS = {
  root: fileURLToPath(new URL("..", import.meta.url)),
  preview: { port: 0, host: "localhost" },
  logLevel: "error",
};

/** Takes away again what isolates the page. */
const unisolated = {
  name: "unisolated",
  configurePreviewServer: ({ middlewares }) => {
    middlewares.use((_, response, next) => {
      response.removeHeader("Cross-Origin-Opener-Policy");
      response.removeHeader("Cross-Origin-Embedder-Policy");
      next();
    });
  },
};

/**
 * Whether a browser is given the isolated page, as visitors get it. Firefox is not: a session of WebDriver BiDi listens
 * to all workers that start (WebDriverWorkerListenerChild.sys.mjs of Firefox 153, which no preference turns off), and
 * about one start in twenty of a worker that starts workers then stands still. Without a session none did in 100.
 */
export const isIsolated = (browser) => browser !== "firefox";

/** Two servers of dist/. `url` says which is for a browser. */
export async function serve() {
  const isolated = await preview(OPTIONS);
  const plain = await preview({ ...OPTIONS, plugins: [unisolated] });
  return {
    url: (browser) => (isIsolated(browser) ? isolated : plain).resolvedUrls.local[0],
    close: () => Promise.all([isolated.close(), plain.close()]),
  };
}

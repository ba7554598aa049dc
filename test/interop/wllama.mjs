/** llama.cpp in Chromium, by wllama: a page of its own, which gets the files from here and gives back the text. */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { launch } from "puppeteer-core";

const PACKAGE = fileURLToPath(new URL("node_modules/@wllama/wllama/", import.meta.url));
const TYPES = { ".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };

/** @param files paths by the names that the page asks for */
export async function openWllama(executablePath, files) {
  const server = createServer((request, response) => {
    const path = new URL(request.url, "http://localhost").pathname.slice(1);
    const [, inPackage] = /^wllama\/(.+)$/.exec(path) ?? [];
    const file = inPackage ? PACKAGE + inPackage : files[path];
    if (path !== "" && file === undefined) return response.writeHead(404).end();
    const body = path === "" ? "<!doctype html><title>wllama</title>" : readFileSync(file);
    response.setHeader(
      "content-type",
      TYPES[extname(path)] ?? (path === "" ? "text/html" : "application/octet-stream"),
    );
    response.setHeader("cross-origin-opener-policy", "same-origin");
    response.setHeader("cross-origin-embedder-policy", "require-corp");
    response.end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const isRoot = process.getuid?.() === 0;
  const browser = await launch({ executablePath, headless: true, args: isRoot ? ["--no-sandbox"] : [] });
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  return {
    version: await browser.version(),
    /** The text that follows a prompt, the likeliest token each time. */
    async complete(model, adapter, prompt, count) {
      return page.evaluate(
        async (modelName, adapterName, text, n) => {
          const { Wllama } = await import("/wllama/esm/index.js");
          const wllama = new Wllama({ default: "/wllama/esm/wasm/wllama.wasm" }, { suppressNativeLog: true });
          const blob = async (name) => (await fetch(`/${name}`)).blob();
          const blobs = [await blob(modelName)];
          const params = {
            n_ctx: 128,
            n_threads: 1,
            n_gpu_layers: 0,
            warmup: false,
            cache_type_k: "f32",
            cache_type_v: "f32",
          };
          // The second file lies beside the first, under the name that wllama gives to parts.
          if (adapterName !== null) {
            blobs.push(await blob(adapterName));
            params.lora_adapters = [{ path: "models/model-00002-of-00002.gguf" }];
          }
          await wllama.loadModel(blobs, params);
          const { choices } = await wllama.createCompletion({
            prompt: text,
            max_tokens: n,
            temperature: 0,
            stream: false,
          });
          await wllama.exit();
          return choices[0].text;
        },
        model,
        adapter,
        prompt,
        count,
      );
    },
    async close() {
      await browser.close();
      server.close();
    },
  };
}

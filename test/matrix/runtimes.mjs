/**
 * The runtimes. Each has `version()`, null where it is not installed, and `open()`, which gives
 * `run(name, signal)`, the result of one bundle in a fresh realm, and `close()`. Those with a disk have `command` and
 * `args` besides, for whole programs.
 */
import { execFile, spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { CHROMIUM, chromiumPage, FIREFOX, firefoxPage, miniBrowser, miniBrowserPage, openPage } from "./browsers.mjs";
import { bundles, fileOf } from "./bundle.mjs";

const execute = promisify(execFile);
const here = fileURLToPath(new URL(".", import.meta.url));
const installed = join(here, "node_modules");

/** The first number with dots, or date, that `command --version` prints. */
async function versionOf(command, ...prefix) {
  if (!existsSync(command)) return null;
  const [first, ...args] = [...prefix, command, "--version"];
  const { stdout } = await execute(first, args);
  return /\d+(\.\d+)+[a-z]*|\d{4}-\d\d-\d\d/.exec(stdout)[0];
}

function server(name, command, args = []) {
  return {
    name,
    command,
    args,
    version: () => versionOf(command),
    open: async () => ({
      async run(bundle, signal) {
        const { stdout } = await execute(
          command,
          [...args, join(here, "child.mjs"), join(bundles, "server", fileOf(bundle))],
          { maxBuffer: 1 << 28, signal },
        );
        return JSON.parse(stdout.trimEnd().split("\n").pop());
      },
      async close() {},
    }),
  };
}

/** A process of its own for each bundle, that serves one request. */
const workerd = {
  name: "workerd",
  version: () => versionOf(join(installed, ".bin/workerd")),
  async open() {
    const folder = join(bundles, "workerd");
    return {
      async run(bundle, signal) {
        const file = fileOf(bundle);
        const config = join(folder, `${file}.capnp`);
        writeFileSync(config, workerdConfig(file));
        const child = spawn(join(installed, ".bin/workerd"), ["serve", config, "--control-fd=3"], {
          stdio: ["ignore", "ignore", "pipe", "pipe"],
        });
        let errors = "";
        child.stderr.on("data", (data) => {
          errors += data;
        });
        try {
          const port = await new Promise((resolve, reject) => {
            let text = "";
            child.stdio[3].on("data", (data) => {
              text += data;
              const port = /"event":"listen".*"port":(\d+)/.exec(text)?.[1];
              if (port) resolve(port);
            });
            child.once("error", reject).once("exit", () => reject(new Error(`workerd ended: ${errors}`)));
          });
          const response = await fetch(`http://127.0.0.1:${port}/`, { signal });
          if (!response.ok) throw new Error(`workerd answered ${response.status}: ${errors}`);
          return await response.json();
        } finally {
          child.kill();
        }
      },
      async close() {},
    };
  },
};

const workerdConfig = (file) =>
  `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  compatibilityDate = "2026-01-01",
  modules = [
    (name = "dist/matrix/workerd/main.js", esModule = "import { run } from './${file}'; export default { fetch: ` +
  `async () => Response.json(await run().catch((error) => ({ error: error.stack }))) };"),
    (name = "dist/matrix/workerd/${file}", esModule = embed "${file}"),
    (name = "dist/matrix/workerd/fixtures.bin", data = embed "../fixtures.bin"),
    (name = "build/wasm-lora.wasm", wasm = embed "../../../build/wasm-lora.wasm"),
    (name = "build/wasm-lora.fused.wasm", wasm = embed "../../../build/wasm-lora.fused.wasm"),
    (name = "build/wasm-lora.probes.wasm", wasm = embed "../../../build/wasm-lora.probes.wasm"),
  ],
);
`;

export const RUNTIMES = [
  ...["20", "22", "24", "26"].map((major) => server(`Node ${major}`, join(installed, `node${major}/bin/node`))),
  server("Deno", join(installed, ".bin/deno"), ["run", "--allow-all"]),
  server("Bun", join(installed, ".bin/bun")),
  workerd,
  {
    name: "Chromium",
    version: () => versionOf(CHROMIUM),
    open: () => openPage(chromiumPage),
  },
  {
    name: "Firefox ESR",
    version: () => versionOf(FIREFOX),
    open: () => openPage(firefoxPage),
  },
  // It asks for a display even to say its version.
  {
    name: "WebKitGTK",
    version: () => versionOf(miniBrowser(), "xvfb-run", "-a"),
    open: () => openPage(miniBrowserPage),
  },
];

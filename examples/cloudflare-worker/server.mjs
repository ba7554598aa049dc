/** Runs the Worker in workerd on this machine. */
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";
import workerd from "workerd";

const here = fileURLToPath(new URL(".", import.meta.url));

/** The code in one module, kernels and weights beside it: what workerd.capnp embeds. As wrangler does it. */
async function bundle() {
  await esbuild.build({
    absWorkingDir: here,
    entryPoints: ["src/worker.mjs"],
    outfile: "runs/worker/worker.js",
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:*"],
    loader: { ".wasm": "copy", ".safetensors": "copy" },
    assetNames: "[name]",
  });
}

/**
 * Starts it and waits until it listens.
 * @param port 0 takes a free one
 * @param state folder of the users' Durable Objects
 * @param inspect whether V8's inspector listens too, at `inspector`
 */
export async function startWorker({ port, state, inspect = false }) {
  await bundle();
  mkdirSync(state, { recursive: true });
  const options = [
    `--socket-addr=http=127.0.0.1:${port}`,
    `--directory-path=state=${resolve(state)}`,
    "--control-fd=3",
  ];
  if (inspect) options.push("--inspector-addr=127.0.0.1:0");
  const child = spawn(workerd.default, ["serve", `${here}workerd.capnp`, ...options], {
    stdio: ["ignore", "inherit", "inherit", "pipe"],
  });
  const ended = new Promise((done) => {
    child.once("exit", done);
  });
  const ports = await portsFrom(child.stdio[3]);
  return {
    url: `http://127.0.0.1:${ports.get("listen")}`,
    inspector: `http://127.0.0.1:${ports.get("listen-inspector")}`,
    ended,
    async stop(signal = "SIGTERM") {
      child.kill(signal);
      await ended;
    },
  };
}

/** workerd says a line for each port; that of the Worker's socket is the last. */
async function portsFrom(stream) {
  const ports = new Map();
  for await (const line of createInterface({ input: stream })) {
    const { event, port } = JSON.parse(line);
    ports.set(event, port);
    if (event === "listen") return ports;
  }
  throw new Error("workerd ended before it listened; its message is above.");
}

/** Runs the Worker in workerd on this machine, from the same wrangler.jsonc that deploys it. */
import { spawn } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import workerd from "workerd";

const here = fileURLToPath(new URL(".", import.meta.url));

/** A Worker imports bytes from a .bin file; workerd and wrangler know no other ending for them. */
export function copyWeights() {
  mkdirSync(`${here}runs`, { recursive: true });
  copyFileSync(fileURLToPath(import.meta.resolve("wasm-lora/models/base/model.safetensors")), `${here}runs/model.bin`);
}

/**
 * Starts it and waits until it listens.
 * @param port 0 takes a free one
 * @param state folder of the users' Durable Objects; workerd keeps them beside the config, so a copy of it goes there
 * @param inspect whether V8's inspector listens too, at `inspector`
 */
export async function startWorker({ port, state, inspect = false }) {
  copyWeights();
  mkdirSync(state, { recursive: true });
  const config = resolve(state, "wrangler.jsonc");
  writeFileSync(config, readFileSync(`${here}wrangler.jsonc`, "utf8").replace("src/worker.mjs", `${here}src/worker.mjs`));
  const child = spawn(workerd.default, ["serve", config, `--socket-addr=http=127.0.0.1:${port}`, "--control-fd=3", ...(inspect ? ["--inspector-addr=127.0.0.1:0"] : [])], {
    stdio: ["ignore", "inherit", "inherit", "pipe"], env: { ...process.env, WORKERD_ESBUILD: `${here}node_modules/.bin/esbuild` },
  });
  const ended = new Promise((done) => { child.once("exit", done); });
  const ports = await portsFrom(child.stdio[3]);
  return {
    url: `http://127.0.0.1:${ports.get("listen")}`, inspector: `http://127.0.0.1:${ports.get("listen-inspector")}`, ended,
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

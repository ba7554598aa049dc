/**
 * The same short fine-tuning run (20 steps, dropout, all linear layers) in every runtime that is
 * installed here: the adapters and the losses must be equal to the byte.
 *
 *   npm run build && npm --prefix test/matrix ci && node test/matrix/run.mjs
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url)), root = join(here, "../..");
const installed = join(here, "node_modules");
const RUNTIMES = [
  { command: process.execPath, args: [], version: "--version" },
  { command: join(installed, "node24/bin/node"), args: [], version: "--version" },
  { command: join(installed, ".bin/deno"), args: ["run", "-A"], version: "--version" },
  { command: join(installed, ".bin/bun"), args: [], version: "--version" },
];

const work = mkdtempSync(join(tmpdir(), "wasm-lora-matrix-"));
const digests = new Set();
try {
  const data = join(work, "moby-dick.txt");
  execFileSync(process.execPath, [join(root, "scripts/moby-dick.mjs"), data]);
  for (const [i, { command, args, version }] of RUNTIMES.entries()) {
    if (!existsSync(command)) {
      console.log(`${command} is not installed: not compared`);
      continue;
    }
    const name = execFileSync(command, [version], { encoding: "utf8" }).split("\n")[0];
    const out = join(work, `out${i}`);
    execFileSync(command, [...args, join(root, "dist/src/cli/main.js"), "finetune", "--data", data, "--out", out,
      "--steps", "20", "--batch", "4", "--dropout", "0.05"], { stdio: ["ignore", "ignore", "inherit"] });
    const digest = createHash("sha256").update(readFileSync(join(out, "adapter/adapter_model.safetensors")))
      .update(JSON.stringify(JSON.parse(readFileSync(join(out, "result.json"), "utf8")).losses)).digest("hex");
    digests.add(digest);
    console.log(`${digest.slice(0, 16)}  ${command.includes("bun") ? "bun " : ""}${name}`);
  }
} finally {
  rmSync(work, { recursive: true });
}
console.log(digests.size === 1 ? "same bits" : "THE BITS DIFFER");
process.exitCode = digests.size === 1 ? 0 : 1;

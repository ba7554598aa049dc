// Runs every compiled test, or those whose path contains an argument: node scripts/test.mjs golden
// (node --test takes a folder up to Node 20 and a pattern from 21 on; a list of files always works.)
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../dist/test", import.meta.url));
const wanted = process.argv.slice(2);
const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".test.js") && (wanted.length === 0 || wanted.some((part) => file.includes(part))))
  .sort()
  .map((file) => join(folder, file));
if (files.length === 0) {
  console.error(`no test matches ${wanted.join(", ")}`);
  process.exit(1);
}
process.exitCode = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit" }).status ?? 1;

/** Builds wasm-lora in the repository's root unless that has been done: what each example's `prepare:library` runs. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const isBuilt = () => ["build/wasm-lora.wasm", "dist/src/index.js"].every((file) => existsSync(`${root}${file}`));
if (!isBuilt()) {
  console.log(
    "Building the library, this once: npm ci and npm run build in the repository's root. It takes a minute or two.",
  );
  // npm is npm.cmd on Windows, which takes a shell.
  const npm = (...args) =>
    execFileSync("npm", args, { cwd: root, stdio: "inherit", shell: process.platform === "win32" });
  if (!existsSync(`${root}node_modules`)) npm("ci", "--no-audit", "--no-fund");
  if (!isBuilt()) npm("run", "--silent", "build");
}

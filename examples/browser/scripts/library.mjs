// Builds wasm-lora in the repository's root unless that has been done.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const built = ["build/wasm-lora.wasm", "dist/src/index.js"].every((file) => existsSync(`${root}/${file}`));
if (!built) {
  console.log("Building the library, this once: npm ci and npm run build in the root. It takes a minute.");
  // npm is npm.cmd on Windows, which takes a shell.
  const npm = (...args) => execFileSync("npm", args, { cwd: root, stdio: "inherit", shell: process.platform === "win32" });
  if (!existsSync(`${root}/node_modules`)) npm("ci");
  npm("run", "build");
}

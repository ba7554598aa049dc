/**
 * npm's "prepare": builds the package where it has been installed from its sources (`npm ci` in a clone, `npm install git+...`) and
 * before it is packed. Without the compilers (`npm ci --omit=dev`, a link to a fresh clone) there is nothing to build with; the
 * package is installed all the same, and what it lacks is said here.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const compilers = ["assemblyscript", "binaryen", "typescript", "rolldown"];
if (compilers.every((name) => existsSync(`${root}/node_modules/${name}`))) {
  process.exitCode = spawnSync("npm run --silent build", { cwd: root, stdio: "inherit", shell: true }).status ?? 1;
} else {
  console.log("wasm-lora is not built, since its development dependencies are not installed here: run `npm ci` in its folder.");
}

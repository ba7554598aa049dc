/**
 * npm's "prepare": builds the package where it has been installed from its sources (`npm ci` in a clone, `npm install
 * git+...`) and before it is packed. npm also runs it for a link from another project (examples/); that needs a build
 * only where there is none. Without the compilers (`npm ci --omit=dev`, a link to a fresh clone) there is nothing to
 * build with: installation goes on.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const has = (names) => names.every((name) => existsSync(resolve(root, name)));
const linked = resolve(process.env.npm_config_local_prefix ?? root) !== resolve(root);
const built = has([
  "build/wasm-lora.wasm",
  "build/wasm-lora.fused.wasm",
  "dist/src/index.js",
  "dist/wasm-lora.browser.js",
]);
if (linked && built) process.exit();
if (has(["assemblyscript", "binaryen", "typescript", "rolldown"].map((name) => `node_modules/${name}`))) {
  process.exitCode = spawnSync("npm run --silent build", { cwd: root, stdio: "inherit", shell: true }).status ?? 1;
} else {
  console.log(
    `wasm-lora is not built, since its development dependencies are not installed: run \`npm ci\` in ${root}`,
  );
}

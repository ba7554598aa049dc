/**
 * The site, a folder for any static host: guides and reference by TypeDoc, and the browser example as its live page.
 *
 *   npm run docs      # builds the library, then docs/site/
 *
 * Fails on an undocumented public name, and on a link that leads nowhere.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { deadLinks } from "./links.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const site = fileURLToPath(new URL("site", import.meta.url));
const page = `${root}examples/browser`;
/**
 * Where the site will be: what guides call it, so that they can be read in the repository, too. Within the site such
 * links are relative.
 */
const PUBLISHED = "https://wasm-lora.github.io/wasm-lora/";

function run(command, ...args) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

rmSync(site, { recursive: true, force: true });
run(process.execPath, "docs/node_modules/typedoc/bin/typedoc");

if (!existsSync(`${page}/node_modules`))
  run("npm", "--prefix", page, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts");
run("npm", "--prefix", page, "run", "--silent", "build");
cpSync(`${page}/dist`, `${site}/live`, { recursive: true });

for (const name of readdirSync(site, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".html"))) {
  const file = join(site, name);
  const up = relative(dirname(file), site);
  writeFileSync(file, readFileSync(file, "utf8").replaceAll(`"${PUBLISHED}`, `"${up && `${up}/`}`));
}

const dead = deadLinks(site, root);
for (const link of dead) console.error(link);
console.log(
  dead.length === 0
    ? `The site is in ${site}: open index.html, or put the folder on a static host.`
    : `${dead.length} links lead nowhere.`,
);
process.exitCode = dead.length === 0 ? 0 : 1;

/**
 * The one formatter and linter, Biome, over everything, and the limit of 120 columns; `--write` mends what can be
 * mended. AssemblyScript's decorators on functions are no TypeScript: files that have them are given to Biome with
 * each decorator as a comment.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const biome = createRequire(import.meta.url).resolve("@biomejs/biome/bin/biome");
const write = process.argv.includes("--write");
const COLUMNS = 120;
const DECORATOR = /^(\s*)@(inline|unmanaged|unsafe|global|external)\b/gm;
const MASK = /^(\s*)\/\/@/gm;

/** Runs Biome on paths; what it finds stands on the terminal. */
function check(paths) {
  const options = [...(write ? ["--write"] : []), "--no-errors-on-unmatched", "--max-diagnostics=100"];
  return (
    spawnSync(process.execPath, [biome, "check", ...options, ...paths], { cwd: root, stdio: "inherit" }).status === 0
  );
}

/** Tracked files and new ones, without what git ignores. */
function files(...patterns) {
  const { stdout } = spawnSync("git", ["ls-files", "-co", "--exclude-standard", ...patterns], {
    cwd: root,
    encoding: "utf8",
  });
  return [...new Set(stdout.split("\n").filter(Boolean))];
}

function read(file) {
  try {
    return readFileSync(join(root, file), "utf8");
  } catch (error) {
    // Deleted, and not yet committed.
    if (error.code === "ENOENT") return "";
    throw error;
  }
}

/** Copies with decorators as comments lie under build/, which Biome is told to take (biome.json). */
function checkAssembly() {
  const folder = "build/lint";
  const sources = files("assembly/*.ts", "bench/wall.ts");
  rmSync(join(root, folder), { recursive: true, force: true });
  for (const file of sources) {
    mkdirSync(dirname(join(root, folder, file)), { recursive: true });
    writeFileSync(join(root, folder, file), read(file).replace(DECORATOR, "$1//@$2"));
  }
  const isClean = check(["--config-path=scripts/biome.assembly.json", folder]);
  for (const file of write ? sources : []) {
    const mended = read(join(folder, file)).replace(MASK, "$1@");
    if (mended !== read(file)) writeFileSync(join(root, file), mended);
  }
  rmSync(join(root, folder), { recursive: true, force: true });
  return isClean;
}

/** Lines that are too long: Biome breaks code, but no text and no comment. */
function longLines() {
  const wide = [];
  for (const file of files("*.ts", "*.mjs", "*.js", ".ci/*")) {
    for (const [i, line] of read(file).split("\n").entries()) {
      if (line.length > COLUMNS) wide.push(`${file}:${i + 1}: ${line.length} columns; at most ${COLUMNS}`);
    }
  }
  return wide;
}

const isClean = [check(["."]), checkAssembly()].every(Boolean);
const wide = longLines();
for (const line of wide) console.error(line);
console.log(
  isClean && wide.length === 0 ? "Lint: clean." : "Lint: see above; `npm run format` mends what can be mended.",
);
process.exitCode = isClean && wide.length === 0 ? 0 : 1;

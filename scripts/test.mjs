/**
 * Runs the tests, each file in a process of its own, as many at once as there are cores:
 *
 *   node scripts/test.mjs                      every test below test/, as built, but those of test/slow
 *   node scripts/test.mjs peft unit/io         the files whose path has one of the words
 *   node scripts/test.mjs --only "NaN|merge"   the tests whose name matches this pattern; -t is short for it
 *   node scripts/test.mjs --in test/slow       the files of another folder; *.test.mjs run as they are
 *   node scripts/test.mjs --output             and what the files print
 *   node scripts/test.mjs --limit 60           seconds that a file may take, instead of 600
 *
 * A file that does not load, crashes, hangs, registers no test or does not run what it registers is a failure. The
 * last line is "N passed, N failed, N skipped in N files, N s"; the exit code is 1 if anything failed, or nothing ran.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { SingleBar } from "cli-progress";
import { killAll, runFile } from "./test/process.mjs";
import { shownStack } from "./test/stack.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const slow = join(root, "test/slow");
/** Seconds of each file when it last passed here: what takes long starts first, and what is left can be told. */
const TIMES = join(root, "build/test-times.json");
const LINE_EVERY_MS = 10_000;
/** Of what a file with a failure printed. */
const LAST_LINES = 60;

const { values: options, positionals: words } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: "string", short: "t", default: "" },
    in: { type: "string", default: join(root, "test") },
    output: { type: "boolean", default: false },
    limit: { type: "string", default: "600" },
  },
});

/** All files below a folder but those of installed packages, one of which may be a link back to this one. */
function* filesIn(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isFile()) yield path;
    else if (entry.isDirectory() && entry.name !== "node_modules") yield* filesIn(path);
  }
}

/** Found by their sources: what an older build left in dist/ is no test. */
function testFiles(folder) {
  return [...filesIn(folder)]
    .filter((file) => /\.test\.(ts|mjs)$/.test(file))
    .filter((file) => folder.startsWith(slow) || !file.startsWith(slow + sep))
    .map((source) => ({ source, name: source.startsWith(root) ? relative(root, source) : source }))
    .map(({ source, name }) => ({ source, name: name.split(sep).join("/") }))
    .filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)))
    .map(({ source, name }) => ({
      name,
      path: name.endsWith(".ts") ? join(root, "dist", name.replace(/ts$/, "js")) : source,
      // Before the first run here: large ones take longer, and those with child processes.
      expected: times[name] ?? (name.includes("/cli/") ? 10 : 1) * (0.5 + statSync(source).size / 20_000),
      started: Infinity,
    }))
    .sort((a, b) => b.expected - a.expected);
}

const times = existsSync(TIMES) ? JSON.parse(readFileSync(TIMES, "utf8")) : {};
const files = testFiles(resolve(options.in));
const counts = { passed: 0, failed: 0, skipped: 0, done: 0 };
const begin = performance.now();
const elapsed = () => (performance.now() - begin) / 1000;

const bar = process.stdout.isTTY
  ? new SingleBar({ format: "{bar} {value}/{total} files: {told}", hideCursor: true, barsize: 24 })
  : null;

/** Counts, and the time that is left if the rest takes, to what was expected, as long as the files until now. */
function progress() {
  let [behind, ahead] = [0, 0];
  for (const { expected, started, seconds } of files) {
    const share = seconds === undefined ? Math.min(0.9, Math.max(0, elapsed() - started) / expected) : 1;
    behind += share * expected;
    ahead += (1 - share) * expected;
  }
  const left = behind > 0 ? (ahead * elapsed()) / behind : ahead / availableParallelism();
  return `${counts.passed} passed, ${counts.failed} failed, ${elapsed().toFixed(0)} s, about ${left.toFixed(0)} s left`;
}
function tell() {
  if (bar) bar.update(counts.done, { told: progress() });
  else console.log(`${counts.done}/${files.length} files: ${progress()}`);
}
/** A bar is taken away while something else is written. */
function print(text) {
  bar?.stop();
  console.log(text);
  bar?.start(files.length, counts.done, { told: progress() });
}

const indented = (text) => text.replace(/^/gm, "    ");

function report(name, { failures, skipped, output }) {
  for (const { name: test, message, difference, stack } of failures) {
    const parts = [message, difference, shownStack(stack, root)].filter(Boolean);
    print(`FAIL ${name} > ${test}\n${indented(parts.join("\n"))}\n`);
  }
  for (const test of skipped) print(`SKIP ${name} > ${test}`);
  if (output === "" || (failures.length === 0 && !options.output)) return;
  const lines = output.split("\n").slice(options.output ? 0 : -LAST_LINES);
  print(`${name} printed:\n${indented(lines.join("\n"))}\n`);
}

/** Runs one file after another, as long as there are any. */
async function worker(queue) {
  for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
    file.started = elapsed();
    const result = await runFile(file.path, options.only, Number(options.limit));
    file.seconds = elapsed() - file.started;
    if (options.only === "" && result.failures.length === 0) times[file.name] = Number(file.seconds.toFixed(2));
    counts.done++;
    counts.passed += result.passed;
    counts.failed += result.failures.length;
    counts.skipped += result.skipped.length;
    report(file.name, result);
  }
}

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    killAll();
    process.exit(1);
  });
}
bar?.start(files.length, 0, { told: progress() });
tell();
const telling = setInterval(tell, bar ? 500 : LINE_EVERY_MS);
const queue = [...files];
await Promise.all(Array.from({ length: availableParallelism() }, () => worker(queue)));
clearInterval(telling);
bar?.stop();

mkdirSync(dirname(TIMES), { recursive: true });
writeFileSync(TIMES, JSON.stringify(times, null, 1));
const isNone = counts.passed + counts.failed + counts.skipped === 0;
if (isNone) console.error(`No test matches ${[...words, options.only && `--only ${options.only}`].join(" ").trim()}`);
console.log(
  `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped in ${files.length} files, ` +
    `${elapsed().toFixed(1)} s`,
);
process.exitCode = counts.failed > 0 || isNone ? 1 : 0;

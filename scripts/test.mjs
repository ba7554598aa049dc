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
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { SingleBar } from "cli-progress";
import { shownStack } from "./test/stack.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const child = fileURLToPath(new URL("test/file.mjs", import.meta.url));
const slow = join(root, "test/slow");
/** Seconds of each file when it last ran here: what takes long starts first, and what is left can be told. */
const TIMES = join(root, "build/test-times.json");
/** A process that is there so long after its last test has left something open. */
const GRACE_MS = 10_000;
const LINE_EVERY_MS = 10_000;
/** Of what a failed file printed. */
const LAST_LINES = 60;

const { values: options, positionals: words } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: "string", short: "t", default: "" },
    in: { type: "string", default: "test" },
    output: { type: "boolean", default: false },
    limit: { type: "string", default: "600" },
  },
});
const limit = Number(options.limit);
const folder = resolve(options.in);
const times = existsSync(TIMES) ? JSON.parse(readFileSync(TIMES, "utf8")) : {};

/** Found by their sources: what an older build left in dist/ is no test. */
function files() {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((file) => join(folder, file))
    .filter((file) => /\.test\.(ts|mjs)$/.test(file) && !file.includes(`${sep}node_modules${sep}`))
    .filter((file) => folder.startsWith(slow) || !file.startsWith(slow + sep))
    .map((source) => ({ source, name: relative(root, source).split(sep).join("/") }))
    .filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)))
    .map(({ source, name }) => ({
      name,
      path: name.endsWith(".ts") ? join(root, "dist", name.replace(/ts$/, "js")) : source,
      // Before the first run, files with child processes go first, then large ones.
      seconds: times[name] ?? (name.includes("/cli/") ? 10 : 1) * (0.5 + statSync(source).size / 20_000),
    }))
    .sort((a, b) => b.seconds - a.seconds);
}

/** Every process that runs, with those that it started: a group each, where there are groups. */
const running = new Set();
function end(process_, signal = "SIGKILL") {
  try {
    process.kill(process.platform === "win32" ? process_.pid : -process_.pid, signal);
  } catch {
    // It has ended by itself.
  }
}
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    for (const process_ of running) end(process_);
    process.exit(130);
  });
}

/** Runs one file. Gives { passed, skipped: names, failures: [{ name, message, stack, difference }], output }. */
function runFile({ path }) {
  return new Promise((done) => {
    const result = { passed: 0, skipped: [], failures: [], output: "" };
    const fail = (name, message) => result.failures.push({ name, message, stack: "", difference: "" });
    let current = "loading the file";
    let ended = false;
    const process_ = spawn(process.execPath, [child, path, options.only], {
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      detached: process.platform !== "win32",
    });
    running.add(process_);
    const expire = () => {
      if (ended) fail("the process", `is still there ${GRACE_MS / 1000} s after its last test: something is left open`);
      else fail(current, `no end after ${limit} s, which a file may take`);
      ended = true;
      end(process_);
    };
    let timer = setTimeout(expire, limit * 1000);
    for (const stream of [process_.stdout, process_.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        result.output += text;
      });
    }
    process_.on("message", ({ event, name, ...failure }) => {
      if (event === "start") current = name;
      else if (event === "pass") result.passed++;
      else if (event === "skip") result.skipped.push(name);
      else if (event === "fail") result.failures.push({ name, ...failure });
      else if (event === "end") {
        ended = true;
        clearTimeout(timer);
        timer = setTimeout(expire, GRACE_MS);
      }
    });
    process_.on("error", (error) => fail("the process", error.message));
    process_.on("close", (code, signal) => {
      clearTimeout(timer);
      running.delete(process_);
      if (!ended) fail(current, `the process ended with ${signal ?? `code ${code}`} before its last test`);
      else if (code !== 0 && signal !== "SIGKILL") fail("the process", `ended with ${signal ?? `code ${code}`}`);
      // uvu's own marks and counts.
      result.output = result.output.replace(/[•✘] | {2}\(\d+ \/ \d+\)\n/g, "");
      done(result);
    });
  });
}

const counts = { passed: 0, failed: 0, skipped: 0, done: 0 };
const started = performance.now();
const elapsed = () => (performance.now() - started) / 1000;
const work = files();
const total = work.reduce((sum, { seconds }) => sum + seconds, 0);
/** Of `total`, what the files that are done were expected to take. */
let behind = 0;

const bar = process.stdout.isTTY
  ? new SingleBar({ format: "{bar} {value}/{total} files {told}", hideCursor: true, barsize: 24 })
  : null;
function progress() {
  const left = behind > 0 ? ((total - behind) * elapsed()) / behind : total / availableParallelism();
  return `${counts.passed} passed, ${counts.failed} failed, ${elapsed().toFixed(0)} s, about ${left.toFixed(0)} s left`;
}
const tell = () =>
  bar
    ? bar.update(counts.done, { told: progress() })
    : console.log(`${counts.done}/${work.length} files: ${progress()}`);
/** A bar is taken away while something else is written. */
function print(text) {
  bar?.stop();
  console.log(text);
  bar?.start(work.length, counts.done, { told: progress() });
}

function report({ name }, { failures, skipped, output }) {
  for (const failure of failures) {
    const parts = [failure.message, failure.difference, shownStack(failure.stack, root)].filter(Boolean);
    print(`FAIL ${name} > ${failure.name}\n${parts.join("\n").replace(/^/gm, "    ")}\n`);
  }
  for (const test of skipped) print(`SKIP ${name} > ${test}`);
  const lines = output.trimEnd().split("\n");
  if (output.trim() === "" || (failures.length === 0 && !options.output)) return;
  print(
    `${name} printed:\n${lines
      .slice(options.output ? 0 : -LAST_LINES)
      .join("\n")
      .replace(/^/gm, "    ")}\n`,
  );
}

async function worker(queue) {
  for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
    const from = elapsed();
    const result = existsSync(file.path)
      ? await runFile(file)
      : {
          passed: 0,
          skipped: [],
          failures: [{ name: "the file", message: "is not built: npm run build:ts", stack: "" }],
        };
    if (options.only === "" && result.failures.length === 0)
      times[file.name] = Math.round((elapsed() - from) * 100) / 100;
    behind += file.seconds;
    counts.done++;
    counts.passed += result.passed;
    counts.failed += result.failures.length;
    counts.skipped += result.skipped.length;
    report(file, result);
    if (bar) tell();
  }
}

bar?.start(work.length, 0, { told: progress() });
tell();
const lines = setInterval(tell, bar ? 1000 : LINE_EVERY_MS);
const queue = [...work];
await Promise.all(Array.from({ length: Math.min(availableParallelism(), work.length) }, () => worker(queue)));
clearInterval(lines);
bar?.stop();

mkdirSync(dirname(TIMES), { recursive: true });
writeFileSync(TIMES, JSON.stringify(times, null, 1));
const nothing = counts.passed + counts.failed + counts.skipped === 0;
if (nothing)
  console.error(`no test matches ${[...words, options.only && `--only ${options.only}`].filter(Boolean).join(" ")}`);
console.log(
  `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped in ${work.length} files, ` +
    `${elapsed().toFixed(1)} s`,
);
process.exitCode = counts.failed > 0 || nothing ? 1 : 0;

/** npm run bench: see README.md, or --help. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BROWSERS, runInBrowsers } from "./browsers.mjs";
import { buildWalls, bundleTensorFlow, root } from "./build.mjs";

const USAGE = `Usage: npm run bench -- [--quick] [--only SECTION]... [--threads N] [--browser NAME]...

  --quick           two or three minutes: shorter bursts, fewer rounds, and the small Llama only
  --only SECTION    machine, sgemm, lora, llama, step or start; may be repeated. Default: all
  --threads N       how many threads a contestant on several has. Default: as many as there are processors
  --browser NAME    "Chromium", "Firefox ESR" or "WebKitGTK" instead of Node; may be repeated. Takes all but
                    step and start
  --help            this text

Prints tables and whether each bar is met. If all sections ran it writes bench/results/<date>-<engine>-<cpu>.json, and
in Node an SVG chart beside it; -quick is added to the name of quick runs. The exit code is 1 if a bar is missed.`;

/** Shares of the whole, by what they take; only for the time that is left. */
const WEIGHTS = { machine: 1, sgemm: 10, lora: 6, llama: 3, step: 16, start: 1 };

function readOptions() {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string", multiple: true, default: [] },
      threads: { type: "string" },
      browser: { type: "string", multiple: true, default: [] },
      help: { type: "boolean", default: false },
    },
  });
  for (const [option, known] of [
    ["only", Object.keys(WEIGHTS)],
    ["browser", BROWSERS],
  ]) {
    const unknown = values[option].find((name) => !known.includes(name));
    if (unknown !== undefined) throw new RangeError(`--${option} must be one of ${known.join(", ")}; got ${unknown}.`);
  }
  const threads = values.threads === undefined ? availableParallelism() : Number(values.threads);
  if (!Number.isInteger(threads) || threads < 1)
    throw new RangeError(`--threads must be an integer of at least 1; got ${values.threads}.`);
  return { ...values, threads };
}

let given;
try {
  given = readOptions();
} catch (error) {
  console.error(`bench: ${error.message}\n\n${USAGE}`);
  process.exit(2);
}
if (given.help) {
  console.log(USAGE);
  process.exit(0);
}

if (!existsSync(join(root, "bench/node_modules")))
  execFileSync("npm", ["--prefix", "bench", "ci", "--no-audit", "--no-fund"], { cwd: root, stdio: "inherit" });
buildWalls();
await bundleTensorFlow();
// Only now are the packages and what was built sure to be there.
const { SECTIONS } = await import("./sections.mjs");
const { environment } = await import("#platform");
const { judge } = await import("./bars.mjs");
const { chart } = await import("./chart.mjs");
const { text } = await import("./report.mjs");
const { startOf } = await import("./startup.mjs");
const { step } = await import("./steps.mjs");
/** Those that run in Node only, where processes of their own are to be had. */
const IN_NODE = { step, start: startOf };

const names = Object.keys(WEIGHTS).filter((name) => given.only.length === 0 || given.only.includes(name));
const started = performance.now();
function report(done, what) {
  const left = (((performance.now() - started) / done) * (1 - done)) / 1000;
  const line = `${what}${done > 0 ? `, about ${Math.ceil(left)} s left` : ""}`;
  process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${line}` : `${line}\n`);
}

const totalOf = (sections) => sections.reduce((sum, name) => sum + WEIGHTS[name], 0);

async function runInNode() {
  const total = totalOf(names);
  const sections = {};
  let done = 0;
  for (const name of names) {
    const progress = (at, of, what) => report((done + (WEIGHTS[name] * at) / of) / total, `${name}: ${what}`);
    sections[name] = await (SECTIONS[name] ?? IN_NODE[name])(given, progress);
    done += WEIGHTS[name];
  }
  process.stderr.write("\n");
  return { [`Node ${process.versions.node}`]: { environment: await environment(), sections } };
}

async function runInPages() {
  const sections = names.filter((name) => name in SECTIONS);
  const total = given.browser.length * totalOf(sections);
  let done = 0;
  return runInBrowsers(given.browser, sections, { quick: given.quick }, (browser, section) => {
    report(done / total, `${browser}: ${section}`);
    done += WEIGHTS[section];
  });
}

/** The processor's name, and where the system tells them its family and model: a name may stand for several. */
function cpu() {
  const { model } = cpus()[0] ?? { model: "unknown" };
  if (!existsSync("/proc/cpuinfo")) return model;
  const text = readFileSync("/proc/cpuinfo", "utf8");
  const numbers = ["cpu family", "model"].map((key) => new RegExp(`^${key}\\s*: (\\d+)$`, "m").exec(text)?.[1]);
  return [model, ...numbers.filter(Boolean)].join(" ");
}
const slug = (name) => name.toLowerCase().replaceAll(/[^a-z0-9.]+/g, "-");

const commit = execFileSync("git", ["describe", "--always", "--dirty"], { cwd: root, encoding: "utf8" }).trim();
const results = given.browser.length > 0 ? await runInPages() : await runInNode();
const inAll = names.length === Object.keys(WEIGHTS).length;
for (const [engine, result] of Object.entries(results)) {
  const date = new Date().toISOString();
  const whole = { date, commit, quick: given.quick, ...result, bars: judge(result.sections) };
  console.log(`\n${text(whole)}`);
  if (whole.bars.some(({ passed }) => passed === false)) process.exitCode = 1;
  if (!inAll) continue;
  mkdirSync(join(root, "bench/results"), { recursive: true });
  const file = join(
    root,
    "bench/results",
    `${date.slice(0, 10)}-${slug(engine)}-${slug(cpu())}${given.quick ? "-quick" : ""}`,
  );
  writeFileSync(
    `${file}.json`,
    `${JSON.stringify(whole, (_, value) => (typeof value === "number" ? Number(value.toPrecision(6)) : value), 1)}\n`,
  );
  if (given.browser.length === 0) writeFileSync(`${file}.svg`, chart(whole));
}

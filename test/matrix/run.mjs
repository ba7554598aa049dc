/**
 * The same test files and the same computations in every runtime; README.md says how.
 *
 *   npm run matrix                  all, and writes results/ and, if all is green, the table of the README
 *   npm run matrix -- Deno Chromium these alone
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { installAndBuild } from "./install.mjs";

const TIMEOUT = 600_000;

installAndBuild();
// Only now are their packages sure to be there.
const { bundleAll, suites } = await import("./bundle.mjs");
const { RUNTIMES } = await import("./runtimes.mjs");
const { finetune } = await import("./finetune.mjs");
const { FROM_DISK, faults, markdown } = await import("./report.mjs");
const { SingleBar } = await import("cli-progress");

/** A bar where there is a terminal, else a line. */
function progress(label, total) {
  if (!process.stderr.isTTY) console.log(`${label} ...`);
  const bar = new SingleBar({
    format: `${label.padEnd(12)} {bar} {value}/{total} {now}`,
    hideCursor: true,
    barsize: 24,
  });
  bar.start(total, 0, { now: "" });
  return { at: (now) => bar.increment(0, { now }), next: () => bar.increment(), stop: () => bar.stop() };
}

/** Everything in one runtime. */
async function runIn(runtime, names) {
  const row = {
    name: runtime.name,
    version: await runtime.version(),
    disk: Boolean(runtime.command),
    files: {},
    digests: {},
    refused: {},
    errors: [],
  };
  if (row.version === null) return row;
  const bar = progress(runtime.name, names.length + 1 + (runtime.command ? 1 : 0));
  try {
    const opened = await runtime.open();
    try {
      for (const name of names) {
        bar.at(name);
        const start = performance.now();
        const { passed = 0, total = 0, error, failures } = await attempt(opened, name);
        row.files[name] = { passed, total, seconds: Math.round(performance.now() - start) / 1000 };
        if (error || failures) row.errors.push(`${name}: ${error ?? failures}`);
        bar.next();
      }
      bar.at("digests");
      const { digests, refused, error } = await attempt(opened, "digest");
      Object.assign(row.digests, digests);
      for (const [stage, why] of Object.entries(refused ?? {})) row.refused[stage] = anywhere(why);
      if (error) row.errors.push(`digests: ${error}`);
      bar.next();
    } finally {
      await opened.close();
    }
    if (runtime.command) {
      bar.at("fine-tuning");
      row.digests[FROM_DISK] = await finetune(runtime);
      bar.next();
    }
  } catch (error) {
    row.errors.push(error.stack);
  } finally {
    bar.stop();
  }
  return row;
}

/** A reason without this machine's folders and ports. */
const anywhere = (why) => why.replace(/\S+\/(?=build\/)/g, "");

/** A bundle's result, or the error that it ended with. One that does not end ends the whole runtime. */
async function attempt(opened, name) {
  const signal = AbortSignal.timeout(TIMEOUT);
  const late = new Promise((_, reject) =>
    signal.addEventListener("abort", () => reject(new Error(`${name}: no result after ${TIMEOUT / 1000} s`))),
  );
  return Promise.race([opened.run(name, signal).catch((error) => ({ error: error.stack })), late]);
}

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !RUNTIMES.some((runtime) => runtime.name === name));
if (unknown.length > 0)
  throw new Error(`no runtime ${unknown.join(", ")}; there are ${RUNTIMES.map(({ name }) => name).join(", ")}`);

const names = suites();
const bar = progress("bundles", 3 * (names.length + 1));
await bundleAll([...names, "digest"], (now) => {
  bar.at(now);
  bar.next();
});
bar.stop();

const rows = [];
for (const runtime of RUNTIMES)
  if (wanted.length === 0 || wanted.includes(runtime.name)) rows.push(await runIn(runtime, names));

const table = markdown(rows);
const found = faults(rows);
console.log(`\n${table}\n${found.length === 0 ? "The same bits everywhere." : `NOT GREEN\n${found.join("\n")}`}`);
if (wanted.length === 0) {
  const results = new URL("results/", import.meta.url);
  mkdirSync(results, { recursive: true });
  writeFileSync(
    new URL("matrix.json", results),
    `${JSON.stringify({ green: found.length === 0, runtimes: rows }, null, 2)}\n`,
  );
  writeFileSync(new URL("matrix.md", results), table);
  const readme = new URL("../../README.md", import.meta.url);
  const [before, after] = [/^[^]*<!-- matrix -->\n/, /<!-- \/matrix -->[^]*$/].map(
    (part) => part.exec(readFileSync(readme, "utf8"))[0],
  );
  if (found.length === 0) writeFileSync(readme, before + table + after);
}
process.exitCode = found.length === 0 ? 0 : 1;

/**
 * npm run fuzz [-- [--inputs N] [--seed N] [--at N] [--faults N] [target ...]]: hostile inputs for every reader and for
 * the public functions. A target is given up after --faults. Ends with a table and "N passed, N failed", a target being
 * one.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { SingleBar } from "cli-progress";
import { init } from "../../src/index.js";
import type { Fault } from "./job.js";
import { inputAt, kept, toText, type Target } from "./target.js";
import { TARGETS } from "./targets/index.js";
import { watch, type Outcome } from "./watch.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    inputs: { type: "string" },
    seed: { type: "string", default: "0" },
    at: { type: "string" },
    faults: { type: "string", default: "25" },
  },
});
const whole = (name: string, text: string): number => {
  if (!/^\d{1,15}$/.test(text)) throw new Error(`--${name} is ${text}; expected a whole number`);
  return Number(text);
};
const seed = whole("seed", values.seed);
const at = values.at === undefined ? undefined : whole("at", values.at);
const unknown = positionals.filter((name) => !TARGETS.some((target) => target.name === name));
if (unknown.length > 0)
  throw new Error(`there is no target ${unknown.join(", ")}; there are ${TARGETS.map(({ name }) => name).join(", ")}`);
const targets = TARGETS.filter(({ name }) => positionals.length === 0 || positionals.includes(name));

const FAILED = "runs/fuzz";

/** Where an input can be had again: by its number, or as a file that is ready for the corpus. */
async function keep(target: Target, { index }: Fault): Promise<string> {
  if (target.names) return target.names[index]!;
  if (index < 0) return `test/fuzz/corpus/${kept(target.name).at(index)!.name}`;
  await prepare(target);
  mkdirSync(FAILED, { recursive: true });
  const file = `${FAILED}/${target.name}-${seed}-${index}.json`;
  writeFileSync(file, toText(inputAt(target, seed, index)));
  return `npm run fuzz -- ${target.name} --seed ${seed} --at ${index}   (${file})`;
}

// Inputs that failed are made again here.
await init();
/** So that inputs can be made here too. */
async function prepare(target: Target): Promise<void> {
  if (prepared.has(target)) return;
  prepared.add(target);
  const { log, error } = console;
  const { write } = process.stdout;
  console.log = console.error = () => {};
  process.stdout.write = () => true;
  try {
    await target.prepare?.();
  } finally {
    Object.assign(console, { log, error });
    process.stdout.write = write;
  }
}
const prepared = new Set<Target>();

const outcomes: Outcome[] = [];
for (const target of targets) {
  const inputs =
    at !== undefined
      ? 1
      : target.names
        ? target.names.length
        : values.inputs
          ? whole("inputs", values.inputs)
          : target.inputs;
  const bar = new SingleBar({
    format: `${target.name.padEnd(12)} {bar} {value}/{total} | {eta_formatted} left`,
    barsize: 24,
    hideCursor: true,
    noTTYOutput: true,
    notTTYSchedule: 5000,
    clearOnComplete: true,
    etaBuffer: 50,
    linewrap: true,
    gracefulExit: false,
  });
  bar.start(inputs, 0);
  const outcome = await watch(target, {
    seed,
    ...(at === undefined ? {} : { from: at }),
    inputs,
    mostFaults: whole("faults", values.faults),
    progress: (done) => {
      bar.update(Math.min(done, inputs));
    },
  });
  bar.stop();
  if (!process.stderr.isTTY) process.stderr.write("\n");
  outcomes.push(outcome);
  // One of a kind: the same fault comes many times.
  const kinds = new Map<string, Fault[]>();
  for (const fault of outcome.faults) {
    const kind = target.names ? String(fault.index) : fault.title.replace(/\d+|"[^"]*"/g, "#").slice(0, 60);
    kinds.set(kind, [...(kinds.get(kind) ?? []), fault]);
  }
  for (const [first, ...others] of kinds.values()) {
    console.log(
      `FAULT ${target.name}: ${first!.title.slice(0, 400)}${
        others.length > 0 ? ` (and ${others.length} ` + `like it)` : ""
      }\n  ${await keep(target, first!)}`,
    );
    if (first!.stack)
      console.log(
        first!.stack
          .split("\n")
          .filter((line) => /^\s+at /.test(line))
          .slice(0, at === undefined ? 4 : 20)
          .join("\n"),
      );
  }
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
const rows = [["target", "inputs", "taken", "refused", "slowest", "most memory", "resident", "faults"]];
for (const o of outcomes) {
  const refused =
    Object.entries(o.refused)
      .sort(([, a], [, b]) => b - a)
      .map(([name, n]) => `${name} ${n}`)
      .join(", ") || "0";
  rows.push([
    o.target,
    String(o.inputs),
    String(o.accepted),
    refused,
    `${o.slowest.ms.toFixed(0)} ms (#${o.slowest.index}, ${o.slowest.bytes} bytes)`,
    `${megabytes(o.bytes)} MB`,
    `${megabytes(o.resident)} MB`,
    String(o.faults.length),
  ]);
}
const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
for (const row of rows)
  console.log(
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join("  ")
      .trimEnd(),
  );
const failed = outcomes.filter((o) => o.faults.length > 0).length;
console.log(`${outcomes.length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;

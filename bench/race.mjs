/**
 * Races between engines in one process: bursts of the contestants alternate round by round, so a
 * busy neighbour or a clock change meets all of them; the median over rounds is the figure to quote.
 *
 * The clock is the CPU time of this process, all its threads: what other processes take is not
 * counted, and an engine that used a second thread would pay for it. Wall time is kept beside it; on
 * an idle machine the two agree.
 */
import { availableParallelism, cpus } from "node:os";

/** Long enough for the timer's grain and for V8 to replace its baseline code. */
const WARM_UP_MS = 300;
const BURST_MS = 40;

/**
 * contestants: [{ name, run }], where run() does the work once and may return a promise.
 * Returns for each name the milliseconds of one run: { median, best, wallMedian, runsPerBurst }.
 */
export async function race(contestants, rounds, onRound = () => {}) {
  const entries = [];
  for (const { name, run } of contestants) {
    const start = performance.now();
    let runs = 0, fastest = Infinity, last = start;
    while (last - start < WARM_UP_MS || runs < 3) {
      await run();
      const now = performance.now();
      fastest = Math.min(fastest, now - last);
      last = now;
      runs++;
    }
    entries.push({ name, run, cpu: [], wall: [], runsPerBurst: Math.ceil(BURST_MS / fastest) });
  }
  for (let round = 1; round <= rounds; round++) {
    for (const entry of entries) {
      const start = performance.now(), used = process.cpuUsage();
      for (let i = 0; i < entry.runsPerBurst; i++) {
        const pending = entry.run();
        // Awaiting what is not a promise would cost synchronous engines a microtask.
        if (pending instanceof Promise) await pending;
      }
      const { user, system } = process.cpuUsage(used);
      entry.wall.push((performance.now() - start) / entry.runsPerBurst);
      entry.cpu.push((user + system) / 1000 / entry.runsPerBurst);
    }
    onRound(round);
  }
  return Object.fromEntries(entries.map(({ name, cpu, wall, runsPerBurst }) =>
    [name, { median: median(cpu), best: Math.min(...cpu), wallMedian: median(wall), runsPerBurst }]));
}

function median(times) {
  const sorted = [...times].sort((x, y) => x - y);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** What the figures depend on. */
export function machine() {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    logicalCpus: availableParallelism(),
    platform: `${process.platform} ${process.arch}`,
    node: process.versions.node,
    v8: process.versions.v8,
  };
}

/** Columns aligned, the first to the left, the others to the right. */
export function formatTable(rows) {
  const widths = rows[0].map((_, c) => Math.max(...rows.map((row) => row[c].length)));
  const line = (row) => row.map((cell, c) => (c === 0 ? cell.padEnd(widths[c]) : cell.padStart(widths[c]))).join("  ").trimEnd();
  return [line(rows[0]), widths.map((w) => "-".repeat(w)).join("  "), ...rows.slice(1).map(line)].join("\n");
}

/** A run's results as text. */
import { FULL_STEP, FUSED, JAX, ONNX, onThreads, OURS, TFJS, TFJS_BEST, TFJS_WRITTEN, TORCH } from "./engines.mjs";

/** Columns aligned, the first to the left, the others to the right. */
function table(rows) {
  const widths = rows[0].map((_, c) => Math.max(...rows.map((row) => row[c].length)));
  const line = (row) =>
    row
      .map((cell, c) => (c === 0 ? cell.padEnd(widths[c]) : cell.padStart(widths[c])))
      .join("  ")
      .trimEnd();
  return [line(rows[0]), widths.map((w) => "-".repeat(w)).join("  "), ...rows.slice(1).map(line)].join("\n");
}

const number = (value, digits = 1) => (Number.isFinite(value) ? value.toFixed(digits) : "n/a");
const times = (value) => (Number.isFinite(value) ? `${value.toFixed(2)}x` : "n/a");
const percent = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(0)} %` : "");

function reasons({ missing, rows }) {
  const all = new Set(Object.entries(missing).map(([name, why]) => `${name} does not load: ${why}`));
  for (const { shape, refused } of rows)
    for (const [name, why] of Object.entries(refused ?? {})) all.add(`${name} at ${shape.join(", ")}: ${why}`);
  return all.size > 0 ? `\n\n${[...all].join("\n")}` : "";
}

/** The titles of two columns: what several threads gain, in either arithmetic. */
const onSeveral = ({ threads }) => (threads > 1 ? [`${threads} threads`, `fused, ${threads} threads`] : []);

const WRITE = {
  machine: ({ gflops, read }) =>
    [
      ...Object.entries(gflops).map(
        ([kind, { fastest, chain }]) =>
          `${kind === "fma" ? "fused multiply-add (relaxed SIMD)" : "multiply, then add"}: ` +
          `${number(fastest)} GFLOP/s (${chain})`,
      ),
      `read: ${read
        .map(({ bytes, gigabytesPerSecond }) => `${number(gigabytesPerSecond)} GB/s of ` + `${bytes / 1024} KiB`)
        .join(", ")}`,
    ].join("\n"),

  sgemm: (result) =>
    table([
      [
        "M, N, K (GFLOP/s)",
        OURS,
        "fused",
        TFJS,
        ONNX,
        JAX,
        "of best peer",
        "of wall",
        "fused of FMA wall",
        "of reading B",
        ...onSeveral(result),
      ],
      ...result.rows.map(({ shape, gflops, ofBestPeer, ofWall, ofFmaWall, ofReading, speedup }) => [
        shape.join(", "),
        ...[OURS, FUSED, TFJS, ONNX, JAX].map((name) => number(gflops[name])),
        times(ofBestPeer),
        percent(ofWall),
        percent(ofFmaWall),
        percent(ofReading),
        ...onSeveral(result).map((_, i) => times(speedup[[OURS, FUSED][i]])),
      ]),
    ]) + reasons(result),

  lora: (result) =>
    table([
      [
        "N, d, k, r (ms)",
        OURS,
        "fused",
        "full",
        JAX,
        "tfjs best",
        "tfjs written",
        "x jax",
        "x best",
        "x written",
        "x full",
        "kernels/products",
        "of wall",
        "fused of FMA wall",
        "fused x jax",
        ...onSeveral(result),
      ],
      ...result.rows.map(({ shape, milliseconds, ratios, ofProducts, ofWall, ofFmaWall, fusedOfJax, speedup }) => [
        shape.join(", "),
        ...[OURS, FUSED, FULL_STEP, JAX, TFJS_BEST, TFJS_WRITTEN].map((name) => number(milliseconds[name], 2)),
        ...[JAX, TFJS_BEST, TFJS_WRITTEN, FULL_STEP].map((name) => times(ratios[name])),
        number(ofProducts, 3),
        percent(ofWall),
        percent(ofFmaWall),
        times(fusedOfJax),
        ...onSeveral(result).map((_, i) => times(speedup[[OURS, FUSED][i]])),
      ]),
    ]) + reasons(result),

  llama: (result) =>
    table([
      ["Llama step (tokens/s)", "batch x steps", OURS, JAX, "of jax-js"],
      ...result.rows.map(({ model, batch, steps, tokensPerSecond, ofJax }) => [
        model,
        `${batch} x ${steps}`,
        number(tokensPerSecond[OURS], 0),
        number(tokensPerSecond[JAX], 0),
        times(ofJax),
      ]),
    ]) + reasons(result),

  step: (result) =>
    table([
      ["whole LoRA step", "batch x tokens", "", "ms", "of one thread", `of ${TORCH} on as many`],
      ...result.rows.flatMap(({ model, shape, threads, milliseconds, speedup, ofTorch }) =>
        [OURS, FUSED, TORCH].flatMap((name) =>
          (threads > 1 ? [1, threads] : [1]).map((count) => [
            model,
            shape.join(" x "),
            onThreads(name, count),
            number(milliseconds[onThreads(name, count)]),
            count === 1 ? "" : times(speedup[name]),
            name === TORCH ? "" : times(ofTorch[onThreads(name, count)]),
          ]),
        ),
      ),
    ]) + reasons(result),

  start: (engines) =>
    table([
      [
        "start, in a process of its own",
        "init ms",
        "first LoRA step ms",
        "memory MiB",
        "linear memory MiB",
        "load base ms",
      ],
      ...Object.entries(engines).map(([name, of]) => [
        name,
        number(of.initMs),
        number(of.firstStepMs),
        number(of.grownMiB),
        number(of.linearMemoryMiB),
        number(of.loadBaseMs),
      ]),
    ]),
};

/** What became of the bursts of all sections. */
function neighbours(sections) {
  const total = (what) => sections.reduce((sum, { bursts }) => sum + (bursts?.[what] ?? 0), 0);
  return (
    `${total("counted")} bursts; repeated because someone else worked on this core: ${total("repeated")}; ` +
    `counted all the same: ${total("shared")}`
  );
}

function bars(judged) {
  const verdict = ({ passed }) => (passed === null ? "  -   " : passed ? "passed" : "FAILED");
  const missed = ({ failed, atTheWall }) =>
    failed.map((at, i) => (atTheWall ? `${at} (at the wall ${atTheWall[i].toFixed(2)})` : at)).join(" | ");
  return judged
    .map(
      (bar) =>
        `${verdict(bar)}  ${bar.title}` +
        (bar.note
          ? `: ${bar.note}`
          : `: worst ${bar.worst.toFixed(3)} at ${bar.at}${bar.passed ? "" : `; fails at ${missed(bar)}`}`),
    )
    .join("\n");
}

/** Everything that was measured. */
export function text({ environment, sections, bars: judged }) {
  return [
    `${environment.engine}\n${environment.cpu}, ${environment.logicalCpus} logical CPUs, ${environment.platform}; ` +
      `one thread unless it says how many, float32, medians; clock: ${environment.clock}` +
      (environment.load === undefined ? "" : `; load average ${number(environment.load)}`) +
      `\npeers: ${Object.entries(environment.peers)
        .map((peer) => peer.join(" "))
        .join(", ")}`,
    ...Object.entries(sections).map(([name, result]) => WRITE[name](result)),
    neighbours(Object.values(sections)),
    bars(judged),
  ].join("\n\n");
}

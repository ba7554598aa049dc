/** What the matrix found, judged and as Markdown. */

/** The one stage that only runtimes with a disk have. */
export const FROM_DISK = "fine-tuning from file to file";

/** The stage that only runtimes have which fuse, and those that refuse it. */
export const FUSED = "fused arithmetic";
const DO_NOT_FUSE = ["Node 20", "Bun", "WebKitGTK"];

/** The stages that are computed with 1, 2, 3, 5 and 8 threads, and those that have one only. */
export const THREADS = "1 to 8 threads";
export const THREADS_FUSED = `${THREADS}, fused`;
const ONE_THREAD = ["workerd", "WebKitGTK"];

/**
 * @param rows a runtime each: { name, version, disk, files: { "unit/lora/layers": { passed, total, seconds } },
 *   digests: { stage: SHA-256 }, refused: { stage: reason }, errors }; version null: missing
 * @returns why the matrix is not green; empty if it is
 */
export function faults(rows) {
  const found = rows.filter(({ version }) => version === null).map(({ name }) => `${name} is missing`);
  const present = rows.filter(({ version }) => version !== null);
  for (const { name, disk, files, digests, refused, errors } of present) {
    for (const error of errors) found.push(`${name}: ${error}`);
    for (const [file, { passed, total }] of Object.entries(files)) {
      if (passed < total || total === 0) found.push(`${name}: ${file} passed ${passed} of ${total} tests`);
    }
    if (refused[THREADS] && !ONE_THREAD.includes(name)) found.push(`${name} has one thread: ${refused[THREADS]}`);
    for (const stage of stagesOf(present))
      if (!digests[stage] && (disk || stage !== FROM_DISK) && !(refused[stage] && DO_NOT_FUSE.includes(name)))
        found.push(`${name} has no digest of "${stage}"${refused[stage] ? `: ${refused[stage]}` : ""}`);
  }
  for (const file of new Set(present.flatMap(({ files }) => Object.keys(files)))) {
    const totals = new Set(present.map(({ files }) => files[file]?.total));
    if (totals.size > 1) found.push(`${file} has not the same number of tests everywhere: ${[...totals].join(", ")}`);
  }
  for (const stage of stagesOf(present)) if (tally(rows, stage).length > 1) found.push(`the bits of "${stage}" differ`);
  return found;
}

const suitesOf = (rows) => [
  ...new Set(rows.flatMap(({ files }) => Object.keys(files).map((file) => file.split("/")[0]))),
];
const stagesOf = (rows) => [...new Set(rows.flatMap(({ digests }) => Object.keys(digests)))];
const line = (cells) => `| ${cells.join(" | ")} |\n`;

/** Sum of a field over the files of a suite, or over all. */
function sum({ files }, field, suite = "") {
  return Object.entries(files).reduce(
    (total, [file, result]) => total + (file.startsWith(suite) ? result[field] : 0),
    0,
  );
}

/** Two tables: runtimes by suites, stages by digests. */
export function markdown(rows) {
  const suites = suitesOf(rows);
  let text =
    line(["runtime", "version", ...suites, "seconds", "digests"]) +
    line(["---", "---", ...suites.map(() => "---:"), "---:", "---"]);
  for (const row of rows) {
    text += line(
      row.version === null
        ? [row.name, "missing", ...suites.map(() => "0"), "", ""]
        : [
            row.name,
            row.version,
            ...suites.map((suite) => `${sum(row, "passed", suite)} / ${sum(row, "total", suite)}`),
            sum(row, "seconds").toFixed(0),
            agreement(rows, row),
          ],
    );
  }
  text += `\n${line(["stage", "SHA-256 of its bits", "runtimes"])}${line(["---", "---", "---:"])}`;
  for (const stage of stagesOf(rows)) {
    for (const [value, count] of tally(rows, stage)) text += line([stage, `\`${value.slice(0, 16)}\``, count]);
  }
  const refusing = rows.filter(({ refused }) => refused[FUSED]).map(({ name }) => name);
  if (refusing.length > 0) text += `\nRefused, with the reason: ${FUSED} in ${refusing.join(", ")}.\n`;
  const single = rows.filter(({ refused, digests }) => refused[THREADS] && digests[THREADS]).map(({ name }) => name);
  if (single.length > 0) text += `\nOne thread computes, and a warning says why, in ${single.join(", ")}.\n`;
  return text;
}

/** The digests that occur for a stage, the most frequent first, with the number of runtimes. */
function tally(rows, stage) {
  const counts = new Map();
  for (const { digests } of rows) if (digests[stage]) counts.set(digests[stage], (counts.get(digests[stage]) ?? 0) + 1);
  return [...counts].sort(([, a], [, b]) => b - a);
}

/** How many of a runtime's digests are those of most runtimes. */
function agreement(rows, { digests }) {
  const own = Object.entries(digests);
  const equal = own.filter(([stage, value]) => value === tally(rows, stage)[0][0]).length;
  return own.length === 0
    ? "none"
    : equal === own.length
      ? `${equal} equal`
      : `${own.length - equal} of ${own.length} differ`;
}

/** What the matrix found, judged and as Markdown. */

/**
 * @param rows { name, version, suites: { folder: { passed, total, seconds } }, digests: { stage: sha256 } } a runtime;
 *   version null: missing
 * @returns why the matrix is not green; empty if it is
 */
export function faults(rows) {
  const found = [];
  for (const { name, version, suites, errors } of rows) {
    if (version === null) found.push(`${name} is missing`);
    for (const [suite, { passed, total }] of Object.entries(suites)) {
      if (passed < total) found.push(`${name}: ${total - passed} of ${total} tests of ${suite} failed`);
    }
    for (const error of errors) found.push(`${name}: ${error}`);
  }
  const present = rows.filter(({ version }) => version !== null);
  for (const suite of suitesOf(rows)) {
    const totals = new Set(present.map(({ suites }) => suites[suite]?.total));
    if (totals.size > 1) found.push(`${suite} has not the same number of tests everywhere: ${[...totals].join(", ")}`);
  }
  for (const stage of stagesOf(rows)) {
    const values = new Set(present.map(({ digests }) => digests[stage]).filter(Boolean));
    if (values.size > 1) found.push(`the bits of "${stage}" differ`);
  }
  return found;
}

const suitesOf = (rows) => [...new Set(rows.flatMap(({ suites }) => Object.keys(suites)))];
const stagesOf = (rows) => [...new Set(rows.flatMap(({ digests }) => Object.keys(digests)))];
const line = (cells) => `| ${cells.join(" | ")} |\n`;

export function markdown(rows) {
  const suites = suitesOf(rows), stages = stagesOf(rows);
  let text = line(["runtime", "version", ...suites, "seconds", "digests"]) + line(["---", "---", ...suites.map(() => "---:"), "---:", "---"]);
  for (const row of rows) {
    const seconds = Object.values(row.suites).reduce((sum, suite) => sum + suite.seconds, 0);
    text += line(row.version === null ? [row.name, "missing", ...suites.map(() => ""), "", ""] : [
      row.name, row.version, ...suites.map((suite) => `${row.suites[suite].passed} / ${row.suites[suite].total}`), seconds.toFixed(1), agreement(rows, row),
    ]);
  }
  text += `\n${line(["stage", "SHA-256 of its bits", "runtimes"])}${line(["---", "---", "---:"])}`;
  for (const stage of stages) {
    for (const [value, count] of tally(rows, stage)) text += line([stage, `\`${value.slice(0, 16)}\``, `${count}`]);
  }
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
  const own = Object.entries(digests), equal = own.filter(([stage, value]) => value === tally(rows, stage)[0][0]).length;
  return own.length === 0 ? "none" : equal === own.length ? `${equal} equal` : `${own.length - equal} of ${own.length} differ`;
}

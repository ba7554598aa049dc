/**
 * A run as a page: one file that asks nobody for anything, runs no script, and is the same bytes whenever the run is.
 * What it shows may be a stranger's (texts, names), so all of it is escaped, and the page's own policy lets nothing be
 * fetched or run.
 */
import { printable } from "../runtime/printable.js";
import { chartSvg, type Chart } from "./chart.js";
import { count, perplexity, perplexityChange } from "./format.js";
import { packageVersion } from "./paths.js";

/** What a model answers to one thing, before and after. */
export interface ReportedSample {
  /** What it is asked, turn by turn; a role only where there are turns. */
  prompt: readonly { role: string | null; text: string }[];
  before: string;
  after: string;
  /** The answer of the data; null where there is none. */
  reference: string | null;
}

export interface Report {
  model: string;
  data: string;
  weights: { trained: number; all: number };
  /** How many there were to be. */
  steps: number;
  stoppedEarly: boolean;
  metrics: readonly { loss: number; gradNorm: number; learningRate: number; epoch: number | null }[];
  /** Of what is held out, in order; the first before training. */
  evaluations: readonly { step: number; loss: number }[];
  best: { step: number; loss: number } | null;
  maxGradNorm: number;
  samples: readonly ReportedSample[];
  /** Of the data, as names and values. */
  counts: readonly (readonly [name: string, value: string])[];
  settings: readonly (readonly [name: string, value: string])[];
}

/** A document of HTML. */
export function reportHtml(report: Report): string {
  const title = `${nameOf(report.model)} on ${nameOf(report.data)}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<header>
<p class="kind">LoRA fine-tuning</p>
<h1>${escapeHtml(title)}</h1>
</header>
${figures(report)}
${curves(report)}
${report.samples.length === 0 ? "" : samples(report)}
<section class="tables">
${table("Data", report.counts)}
${table("Settings", report.settings)}
</section>
<footer>wasm-lora ${escapeHtml(packageVersion())}</footer>
</main>
</body>
</html>
`;
}

/** The last part of a path or of a name on the hub: the whole stands in the settings. */
function nameOf(path: string): string {
  return path.split(/[\\/]/).filter(Boolean).at(-1) ?? path;
}

function figures({ metrics, evaluations, best, steps, stoppedEarly, weights }: Report): string {
  const cards: [label: string, value: string, note: string][] = [];
  const [first, last] = [evaluations[0], evaluations.at(-1)];
  if (first && last && first.step === 0 && last.step > 0) {
    const end = best ?? last;
    cards.push(
      ["Held-out loss", `${first.loss.toFixed(3)} → ${end.loss.toFixed(3)}`, "nats per token, before and after"],
      ["Perplexity", `${perplexity(first.loss)} → ${perplexity(end.loss)}`, perplexityChange(first.loss, end.loss)],
    );
  }
  const taken = metrics.length;
  const epochs = metrics.at(-1)?.epoch;
  const parts = [
    ...(stoppedEarly ? [`of ${count(steps)}: stopped early`] : []),
    ...(epochs ? [`${Number(epochs.toFixed(2))} ${epochs === 1 ? "epoch" : "epochs"}`] : []),
    ...(best && best.step !== taken ? [`best after ${count(best.step)}`] : []),
  ];
  cards.push(
    ["Steps", count(taken), parts.join(", ")],
    [
      "Trained weights",
      count(weights.trained),
      `${((100 * weights.trained) / weights.all).toFixed(2)} % of ${count(weights.all)}`,
    ],
  );
  const card = ([label, value, note]: (typeof cards)[number]): string =>
    `<div><dt>${label}</dt><dd>${escapeHtml(value)}</dd><dd class="note">${escapeHtml(note)}</dd></div>`;
  return `<dl class="figures">\n${cards.map(card).join("\n")}\n</dl>`;
}

function curves({ metrics, evaluations, best, maxGradNorm }: Report): string {
  const epochs = metrics.map(({ epoch }) => Math.floor(epoch ?? 0));
  const marks = epochs.flatMap((epoch, i) => (epoch > (epochs[i - 1] ?? 0) && i + 1 < epochs.length ? [i + 1] : []));
  const points = evaluations.map(({ step, loss }) => ({ step, value: loss }));
  const judged = best && evaluations.length > 2 ? { step: best.step, value: best.loss } : null;
  const rule = maxGradNorm > 0 ? { value: maxGradNorm, label: `clipped to ${maxGradNorm}` } : undefined;
  const keys = [
    key("each", "each step"),
    key("mean", "running mean"),
    ...(points.length > 0 ? [key("held", "held out")] : []),
    ...(judged ? [key("best", `best, after step ${judged.step}: ${judged.value.toFixed(3)}`)] : []),
    ...(marks.length > 0 ? [key("mark", "an epoch ends")] : []),
  ];
  const figure = (name: string, legend: string, chart: Omit<Chart, "title">, wide: number): string =>
    `<figure><figcaption><h2>${name}</h2><p class="keys">${legend}</p></figcaption>\n` +
    `${chartSvg({ ...chart, title: `${name} over the steps` }, { wide, narrow: 360 })}\n</figure>`;
  return `<section class="curves">
${figure(
  "Loss",
  keys.join(""),
  { values: metrics.map(({ loss }) => loss), mean: true, points, best: judged, marks, height: 300 },
  880,
)}
<div class="pair">
${figure("Learning rate", "", { values: metrics.map((m) => m.learningRate), fromZero: true, marks, height: 190 }, 430)}
${figure(
  "Gradient norm",
  key("each", "each step") + key("mean", "running mean") + (rule ? key("rule", rule.label) : ""),
  {
    values: metrics.map(({ gradNorm }) => gradNorm),
    mean: true,
    rule,
    fromZero: true,
    marks,
    height: 190,
  },
  430,
)}
</div>
</section>`;
}

function key(kind: string, label: string): string {
  return `<span><i class="key-${kind}"></i>${escapeHtml(label)}</span>`;
}

function samples({ samples }: Report): string {
  const answer = (name: string, kind: string, text: string): string =>
    `<div class="${kind}"><h3>${name}</h3>` +
    `<p dir="auto">${text === "" ? "<em>nothing</em>" : escapeHtml(text)}</p></div>`;
  const one = ({ prompt, before, after, reference }: ReportedSample): string =>
    `<article>
<div class="prompt">${prompt
      .map(
        ({ role, text }) =>
          `<p dir="auto">${role === null ? "" : `<b>${escapeHtml(role)}</b> `}${escapeHtml(text)}</p>`,
      )
      .join("\n")}</div>
<div class="answers">
${answer("Before", "before", before)}
${answer("After", "after", after)}
${reference === null ? "" : answer("In the data", "reference", reference)}
</div>
</article>`;
  return `<section class="samples">\n<h2>Before and after</h2>\n${samples.map(one).join("\n")}\n</section>`;
}

function table(name: string, entries: readonly (readonly [string, string])[]): string {
  const rows = entries.map(
    ([label, value]) => `<tr><th scope="row">${escapeHtml(label)}</th><td>${escapeHtml(value)}</td></tr>`,
  );
  return `<div><h2>${name}</h2>\n<table>\n${rows.join("\n")}\n</table></div>`;
}

function escapeHtml(text: string): string {
  return printable(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
}

const STYLE = `
:root {
  --page: #f7f7f5; --card: #ffffff; --ink: #1f2328; --soft: #5c6570; --line: #e3e5e8; --mark: #b9bfc7;
  --each: #a9c4ee; --mean: #1f5fc4; --held: #b4540a; --best: #0b7a4b; --rule: #9a3b8f; --after: #eaf4ee;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1c2126; --ink: #e6e9ec; --soft: #9aa4ae; --line: #2d343b; --mark: #4a545e;
    --each: #37547f; --mean: #77aaff; --held: #f0a35c; --best: #57cf97; --rule: #d98bd0; --after: #1d2f27;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0; font-size: 1rem; }
h3 { margin: 0 0 .25rem; font-size: .8125rem; font-weight: 600; color: var(--soft); }
.kind { margin: 0 0 .25rem; color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: .75rem; margin: 1.5rem 0; }
.figures div, figure, article, .tables > div {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .875rem 1rem;
}
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; font-size: 1.1875rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dd.note { font-size: .8125rem; font-weight: 400; color: var(--soft); }
figure { margin: 0; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; align-items: baseline; margin-bottom: .5rem; }
.keys { display: flex; flex-wrap: wrap; gap: .125rem 1rem; margin: 0; font-size: .8125rem; color: var(--soft); }
.keys i { display: inline-block; width: 1rem; height: 0; margin-right: .375rem; vertical-align: middle; }
.key-each { border-top: 2px solid var(--each); } .key-mean { border-top: 3px solid var(--mean); }
.key-held { border-top: 3px solid var(--held); } .key-rule { border-top: 2px dashed var(--rule); }
.key-mark { border-top: 2px dotted var(--mark); }
.keys .key-best { width: .75rem; height: .75rem; border: 3px solid var(--best); border-radius: 50%; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .75rem; margin-top: .75rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; font-size: 12px; }
svg.narrow { display: none; }
svg text { fill: var(--soft); font-variant-numeric: tabular-nums; }
path { fill: none; stroke-linejoin: round; }
.grid { stroke: var(--line); } .mark { stroke: var(--mark); stroke-dasharray: 1 3; }
.rule { stroke: var(--rule); stroke-dasharray: 5 4; }
.each { stroke: var(--each); } .mean { stroke: var(--mean); stroke-width: 2; }
.held { stroke: var(--held); stroke-width: 1.5; } .held-dot { fill: var(--held); }
.best-dot { fill: none; stroke: var(--best); stroke-width: 3; }
.samples { margin-top: 1.75rem; }
article { margin-top: .75rem; }
.prompt p { margin: 0 0 .25rem; } .prompt b { color: var(--soft); font-weight: 600; font-size: .8125rem; }
.prompt p, .answers p { white-space: pre-wrap; overflow-wrap: anywhere; }
.answers { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: .75rem; margin-top: .5rem; }
.answers > div { border: 1px solid var(--line); border-radius: 8px; padding: .5rem .75rem; min-width: 0; }
.answers p { margin: 0; font-size: .9375rem; } .answers em { color: var(--soft); }
.answers .after { background: var(--after); }
.tables { display: grid; grid-template-columns: 2fr 3fr; gap: .75rem; margin-top: 1.75rem; align-items: start; }
table { width: 100%; border-collapse: collapse; margin-top: .5rem; font-size: .875rem; }
th { width: 1%; padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; white-space: nowrap; }
th { font-weight: 400; color: var(--soft); }
td { padding: .25rem 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
tr + tr > * { border-top: 1px solid var(--line); }
footer { margin-top: 1.5rem; font-size: .8125rem; color: var(--soft); }
@media (max-width: 44rem) {
  main { padding: 1.25rem .875rem 2rem; }
  h1 { font-size: 1.375rem; }
  dd { font-size: 1.0625rem; }
  .figures { grid-template-columns: 1fr 1fr; }
  .pair, .tables { grid-template-columns: 1fr; }
  .answers { grid-auto-flow: row; }
  svg.wide { display: none; } svg.narrow { display: block; }
}
@media print { body { background: none; } figure, article, .tables > div { break-inside: avoid; } }
`;

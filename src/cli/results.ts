/** What a run leaves: its adapters, and what came of it as figures, a curve and a page. */
import { writeAtomic } from "../io/files.js";
import { engine } from "../runtime/engine.js";
import { count, perplexity } from "./format.js";
import { lossCurveSvg } from "./plot.js";
import { reportHtml } from "./report.js";
import type { Run } from "./run.js";
import { reported } from "./samples.js";
import { areOfText } from "./settings.js";

/**
 * Where evaluations judge, the best factors in adapter/ and the last ones in adapter-last/; else the last in adapter/.
 * @returns the folders
 */
export function saveAdapters({ training }: Run, out: string): string[] {
  const { adapted, best } = training;
  const folder = `${out}/adapter`;
  if (!best) {
    adapted.savePretrained(folder);
    return [folder];
  }
  training.withBest(() => {
    adapted.savePretrained(folder);
  });
  adapted.savePretrained(`${folder}-last`);
  return [folder, `${folder}-last`];
}

/**
 * result.json, loss.svg and report.html.
 * @param before samples before training
 * @param after and of what is in adapter/
 */
export function writeResults(
  run: Run,
  out: string,
  modelCommit: string | undefined,
  before: readonly string[],
  after: readonly string[],
): void {
  const { training, settings } = run;
  const { losses, evaluations, best, learningRate, steps, stoppedEarly } = training;
  const heldOutBefore = evaluations[0]?.loss ?? null;
  const heldOutAfter = evaluations.at(-1)?.loss ?? null;
  const { arithmetic } = engine();
  const result = {
    settings,
    // The default goes without saying, as in a checkpoint.
    arithmetic: arithmetic === "fused" ? arithmetic : undefined,
    modelCommit,
    learningRate,
    stoppedEarly,
    heldOutBefore,
    heldOutAfter,
    best,
    evaluations,
    losses,
  };
  writeAtomic(`${out}/result.json`, `${JSON.stringify(result, null, 2)}\n`);
  const change =
    heldOutBefore === null || heldOutAfter === null
      ? ""
      : `: perplexity ${perplexity(heldOutBefore)} to ${perplexity(heldOutAfter)}`;
  writeAtomic(
    `${out}/loss.svg`,
    lossCurveSvg(losses, {
      title: `LoRA r = ${settings.r} on ${settings.data}${change}`,
      heldOutBefore: heldOutBefore ?? NaN,
      heldOutAfter: heldOutAfter ?? NaN,
    }),
  );
  const [trained, all] = training.adapted.getNbTrainableParameters();
  writeAtomic(
    `${out}/report.html`,
    reportHtml({
      model: settings.model,
      data: settings.data,
      weights: { trained, all },
      steps,
      stoppedEarly,
      metrics: training.metrics,
      evaluations,
      best,
      maxGradNorm: settings.maxGradNorm,
      samples: reported(run.samples, before, after),
      counts: run.counts,
      settings: [
        ...shownSettings(run),
        ...(arithmetic === "fused" ? [["Arithmetic", arithmetic] as [string, string]] : []),
      ],
    }),
  );
}

/** Every setting in words; where it was left open, with what came of it. */
function shownSettings({ settings, training }: Run): [string, string][] {
  const came: Record<string, number> = {
    lr: training.learningRate,
    evalEvery: training.settings.evalEvery,
    ...(areOfText(settings) ? { testWindows: training.evaluationBatches } : {}),
  };
  return Object.entries(settings)
    .filter(([, value]) => value !== undefined && value !== null && JSON.stringify(value) !== "{}")
    .map(([key, value]) => [NAMES[key] ?? words(key), value === "auto" ? `auto: ${came[key] ?? value}` : shown(value)]);
}

/** Where the words of a key are not enough. */
const NAMES: Record<string, string> = {
  r: "Rank r",
  lr: "Learning rate",
  dora: "DoRA",
  rslora: "rsLoRA",
  loraPlus: "LoRA+ ratio",
};

function words(key: string): string {
  const spaced = key.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return spaced[0]!.toUpperCase() + spaced.slice(1);
}

function shown(value: unknown): string {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : String(value);
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

/**
 * wasm-lora finetune: LoRA training of a language model on rows or on one text. What is computed is in train/; here are
 * files and the order of things.
 */
import { ensureWritableDirectory, exists, removeTemporaries } from "../io/files.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, DivergedError, FileError, FormatError } from "../runtime/errors.js";
import type { FinetuningState } from "../train/state.js";
import {
  checkpointPath,
  findCheckpoint,
  hasCheckpoint,
  previousPath,
  saveCheckpoint,
  type FoundCheckpoint,
} from "./checkpoint.js";
import { leadsToRows } from "./data.js";
import { sameEngine, startEngine, type EngineCommand } from "./engine_options.js";
import { oneLine, perplexity, quote } from "./format.js";
import { findFolder } from "./hub.js";
import { lockFolder, type FolderLock } from "./lock.js";
import { MetricsFile } from "./metrics.js";
import { dataOfRun, modelOfRun } from "./places.js";
import { saveAdapters, writeResults } from "./results.js";
import { prepareRun, type Places, type Run } from "./run.js";
import { write } from "./samples.js";
import { areOfText, flag, SETTINGS, settingsOf, type FinetuneSettings, type GivenSettings } from "./settings.js";
import { programName, shellWord } from "./shell.js";
import { isOver, measure, trainSteps } from "./steps.js";
import { conclude, describe, runWatch, tellGain } from "./told.js";

export { FINETUNE_DEFAULTS, type GivenSettings } from "./settings.js";

export type FinetuneCommand = GivenSettings &
  EngineCommand & {
    out: string;
    resume?: boolean | undefined;
    /** Decides no bits either. */
    offline?: boolean | undefined;
    /** Decides no bits: a resumed run may change it. */
    gradientCheckpointing?: boolean | undefined;
  };

/** @param explicit names of the options that the user gave: with resume they must agree with the checkpoint */
export async function finetune(command: FinetuneCommand, explicit: ReadonlySet<string>): Promise<void> {
  await startEngine(command);
  const { out, resume = false } = command;
  for (const file of ["config.json", "adapter_config.json"]) {
    if (exists(`${out}/${file}`))
      throw new FileError(
        `finetune: ${out} is the folder of a model or an adapter (it holds ${file}); choose another --out.`,
      );
  }
  if (resume && !hasCheckpoint(out))
    throw new FileError(
      `finetune: cannot read ${checkpointPath(out)}: it does not exist; leave out --resume to start anew.`,
    );
  ensureWritableDirectory(out);
  const lock = lockFolder("finetune", out);
  try {
    if (!resume) refuseToStartOver(out);
    for (const folder of [out, `${out}/adapter`, `${out}/adapter-last`]) removeTemporaries(folder);
    const found = resume ? findCheckpoint(out) : undefined;
    await go(command, explicit, lock, found);
  } finally {
    lock.release();
  }
}

function refuseToStartOver(out: string): void {
  const path = [checkpointPath(out), previousPath(out)].find(exists);
  if (path)
    throw new FileError(`finetune: ${path} is there already. Add --resume to go on from it, or choose another --out.`);
  if (exists(`${out}/adapter/adapter_config.json`))
    throw new FileError(`finetune: ${out}/adapter holds an adapter already; choose another --out.`);
}

async function go(
  command: FinetuneCommand,
  explicit: ReadonlySet<string>,
  lock: FolderLock,
  found: FoundCheckpoint | undefined,
): Promise<void> {
  const { out, offline, gradientCheckpointing = false } = command;
  const saved = found?.checkpoint;
  if (found?.damage)
    console.error(
      `${oneLine(found.damage.message, 1_000)} Going on from the checkpoint before it, of step ` +
        `${found.checkpoint.metrics.length}.`,
    );
  if (saved) {
    checkArithmetic(saved);
    checkSame(command, saved.settings, explicit);
  }
  const settings = saved?.settings ?? settingsOf(command, leadsToRows(command.data) ? "rows" : "text", explicit);
  const places = saved ? placesOf(saved, command, explicit, out) : command;
  const { path: model, commit: modelCommit } = await findFolder("finetune", places.model, "model", {
    offline,
    keep: lock.keep,
  });

  console.log(`Loading ${oneLine(places.model)}${model === places.model ? "" : ` (${oneLine(model)})`} ...`);
  const run = await prepareRun(settings, { ...places, model }, gradientCheckpointing, runWatch(places.data));
  const { training, inputs } = run;
  if (saved && saved.inputs !== inputs) {
    throw new ArgumentError(
      `finetune: ${places.data} or ${places.model} is not what ${checkpointPath(out)} was written with; name the ` +
        `same (--data, --model), or start anew in another --out.`,
    );
  }
  describe(run);
  if (!saved) await tellGain();
  if (saved) restore(run, saved, out);
  else measure(run, "before", lock);
  const samplesBefore = saved?.samplesBefore ?? write(training, run.samples, run.codec, "Samples before");
  const before = training.evaluations[0];
  if (before) console.log(`Held-out perplexity before: ${perplexity(before.loss)}`);
  if (areOfText(settings)) console.log(`Sample before: ${quote(samplesBefore[0]!)}\n`);

  // A damaged checkpoint must not push out the one before it, nor one of Ctrl-C, which an uninterrupted run has not.
  let isGood = !found?.damage && training.metrics.length % settings.checkpointEvery === 0;
  const save = (): void => {
    lock.keep();
    // Weights may be finite and the next loss not: looked at before they take a good checkpoint's place.
    training.checkFinite();
    saveCheckpoint(out, { ...training.state(), settings, modelCommit, inputs, samplesBefore }, isGood);
    isGood = true;
  };
  const metrics = new MetricsFile(out, training);
  if (saved) console.log(`Resuming after step ${training.metrics.length} of ${training.steps}`);
  try {
    if (!isOver(training) && !(await trainSteps(run, metrics, save, lock))) {
      tellHowToGoOn(run, places, command, explicit);
      return;
    }
    if (training.evaluations.at(-1)?.step !== training.metrics.length) measure(run, "after", lock);
  } catch (error) {
    throw advised(error, run, out);
  }
  metrics.update();
  lock.keep();
  // What counts comes before what is drawn of it.
  const folders = saveAdapters(run, out);
  const samplesAfter = training.withBest(() => write(training, run.samples, run.codec, "Samples after"));
  writeResults(run, out, modelCommit, samplesBefore, samplesAfter);
  conclude(run, samplesBefore, samplesAfter);
  const files = ["report.html", "loss.svg", "metrics.jsonl", "result.json"].map((file) => `${out}/${file}`);
  console.log(
    `Wrote ${[`${folders[0]!} (PEFT)`, ...folders.slice(1), ...files].map((path) => oneLine(path)).join(", ")}`,
  );
  const tryIt = ["generate", "--model", places.model, "--adapter", folders[0]!, ...asked(run, places)];
  if (settings.quantize) tryIt.push("--quantize", settings.quantize);
  if (command.fused) tryIt.push("--fused");
  console.log(`Try it: ${programName()} ${tryIt.map(shellWord).join(" ")}`);
}

/** The prompt to try an adapter with: that of the run, or a row's, or a conversation. */
function asked({ settings, samples }: Run, { template }: Places): string[] {
  if (areOfText(settings)) return ["--prompt", settings.prompt];
  const [first] = samples;
  const isChat = first?.shown.some(({ role }) => role !== null) ?? false;
  if (!isChat) return first ? ["--prompt", first.shown[0]!.text] : [];
  return ["--chat", ...(template === undefined ? [] : ["--template", template])];
}

function restore({ training, samples }: Run, saved: FoundCheckpoint["checkpoint"], out: string): void {
  const path = checkpointPath(out);
  if (saved.samplesBefore.length !== samples.length)
    throw new FormatError(`${path}: it holds ${saved.samplesBefore.length} samples; the run has ${samples.length}.`);
  training.restore(saved, path);
}

/** A run that was stopped: the command that goes on. */
function tellHowToGoOn(
  { training, settings }: Run,
  places: Places,
  command: FinetuneCommand,
  explicit: ReadonlySet<string>,
): void {
  const was = settings as GivenSettings;
  const named = (["model", "evalData", "template"] as const).flatMap((key) => {
    const place = places[key];
    return place === undefined || place === was[key] ? [] : [flag(key), place];
  });
  const again = ["finetune", "--data", places.data, ...named, "--out", command.out, "--resume"];
  if (command.gradientCheckpointing) again.push("--gradient-checkpointing");
  if (command.offline) again.push("--offline");
  again.push(...sameEngine(command, explicit));
  console.error(
    `\nStopped after step ${training.metrics.length}; go on with: ${programName()} ${again.map(shellWord).join(" ")}`,
  );
  process.exitCode = 130;
}

/** A run that diverged, in the command's words; what its last whole step has left is kept. */
function advised(error: unknown, run: Run, out: string): unknown {
  if (!(error instanceof DivergedError)) return error;
  const { training } = run;
  const steps = training.metrics.length;
  const folders = steps === 0 ? [] : saveAdapters(run, out);
  const { best } = training;
  const kept =
    steps === 0
      ? "Nothing was trained."
      : `What step ${steps} left, which is finite, is in ${folders.at(-1)!}` +
        `${best ? `; the best, of step ${best.step}, is in ${folders[0]!}` : ""}.`;
  return new ArgumentError(
    `finetune: the run diverged (not all of it is finite): ${error.reason}. ${kept} Lower the learning rate (--lr, ` +
      `${training.learningRate} here), in another --out.`,
  );
}

/** What is named by a path, whose contents a digest judges. */
const PLACES: readonly string[] = ["model", "data", "evalData", "template"];

/** A run ends in the arithmetic that it began in. */
function checkArithmetic({ arithmetic }: FinetuningState): void {
  if (arithmetic !== engine().arithmetic)
    throw new ArgumentError(
      `finetune: --resume goes on in ${arithmetic} arithmetic, in which the checkpoint was computed; ` +
        `${arithmetic === "fused" ? "add" : "leave out"} --fused, or start anew in another --out.`,
    );
}

/** Of the settings all must be the checkpoint's but the places. */
function checkSame(given: GivenSettings, saved: FinetuneSettings, explicit: ReadonlySet<string>): void {
  for (const key of Object.keys(SETTINGS) as (keyof GivenSettings)[]) {
    const [was, is] = [JSON.stringify((saved as GivenSettings)[key]), JSON.stringify(given[key])];
    if (!PLACES.includes(key) && explicit.has(key) && is !== was) {
      throw new ArgumentError(
        `finetune: --resume goes on with ${key} = ${was ?? "nothing"}; got ${is}. ` +
          "Leave it out, or start anew in another --out.",
      );
    }
  }
}

function placesOf(
  { settings, modelCommit }: FoundCheckpoint["checkpoint"],
  given: GivenSettings,
  explicit: ReadonlySet<string>,
  out: string,
): Places {
  const saved = settings as GivenSettings;
  const place = (key: "data" | "evalData" | "template"): string | undefined =>
    explicit.has(key) ? given[key] : saved[key] === undefined ? undefined : dataOfRun(saved[key], out, flag(key));
  return {
    model: explicit.has("model") ? given.model : modelOfRun(saved.model, modelCommit, out),
    data: place("data")!,
    evalData: place("evalData"),
    template: place("template"),
  };
}

/** The page: reads the fields, drives the worker, shows what comes back. */
import { proxy } from "comlink";
import { fromFiles, toZip } from "./adapter_files";
import { LossChart } from "./chart";
import { keepDraft, keepNow, loadDraft } from "./draft";
import type { Source } from "./base";
import { duration, fileName, megabytes, number, perplexity, printable } from "./format";
import { Host } from "./host";
import type { KeptRun } from "./kept";
import { explain, Refusal, type Place } from "./refusal";
import type { Settings } from "./run";
import sampleUrl from "../sample.txt?url";
import type { Loading, ModelView, Opened, Progress, RunView, Trouble, Who } from "./worker";

type Phase =
  | "loading"
  | "choosing"
  | "idle"
  | "measuring"
  | "training"
  | "pausing"
  | "paused"
  | "finishing"
  | "done"
  | "held"
  | "broken";

const $ = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;
const hubName = $<HTMLInputElement>("hub-name");
const loadModel = $<HTMLButtonElement>("load-model");
const folder = $<HTMLInputElement>("folder");
const useEmbedded = $<HTMLButtonElement>("use-embedded");
const text = $<HTMLTextAreaElement>("text");
const file = $<HTMLInputElement>("file");
const useSample = $<HTMLButtonElement>("use-sample");
const settings = $<HTMLFieldSetElement>("settings");
const rank = $<HTMLSelectElement>("rank");
const steps = $<HTMLInputElement>("steps");
const prompt = $<HTMLInputElement>("prompt");
const go = $<HTMLButtonElement>("go");
const stop = $<HTMLButtonElement>("stop");
const progress = $<HTMLProgressElement>("progress");
const who = $<HTMLSelectElement>("who");
const writePrompt = $<HTMLInputElement>("write-prompt");
const seed = $<HTMLInputElement>("seed");
const writeButton = $<HTMLButtonElement>("write");
const upload = $<HTMLInputElement>("upload");
const download = $<HTMLAnchorElement>("download");
const show = (id: string, value: string): void => {
  $(id).textContent = value;
};

/** What stands above the samples until there is something to say about them. */
const INTRODUCTION = $("verdict").textContent!;
/** And below the field for a model. */
const MODEL_HINT = $("model-hint").textContent!;

const MOST_TEXT_BYTES = 8 * 1024 * 1024;
/** An adapter is read in a moment; one that takes longer is meant to. */
const UPLOAD_PATIENCE_S = 15;

const host = new Host((message) => {
  enter("broken");
  tell(new Error(message));
});
const chart = new LossChart($("chart"));

let phase: Phase = "loading";
/** The model that the next run begins with. */
let model: ModelView | null = null;
let shown: RunView | null = null;
let losses: number[] = [];
/** Steps of the run that is shown. */
let runSteps = 0;
let stopWanted = false;
/** Why a reload will not find the run, or null. */
let unkept: string | null = null;
/** The run as the worker could not save it, for the worker that may have to follow. */
let held: KeptRun | null = null;
let announcedTenth = 0;
/** Whether the visitor has changed a field: what is loaded later must not take its place. */
let touched = false;
let sample: string | null = null;

/** Label of the main button, whether it works, and what goes on. */
const PHASES: Record<Phase, [label: string, enabled: boolean, note: string]> = {
  loading: ["Loading the model…", false, ""],
  choosing: ["Loading the model…", false, ""],
  idle: ["Start training", true, ""],
  measuring: ["Measuring…", false, "Reading the text, and writing the sample before training."],
  training: ["Pause", true, ""],
  pausing: ["Pausing…", false, ""],
  paused: ["Resume", true, "Paused."],
  finishing: ["Measuring…", false, "Writing the sample after training."],
  done: ["Train anew", true, "Finished."],
  held: ["Start training", false, "Decide about the saved run first."],
  broken: ["Start training", false, ""],
};

function enter(next: Phase): void {
  phase = next;
  const [label, enabled, note] = PHASES[next];
  const hadFocus = document.activeElement === stop;
  go.textContent = label;
  // Not `disabled` while it works on: that would throw the keyboard's focus away.
  go.setAttribute("aria-disabled", String(!enabled));
  go.disabled = ["loading", "choosing", "held", "broken"].includes(next);
  stop.disabled = next !== "training" && next !== "paused";
  if (hadFocus && stop.disabled) go.focus();
  const running = !["idle", "done", "loading", "choosing", "held", "broken"].includes(next);
  settings.disabled = running;
  text.readOnly = running;
  file.disabled = useSample.disabled = running;
  const writable = ["idle", "paused", "done"].includes(next);
  writeButton.disabled = upload.disabled = !writable;
  const choosable = ["idle", "done", "held"].includes(next);
  loadModel.disabled = hubName.disabled = folder.disabled = !choosable;
  useEmbedded.disabled = !choosable || model === null || model.isEmbedded;
  const resumable = unkept === null && (next === "training" || next === "paused");
  show("phase", `${note}${resumable ? " You may leave or reload: the run is kept." : ""}`.trim());
}

function announce(sentence: string): void {
  show("announce", sentence);
}

// Errors

const FIELDS: Partial<Record<Place, HTMLElement>> = {
  model: hubName,
  text,
  rank,
  steps,
  prompt,
  upload,
  write: writePrompt,
};

function clearErrors(): void {
  for (const element of document.querySelectorAll(".error")) element.textContent = "";
  for (const field of Object.values(FIELDS)) field.removeAttribute("aria-invalid");
}

function tell(error: unknown): void {
  const { place, sentence } = explain(error);
  console.error(error);
  show(`${place}-error`, sentence);
  const field = FIELDS[place];
  field?.setAttribute("aria-invalid", "true");
  field?.focus();
  if (place === "page") $("page-error").scrollIntoView({ block: "nearest" });
}

/** Runs what a visitor asked for; an error is told, and the page is back in `otherwise`. */
async function attempt(otherwise: () => Phase, work: () => Promise<void>): Promise<void> {
  clearErrors();
  try {
    await work();
  } catch (error) {
    if (reopening && isLost(error)) return;
    if (phase !== "loading" && isLost(error)) return reopen(error as Error);
    enter(otherwise());
    tell(error);
  }
}

/** Whether the worker, or the engine in it, is of no use any more. */
function isLost(error: unknown): boolean {
  return ["WorkerLost", "EngineError", "DisposedError"].includes((error as Error).name);
}

let reopening = false;

/** A new worker, with the run as it was last saved. */
async function reopen(reason: Error): Promise<void> {
  console.error(reason);
  reopening = true;
  const had = shown;
  const upload = who.value === "uploaded";
  enter("loading");
  choose("uploaded", false);
  host.start();
  try {
    await open();
  } catch (error) {
    enter("broken");
    return tell(error);
  } finally {
    reopening = false;
  }
  const lost = had && phase !== "held" ? " The run could not be saved, and is lost." : "";
  const back = shown ? ` The run is back at step ${shown.losses.length}, the last one that was saved.` : lost;
  const cause = printable(reason.message).replace(/(\. Call init\(\).*)?\.?$/, "");
  show(
    "page-error",
    `The worker had to be started anew: ${cause}.${back}${
      upload ? " The uploaded adapter is gone: upload " + "it again." : ""
    }`,
  );
}

// The model

function showModel(view: ModelView): void {
  model = view;
  show("model-name", printable(view.name));
  show("model-size", `, ${number(view.weights)} weights`);
  describeRank();
}

function showLoading({ done, share }: Loading): void {
  const bar = $<HTMLProgressElement>("model-progress");
  bar.hidden = false;
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  show("model-hint", done);
}

function endLoading(): void {
  $("model-progress").hidden = true;
  show("model-hint", MODEL_HINT);
}

async function chooseModel(source: Source): Promise<void> {
  enter("choosing");
  announce("Loading the model.");
  showLoading({ done: "Looking for it…", share: null });
  let opened: Opened;
  try {
    opened = await host.call((studio, live) => studio.choose(source, live(showLoading)));
  } finally {
    endLoading();
  }
  showModel(opened.model);
  choose("uploaded", false);
  who.querySelector('option[value="base"]')!.textContent = `Without an adapter (${printable(opened.model.name)})`;
  announce(`The model is ${printable(opened.model.name)}.`);
  if (opened.run) {
    $("recovery").hidden = true;
    return continueWith(opened.run, false);
  }
  if (opened.trouble) return ask(opened.trouble);
}

/** @param read gives the source, or refuses what the visitor entered */
function takeModel(read: () => Source): void {
  const before = phase;
  if (!["idle", "done", "held"].includes(before)) return;
  void attempt(
    () => before,
    async () => {
      await chooseModel(read());
      if (phase === "choosing") enter(before);
    },
  );
}

// The text

function describeText(): void {
  const isSample = text.value !== "" && text.value === sample;
  const advice = isSample ? ": a sample. Put your own text in its place, or try with this." : "";
  show("text-hint", text.value ? `${number(text.value.length)} characters${advice}` : "A few pages are enough.");
  useSample.textContent = isSample ? "Clear the text" : "Use a sample text";
}

function setText(value: string): void {
  text.value = value;
  text.scrollTop = 0;
  describeText();
  rememberDraft();
}

async function openText(files: Iterable<File>): Promise<void> {
  const [first] = files;
  if (!first) return;
  const name = fileName(first.name);
  if (first.size > MOST_TEXT_BYTES)
    throw new Refusal(
      "text",
      `${name} has ${megabytes(first.size)}; this page takes at most ${megabytes(MOST_TEXT_BYTES)}. Use a part of it.`,
    );
  const bytes = await first.arrayBuffer().catch((error: Error) => {
    throw new Refusal("text", `${name} could not be read (${error.message}). Choose it again.`);
  });
  const content = await host.call((studio) => studio.textOf(new Uint8Array(bytes), name));
  // It may have taken a while.
  if (text.readOnly) throw new Refusal("text", `${name} came too late: training has begun. Open it again afterwards.`);
  setText(content);
  announce(`${name} is in the text field.`);
}

async function loadSample(): Promise<string> {
  const response = await fetch(sampleUrl);
  if (!response.ok)
    throw new Refusal(
      "text",
      `The sample could not be loaded (the server answered ${response.status}). Check the connection and try again.`,
    );
  return (sample = await response.text());
}

const rememberDraft = (): void => {
  touched = true;
  keepDraft({ text: text.value, rank: rank.value, steps: steps.value, prompt: prompt.value });
};

function readSettings(): Settings {
  const count = Number(steps.value);
  if (!text.value.trim())
    throw new Refusal("text", "There is no text yet. Paste one, open a file, or use the sample text.");
  if (!Number.isInteger(count) || count < 10 || count > 5000)
    throw new Refusal("steps", "Enter a whole number of steps from 10 to 5,000.");
  if (!prompt.value.trim()) throw new Refusal("prompt", "Write a word or two for the samples to begin with.");
  return { rank: Number(rank.value), steps: count, prompt: prompt.value };
}

/** Weights of an adapter on every linear layer of the model. */
function describeRank(): void {
  if (model) show("rank-hint", `trains ${number(Number(rank.value) * model.weightsOfRank)} weights`);
}

// A run

function showRun(run: RunView): void {
  shown = run;
  losses = run.losses;
  runSteps = run.settings.steps;
  progress.max = runSteps;
  showLosses();
  show("before", printable(run.before.sample));
  show("before-figure", `Perplexity on the last tenth of the text: ${perplexity(run.before.heldOutLoss)}`);
  show("after", printable(run.after?.sample ?? ""));
  show(
    "after-figure",
    run.after ? `Perplexity on the last tenth of the text: ${perplexity(run.after.heldOutLoss)}` : "",
  );
  show("verdict", run.after ? verdict(run.before.heldOutLoss, run.after.heldOutLoss) : INTRODUCTION);
}

function clearRun(steps: number): void {
  losses = [];
  runSteps = progress.max = steps;
  showLosses();
  for (const id of ["before", "before-figure", "after", "after-figure"]) show(id, "");
  for (const id of ["figure-speed", "figure-left", "figure-memory"]) show(id, "–");
  show("verdict", INTRODUCTION);
}

function verdict(before: number, after: number): string {
  const change = after < before ? "fell" : "rose";
  return (
    `On the last tenth of the text, which it never trained on, the model's perplexity (roughly, among how many ` +
    `next pieces of words it wavers) ${change} ` +
    `from ${perplexity(before)} to ${perplexity(after)}.${
      after < before ? "" : " A longer text, fewer steps or a " + "smaller rank would help."
    }`
  );
}

function showLosses(): void {
  progress.value = losses.length;
  show("figure-step", `${number(losses.length)} / ${number(runSteps)}`);
  show("figure-loss", losses.at(-1)?.toFixed(3) ?? "–");
  chart.show(losses, runSteps);
}

function showProgress(p: Progress): void {
  losses[p.step - 1] = p.loss;
  showLosses();
  if (p.sample !== null) {
    show("after", printable(p.sample));
    show("after-figure", `After ${number(p.step)} of ${number(runSteps)} steps; it goes on learning.`);
  }
  tellUnkept(p.unkept);
  show("figure-speed", number(Math.round(p.tokensPerSecond)));
  show("figure-left", duration(p.secondsLeft));
  show("figure-memory", megabytes(p.memoryBytes));
  const tenth = Math.floor((10 * losses.length) / runSteps);
  if (tenth > announcedTenth && tenth < 10)
    announce(`Step ${losses.length} of ${runSteps}, loss ${p.loss.toFixed(2)}, ${duration(p.secondsLeft)} left.`);
  announcedTenth = tenth;
}

async function begin(): Promise<void> {
  const chosen = readSettings();
  enter("measuring");
  announce("Reading the text.");
  clearRun(chosen.steps);
  keepNow();
  const run = await host.call((studio, live) =>
    studio.begin(
      text.value,
      chosen,
      live((sample: string) => show("before", printable(sample))),
    ),
  );
  offerAdapter(null);
  showRun(run);
  await train();
}

async function train(): Promise<void> {
  stopWanted = false;
  unkept = null;
  tellUnkept(await host.call((studio) => studio.unkept));
  enter("training");
  announce("Training has started.");
  announcedTenth = Math.floor((10 * losses.length) / runSteps);
  let complete: boolean;
  try {
    complete = await host.call((studio, live) => studio.train(live(showProgress)));
  } catch (error) {
    // The last words may be missing, and a run that diverged went back.
    if (!isLost(error)) await refresh();
    throw error;
  }
  if (complete || stopWanted) return finish();
  await refresh();
  enter("paused");
  announce(`Paused at step ${losses.length}.`);
}

/** The run as the worker has it. A sample that was made on the way stays. */
async function refresh(): Promise<void> {
  const on = $("after").textContent!;
  const figure = $("after-figure").textContent!;
  showRun(await host.call((studio) => studio.view()));
  show("after", on);
  show("after-figure", figure);
}

/** Says once why a reload would lose the run, and takes it back when that has passed. */
function tellUnkept(reason: string | null): void {
  if (reason === unkept) return;
  if (reason !== null || $("page-error").textContent === unkept) show("page-error", reason ?? "");
  unkept = reason;
  enter(phase);
}

async function finish(): Promise<void> {
  enter("finishing");
  show("figure-left", "–");
  show("after-figure", "");
  showRun(await host.call((studio, live) => studio.finish(live((sample: string) => show("after", printable(sample))))));
  tellUnkept(await host.call((studio) => studio.unkept));
  await offerTrained();
  enter("done");
  announce(`Finished. ${$("verdict").textContent}`);
}

/** What the main button does in each phase. */
function press(): void {
  if (phase === "training") {
    enter("pausing");
    void host.call((studio) => studio.pause());
  } else if (phase === "paused") {
    void attempt(() => "paused", train);
  } else if (phase === "idle" || phase === "done") {
    const before = phase;
    void attempt(() => {
      if (phase !== before && phase !== "measuring") return "paused";
      // Refused before it began: what was there is still there.
      if (shown) showRun(shown);
      return before;
    }, begin);
  }
}

// The adapter

async function offerTrained(): Promise<void> {
  offerAdapter(toZip(await host.call((studio) => studio.adapter())));
}

function offerAdapter(zip: Blob | null): void {
  if (download.href) URL.revokeObjectURL(download.href);
  download.hidden = !zip;
  if (zip) download.href = URL.createObjectURL(zip);
  else download.removeAttribute("href");
  choose("trained", Boolean(zip));
}

/** Offers a model to write with, and picks it. */
function choose(name: Who, there: boolean): void {
  const option = who.querySelector<HTMLOptionElement>(`option[value="${name}"]`)!;
  option.disabled = !there;
  if (there) who.value = name;
  else if (who.value === name) who.value = "base";
}

let uploading = false;

async function uploadAdapter(files: readonly File[]): Promise<void> {
  if (uploading) throw new Refusal("upload", "The adapter before it is still being read. Try again in a moment.");
  uploading = true;
  try {
    await takeAdapter(files);
  } finally {
    uploading = false;
  }
}

async function takeAdapter(files: readonly File[]): Promise<void> {
  const name = files.length === 1 ? fileName(files[0]!.name) : "the two files";
  const adapter = await fromFiles(files);
  try {
    await host.call((studio) => studio.upload(adapter), UPLOAD_PATIENCE_S);
  } catch (error) {
    if ((error as Error).name === "WorkerLost")
      throw Object.assign(error as Error, {
        message: `${name} took longer than ${UPLOAD_PATIENCE_S} s to read and was given up`,
      });
    throw error;
  }
  who.querySelector('option[value="uploaded"]')!.textContent = `Uploaded (${name})`;
  choose("uploaded", true);
  const sentence = `Loaded ${name}: write with it below.`;
  show("upload-hint", sentence);
  announce(sentence);
}

async function writeText(): Promise<void> {
  const number = Number(seed.value);
  if (!Number.isSafeInteger(number) || number < 0 || seed.value === "")
    throw new Refusal("write", "Enter a whole number from 0 on as the seed.");
  if (!writePrompt.value.trim()) throw new Refusal("write", "Write a word or two for the model to begin with.");
  writeButton.setAttribute("aria-disabled", "true");
  try {
    const model = who.value as Who;
    const onText = (part: string): void => show("written", printable(part));
    const written = printable(
      await host.call((studio, live) => studio.write(model, writePrompt.value, number, live(onText))),
    );
    show("written", written);
    announce(`Written: ${written}`);
  } catch (error) {
    if (isLost(error)) throw error;
    // The same fault in the training form belongs to another field.
    throw new Refusal("write", explain(error).sentence);
  } finally {
    writeButton.removeAttribute("aria-disabled");
  }
}

// Wiring

/** Files dropped on `zone` go where those of its file button go. */
function acceptFiles(
  input: HTMLInputElement,
  zone: HTMLElement,
  take: (files: readonly File[]) => Promise<void>,
): void {
  const act = (files: FileList | undefined | null): void => {
    if (files?.length && !input.disabled)
      void attempt(
        () => phase,
        () => take([...files]),
      );
  };
  input.addEventListener("change", () => {
    act(input.files);
    // The same file may be chosen again.
    input.value = "";
  });
  zone.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.classList.add("over");
  });
  for (const type of ["dragleave", "drop"]) zone.addEventListener(type, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    act(event.dataTransfer.files);
  });
}

acceptFiles(file, $("drop"), openText);
acceptFiles(upload, $("upload-drop"), uploadAdapter);
folder.addEventListener("change", () => {
  const files = [...(folder.files ?? [])];
  folder.value = "";
  if (files.length > 0) takeModel(() => ({ kind: "folder", files }));
});
$("model-form").addEventListener("submit", (event) => {
  event.preventDefault();
  takeModel(() => {
    const name = hubName.value.trim();
    if (!/^[\w.-]+\/[\w.-]+(@[\w./-]+)?$/.test(name))
      throw new Refusal("model", "Enter the name of a model on the hub: its owner, a slash and its name.");
    return { kind: "hub", name };
  });
});
useEmbedded.addEventListener("click", () => takeModel(() => ({ kind: "embedded" })));
text.addEventListener("input", describeText);
for (const field of [text, rank, steps, prompt]) field.addEventListener("input", rememberDraft);
rank.addEventListener("input", describeRank);
useSample.addEventListener(
  "click",
  () =>
    void attempt(
      () => phase,
      async () => {
        if (text.value !== "" && text.value === sample) {
          setText("");
          text.focus();
          return announce("The text field is empty.");
        }
        const content = await loadSample();
        if (text.readOnly) return;
        setText(content);
        announce("The sample text is in the text field.");
      },
    ),
);
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  press();
});
stop.addEventListener("click", () => {
  if (phase === "training") {
    stopWanted = true;
    enter("pausing");
    void host.call((studio) => studio.pause());
  } else {
    void attempt(() => "paused", finish);
  }
});
$("write-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!writeButton.disabled && !writeButton.hasAttribute("aria-disabled")) void attempt(() => phase, writeText);
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "hidden") return;
  keepNow();
  // Where another tab has saved, training says so itself.
  if (phase === "training") void host.call((studio) => studio.save()).catch(() => {});
});

function fill(fields: { text: string; rank: string; steps: string; prompt: string }): void {
  [text.value, rank.value, steps.value, prompt.value] = [fields.text, fields.rank, fields.steps, fields.prompt];
  describeText();
  describeRank();
}

async function open(): Promise<void> {
  describeText();
  describeRank();
  const draft = await loadDraft();
  if (draft && !touched) fill(draft);
  const { model, run, trouble } = await host
    .call(
      (studio, live) =>
        studio.open(
          held,
          proxy((record: KeptRun | null) => {
            held = record;
          }),
          live(showLoading),
        ),
      Infinity,
    )
    .finally(endLoading);
  showModel(model);
  if (trouble) {
    shown = null;
    return ask(trouble);
  }
  if (!run) {
    shown = null;
    // At a first visit there is something to press the button for.
    if (!draft && !touched) await offerSample().catch(() => {});
    return enter("idle");
  }
  await continueWith(run, Boolean(draft));
}

async function offerSample(): Promise<void> {
  const content = await loadSample();
  if (!touched) fill({ text: content, rank: rank.value, steps: steps.value, prompt: prompt.value });
}

async function continueWith(run: RunView, draftIsThere: boolean): Promise<void> {
  const {
    text: content,
    settings: { rank, steps, prompt },
  } = run;
  if (!run.after || (!draftIsThere && !touched))
    fill({ text: content, rank: String(rank), steps: String(steps), prompt });
  showRun(run);
  if (run.after) await offerTrained();
  enter(run.after ? "done" : "paused");
  announce(
    run.after
      ? "Your last run is here."
      : `Your run is here, paused at step ${run.losses.length} of ${run.settings.steps}. Resume it, or stop it here.`,
  );
}

/** What shall become of a saved run that does not open: nothing is deleted unasked. */
function ask({ sentence, before, mayPass }: Trouble): void {
  enter("held");
  show("recovery-text", printable(sentence));
  show("recover-before", `Go on from step ${before}`);
  $("recover-before").hidden = before === null;
  $("recover-again").hidden = !mayPass;
  $("recovery").hidden = false;
  announce(sentence);
}

function decide(id: string, act: () => Promise<void>): void {
  $(id).addEventListener(
    "click",
    () =>
      void attempt(
        () => "held",
        async () => {
          await act();
          $("recovery").hidden = true;
          go.focus();
        },
      ),
  );
}

decide("recover-before", async () => {
  const run = await host.call((studio) => studio.recover("before"));
  await continueWith(run!, false);
});
decide("recover-delete", async () => {
  await host.call((studio) => studio.recover("delete"));
  enter("idle");
});
$("recover-again").addEventListener("click", () => {
  $("recovery").hidden = true;
  void attempt(
    () => "broken",
    async () => {
      enter("loading");
      host.start();
      await open();
    },
  );
});

chart.show([], 200);
void attempt(() => "broken", open);

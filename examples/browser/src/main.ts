/** The page: reads the fields, drives the worker, shows what comes back. */
import { proxy, wrap } from "comlink";
import { fromFiles, toZip } from "./adapter_files";
import { LossChart } from "./chart";
import { keepDraft, loadDraft } from "./draft";
import { duration, megabytes, number, perplexity } from "./format";
import { explain, Refusal, type Place } from "./refusal";
import type { Settings } from "./run";
import sampleUrl from "../sample.txt?url";
import type { Progress, RunView, Studio, Who } from "./worker";

type Phase = "loading" | "idle" | "measuring" | "training" | "pausing" | "paused" | "finishing" | "done" | "broken";

const $ = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;
const text = $<HTMLTextAreaElement>("text"), file = $<HTMLInputElement>("file"), useSample = $<HTMLButtonElement>("use-sample");
const settings = $<HTMLFieldSetElement>("settings"), rank = $<HTMLSelectElement>("rank"), steps = $<HTMLInputElement>("steps"), prompt = $<HTMLInputElement>("prompt");
const go = $<HTMLButtonElement>("go"), stop = $<HTMLButtonElement>("stop"), progress = $<HTMLProgressElement>("progress");
const who = $<HTMLSelectElement>("who"), writePrompt = $<HTMLInputElement>("write-prompt"), seed = $<HTMLInputElement>("seed"), writeButton = $<HTMLButtonElement>("write");
const upload = $<HTMLInputElement>("upload"), download = $<HTMLAnchorElement>("download");
const show = (id: string, value: string): void => { $(id).textContent = value; };

/** What stands above the samples until there is something to say about them. */
const INTRODUCTION = $("verdict").textContent!;

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const studio = wrap<Studio>(worker);
const chart = new LossChart($("chart"));

let phase: Phase = "loading";
let shown: RunView | null = null;
let losses: number[] = [];
/** Steps of the run that is shown. */
let runSteps = 0;
let stopWanted = false;
/** Whether a reload will find the run. */
let kept = true;
let announcedTenth = 0;

/** Label of the main button, whether it works, and what goes on. */
const PHASES: Record<Phase, [label: string, enabled: boolean, note: string]> = {
  loading: ["Loading the model…", false, ""],
  idle: ["Start training", true, ""],
  measuring: ["Measuring…", false, "Reading the text, and writing the sample before training."],
  training: ["Pause", true, ""],
  pausing: ["Pausing…", false, ""],
  paused: ["Resume", true, "Paused."],
  finishing: ["Measuring…", false, "Writing the sample after training."],
  done: ["Train anew", true, "Finished."],
  broken: ["Start training", false, ""],
};

function enter(next: Phase): void {
  phase = next;
  const [label, enabled, note] = PHASES[next];
  const hadFocus = document.activeElement === stop;
  go.textContent = label;
  // Not `disabled` while it works on: that would throw the keyboard's focus away.
  go.setAttribute("aria-disabled", String(!enabled));
  go.disabled = next === "loading" || next === "broken";
  stop.disabled = next !== "training" && next !== "paused";
  if (hadFocus && stop.disabled) go.focus();
  const running = !["idle", "done", "loading", "broken"].includes(next);
  settings.disabled = running;
  text.readOnly = running;
  file.disabled = useSample.disabled = running;
  const writable = ["idle", "paused", "done"].includes(next);
  writeButton.disabled = upload.disabled = !writable;
  const resumable = kept && (next === "training" || next === "paused");
  show("phase", `${note}${resumable ? " You may leave or reload: the run is kept." : ""}`.trim());
}

function announce(sentence: string): void { show("announce", sentence); }

// Errors

const FIELDS: Partial<Record<Place, HTMLElement>> = { text, rank, steps, prompt, upload, write: writePrompt };

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
    enter(otherwise());
    tell(error);
  }
}

// The text

function describeText(): void {
  show("text-hint", text.value ? `${number(text.value.length)} characters` : "A few pages are enough.");
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
  const refusal = new Refusal("text", `${first.name} is not a plain text file. Save it as UTF-8 text (.txt) and try again, or paste its text.`);
  const content = await first.arrayBuffer().then((bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes)).catch(() => { throw refusal; });
  if (content.includes("\0")) throw refusal;
  setText(content);
  announce(`${first.name} is in the text field.`);
}

const rememberDraft = (): void => keepDraft({ text: text.value, rank: rank.value, steps: steps.value, prompt: prompt.value });

function readSettings(): Settings {
  const count = Number(steps.value);
  if (!text.value.trim()) throw new Refusal("text", "There is no text yet. Paste one, open a file, or use the sample text.");
  if (!Number.isInteger(count) || count < 10 || count > 5000) throw new Refusal("steps", "Enter a whole number of steps from 10 to 5,000.");
  if (!prompt.value.trim()) throw new Refusal("prompt", "Write a word or two for the samples to begin with.");
  return { rank: Number(rank.value), steps: count, prompt: prompt.value };
}

/** Weights of an adapter on every linear layer of the base model. */
function describeRank(): void { show("rank-hint", `trains ${number(Number(rank.value) * 9728)} weights`); }

// A run

function showRun(run: RunView): void {
  shown = run;
  losses = run.losses;
  runSteps = run.settings.steps;
  progress.max = runSteps;
  showLosses();
  show("before", run.before.sample);
  show("before-figure", `Perplexity on the last tenth of the text: ${perplexity(run.before.heldOutLoss)}`);
  show("after", run.after?.sample ?? "");
  show("after-figure", run.after ? `Perplexity on the last tenth of the text: ${perplexity(run.after.heldOutLoss)}` : "");
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
  return `On the last tenth of the text, which it never trained on, the model's perplexity (roughly, among how many next pieces of words it wavers) ${change} ` +
    `from ${perplexity(before)} to ${perplexity(after)}.${after < before ? "" : " A longer text, fewer steps or a smaller rank would help."}`;
}

function showLosses(): void {
  progress.value = losses.length;
  show("figure-step", `${number(losses.length)} / ${number(runSteps)}`);
  show("figure-loss", losses.at(-1)?.toFixed(3) ?? "–");
  chart.show(losses, runSteps);
}

function showProgress(p: Progress): void {
  losses.push(p.loss);
  showLosses();
  show("figure-speed", number(Math.round(p.tokensPerSecond)));
  show("figure-left", duration(p.secondsLeft));
  show("figure-memory", megabytes(p.memoryBytes));
  const tenth = Math.floor(10 * losses.length / runSteps);
  if (tenth > announcedTenth && tenth < 10) announce(`Step ${losses.length} of ${runSteps}, loss ${p.loss.toFixed(2)}, ${duration(p.secondsLeft)} left.`);
  announcedTenth = tenth;
}

async function begin(): Promise<void> {
  const chosen = readSettings();
  enter("measuring");
  announce("Reading the text.");
  clearRun(chosen.steps);
  const run = await studio.begin(text.value, chosen, proxy((sample: string) => show("before", sample)));
  offerAdapter(null);
  showRun(run);
  await train();
}

async function train(): Promise<void> {
  stopWanted = false;
  kept = await studio.canSave;
  enter("training");
  announce("Training has started.");
  if (!kept) {
    show("page-error", "This browser does not let the page keep data, so a reload would lose the run. Keep this tab open until you have downloaded the adapter.");
  }
  announcedTenth = Math.floor(10 * losses.length / runSteps);
  const complete = await studio.train(proxy(showProgress));
  if (complete || stopWanted) return finish();
  enter("paused");
  announce(`Paused at step ${losses.length}.`);
}

async function finish(): Promise<void> {
  enter("finishing");
  show("figure-left", "–");
  showRun(await studio.finish(proxy((sample: string) => show("after", sample))));
  await offerTrained();
  enter("done");
  announce(`Finished. ${$("verdict").textContent}`);
}

/** What the main button does in each phase. */
function press(): void {
  if (phase === "training") {
    enter("pausing");
    void studio.pause();
  } else if (phase === "paused") {
    void attempt(() => "paused", train);
  } else if (phase === "idle" || phase === "done") {
    const before = phase;
    void attempt(() => {
      if (phase === "training") return "paused";
      // Refused before it began: what was there is still there.
      if (shown) showRun(shown);
      return before;
    }, begin);
  }
}

// The adapter

async function offerTrained(): Promise<void> { offerAdapter(toZip(await studio.adapter())); }

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

async function uploadAdapter(files: readonly File[]): Promise<void> {
  if (files.length === 0) return;
  await studio.upload(await fromFiles(files));
  const name = files.length === 1 ? files[0]!.name : "the two files";
  who.querySelector('option[value="uploaded"]')!.textContent = `Uploaded (${name})`;
  choose("uploaded", true);
  const sentence = `Loaded ${name}: write with it below.`;
  show("upload-hint", sentence);
  announce(sentence);
}

async function writeText(): Promise<void> {
  const number = Number(seed.value);
  if (!Number.isSafeInteger(number) || number < 0 || seed.value === "") throw new Refusal("write", "Enter a whole number from 0 on as the seed.");
  if (!writePrompt.value.trim()) throw new Refusal("write", "Write a word or two for the model to begin with.");
  writeButton.setAttribute("aria-disabled", "true");
  try {
    const written = await studio.write(who.value as Who, writePrompt.value, number, proxy((part: string) => show("written", part)));
    show("written", written);
    announce(`Written: ${written}`);
  } catch (error) {
    // The same fault in the training form belongs to another field.
    throw new Refusal("write", explain(error).sentence);
  } finally {
    writeButton.removeAttribute("aria-disabled");
  }
}

// Wiring

/** Files dropped on `zone` go where those of its file button go. */
function acceptFiles(input: HTMLInputElement, zone: HTMLElement, take: (files: readonly File[]) => Promise<void>): void {
  const act = (files: FileList | undefined | null): void => {
    if (files?.length && !input.disabled) void attempt(() => phase, () => take([...files]));
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
text.addEventListener("input", describeText);
for (const field of [text, rank, steps, prompt]) field.addEventListener("input", rememberDraft);
rank.addEventListener("input", describeRank);
useSample.addEventListener("click", () => void attempt(() => phase, async () => {
  const response = await fetch(sampleUrl);
  if (!response.ok) throw new Refusal("text", `The sample could not be loaded (the server answered ${response.status}). Check the connection and try again.`);
  setText(await response.text());
  announce("The sample text is in the text field.");
}));
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  press();
});
stop.addEventListener("click", () => {
  if (phase === "training") {
    stopWanted = true;
    enter("pausing");
    void studio.pause();
  } else {
    void attempt(() => "paused", finish);
  }
});
$("write-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!writeButton.disabled && !writeButton.hasAttribute("aria-disabled")) void attempt(() => phase, writeText);
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden" && phase === "training") void studio.save();
});
worker.addEventListener("error", (event) => {
  enter("broken");
  tell(new Error(event.message || "the worker could not be started"));
});

async function open(): Promise<void> {
  describeRank();
  const draft = await loadDraft();
  if (draft) [text.value, rank.value, steps.value, prompt.value] = [draft.text, draft.rank, draft.steps, draft.prompt];
  const run = await studio.open();
  if (run && !(run.after && draft)) {
    text.value = run.text;
    rank.value = String(run.settings.rank);
    steps.value = String(run.settings.steps);
    prompt.value = run.settings.prompt;
  }
  describeText();
  describeRank();
  if (!run) return enter("idle");
  showRun(run);
  if (run.after) await offerTrained();
  enter(run.after ? "done" : "paused");
  announce(run.after ? "Your last run is here." : `Your run is here, paused at step ${run.losses.length} of ${run.settings.steps}. Resume it, or stop it here.`);
}

chart.show([], 200);
void attempt(() => "broken", open);

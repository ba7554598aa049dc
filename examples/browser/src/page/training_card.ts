/** Training: its settings, its buttons, its figures and its curves. */
import { keepNow, type Fields } from "../draft";
import { duration, megabytes, number } from "../format";
import { Refusal } from "../refusal";
import type { Course, ModelView, Progress, RowsView, RunView, Settings } from "../views";
import type { AdapterCard } from "./adapter_card";
import { CourseChart } from "./chart";
import type { ChatCard } from "./chat_card";
import type { DataCard } from "./data_card";
import { $, announce, show } from "./dom";
import type { Host } from "./host";
import type { SamplesCard } from "./samples_card";
import { isLost, type Phase, type Stage } from "./stage";

/** Label of the main button, whether it works, and what goes on. */
const PHASES: Record<Phase, [label: string, enabled: boolean, note: string]> = {
  loading: ["Loading the model…", false, ""],
  choosing: ["Loading the model…", false, ""],
  reading: ["Reading the rows…", false, ""],
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

const EMPTY: Course = { losses: [], steps: 200, evaluations: [], best: null, stoppedEarly: false };

export class TrainingCard {
  readonly rank = $<HTMLSelectElement>("rank");
  readonly #steps = $<HTMLInputElement>("steps");
  readonly #epochs = $<HTMLInputElement>("epochs");
  readonly #patience = $<HTMLSelectElement>("patience");
  readonly #prompt = $<HTMLTextAreaElement>("prompt");
  readonly #go = $<HTMLButtonElement>("go");
  readonly #stop = $<HTMLButtonElement>("stop");
  readonly #progress = $<HTMLProgressElement>("progress");
  readonly #chart = new CourseChart($("chart"));
  #course: Course = EMPTY;
  /** The run that is here, whichever phase it is in. */
  run: RunView | null = null;
  #stopWanted = false;
  /** Why a reload will not find the run, or null. */
  #unkept: string | null = null;
  #announcedTenth = 0;

  constructor(
    private readonly stage: Stage,
    private readonly host: Host,
    private readonly data: DataCard,
    private readonly samples: SamplesCard,
    private readonly adapters: AdapterCard,
    private readonly chat: ChatCard,
    onChange: () => void,
  ) {
    for (const field of [this.rank, this.#steps, this.#epochs, this.#patience, this.#prompt])
      field.addEventListener("input", onChange);
    $("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#press();
    });
    this.#stop.addEventListener("click", () => {
      if (stage.is("training")) {
        this.#stopWanted = true;
        this.#pause();
      } else {
        void stage.attempt(
          () => "paused",
          () => this.#finish(),
        );
      }
    });
    stage.follow((phase) => this.#follow(phase));
    this.#showCourse(EMPTY);
  }

  get fields(): Fields {
    const [rank, steps, epochs, patience, prompt] = [
      this.rank,
      this.#steps,
      this.#epochs,
      this.#patience,
      this.#prompt,
    ].map(({ value }) => value) as [string, string, string, string, string];
    return { rank, steps, epochs, patience, prompt };
  }
  fill({ rank, steps, epochs, patience, prompt }: Fields): void {
    this.rank.value = rank;
    this.#steps.value = steps;
    this.#epochs.value = epochs;
    this.#patience.value = patience;
    this.#prompt.value = prompt;
  }
  set prompt(value: string) {
    this.#prompt.value = value;
  }

  /** A text has steps, rows have epochs. */
  setRows(rows: RowsView | null): void {
    $("steps-field").hidden = rows !== null;
    $("epochs-field").hidden = rows === null;
    show("prompt-label", rows ? "Question of the samples" : "Beginning of the samples");
  }

  /** Weights of an adapter on every linear layer of the model. */
  describeRank(model: ModelView | null): void {
    if (model) show("rank-hint", `trains ${number(Number(this.rank.value) * model.weightsOfRank)} weights`);
  }

  showRun(run: RunView): void {
    this.run = run;
    this.#showCourse(run);
    this.samples.show(run);
  }

  /** What a run that has ended has learned. */
  async offerTrained(): Promise<void> {
    const { after, losses } = this.run!;
    await this.adapters.offerTrained(after!.step, losses.length);
    this.offerTalk();
  }

  /** The run's adapters to talk to: of its end, or so far. */
  offerTalk(): void {
    const { after, best: evaluated, losses } = this.run!;
    const last = losses.length;
    const best = after?.step ?? evaluated?.step ?? last;
    this.chat.offer("last", best !== last, `trained here, the last (step ${number(last)})`);
    this.chat.offer("best", true, best === last ? "trained here" : `trained here, the best (step ${number(best)})`);
  }

  #follow(next: Phase): void {
    const [label, enabled, note] = PHASES[next];
    const hadFocus = document.activeElement === this.#stop;
    this.#go.textContent = label;
    // Not `disabled` while it works on: that would throw the keyboard's focus away.
    this.#go.setAttribute("aria-disabled", String(!enabled));
    this.#go.disabled = ["loading", "choosing", "reading", "held", "broken"].includes(next);
    this.#stop.disabled = next !== "training" && next !== "paused";
    if (hadFocus && this.#stop.disabled) this.#go.focus();
    $<HTMLFieldSetElement>("settings").disabled = this.stage.isRunning;
    const resumable = this.#unkept === null && (next === "training" || next === "paused");
    const early =
      next === "done" && this.run?.stoppedEarly ? " It ended early: the held-out loss fell no further." : "";
    show("phase", `${note}${early}${resumable ? " You may leave or reload: the run is kept." : ""}`.trim());
  }

  /** What the main button does in each phase. */
  #press(): void {
    const { stage } = this;
    if (stage.is("training")) {
      this.#pause();
    } else if (stage.is("paused")) {
      void stage.attempt(
        () => "paused",
        () => this.#train(),
      );
    } else if (stage.is("idle", "done")) {
      const before = stage.phase;
      void stage.attempt(
        () => {
          if (!stage.is(before, "measuring")) return "paused";
          // Refused before it began: what was there is still there.
          if (this.run) this.showRun(this.run);
          return before;
        },
        () => this.#begin(),
      );
    }
  }

  #pause(): void {
    this.stage.enter("pausing");
    void this.host.call((studio) => studio.pause());
  }

  #readSettings(): Settings {
    const { rank, steps, epochs, patience, prompt } = this.fields;
    const isRows = this.data.rows !== null;
    if (!isRows && !this.data.text.value.trim())
      throw new Refusal("text", "There is no text yet. Paste one, open a file, or use the sample text.");
    const [count, low, high, of] = isRows ? [epochs, 1, 100, "epochs"] : [steps, 10, 5000, "steps"];
    if (!Number.isInteger(Number(count)) || Number(count) < low || Number(count) > high)
      throw new Refusal(
        of as "steps" | "epochs",
        `Enter a whole number of ${of} from ${low} to ${number(high as number)}.`,
      );
    if (!prompt.trim())
      throw new Refusal("prompt", `Write a word or two for the samples to ${isRows ? "answer" : "begin with"}.`);
    return { rank: Number(rank), steps: Number(steps), epochs: Number(epochs), patience: Number(patience), prompt };
  }

  async #begin(): Promise<void> {
    const settings = this.#readSettings();
    this.stage.enter("measuring");
    announce(this.data.rows ? "Measuring the model on the rows." : "Reading the text.");
    this.#showCourse({ ...EMPTY, steps: settings.steps });
    for (const id of ["figure-speed", "figure-left", "figure-memory"]) show(id, "–");
    this.samples.clear();
    keepNow();
    const text = this.data.rows ? null : this.data.text.value;
    const run = await this.host.call((studio, live) =>
      studio.begin(
        text,
        settings,
        live((sample: string) => this.samples.writing("before", sample)),
      ),
    );
    this.adapters.withdraw();
    for (const who of ["best", "last"] as const) this.chat.offer(who, false);
    this.showRun(run);
    await this.#train();
  }

  async #train(): Promise<void> {
    this.#stopWanted = false;
    this.#unkept = null;
    this.#tellUnkept(await this.host.call((studio) => studio.unkept));
    this.stage.enter("training");
    announce("Training has started.");
    this.#announcedTenth = this.#tenth();
    let complete: boolean;
    try {
      complete = await this.host.call((studio, live) =>
        studio.train(live((progress: Progress) => this.#showProgress(progress))),
      );
    } catch (error) {
      // The last words may be missing, and a run that diverged went back.
      if (!isLost(error)) await this.#refresh();
      throw error;
    }
    if (complete || this.#stopWanted) return this.#finish();
    await this.#refresh();
    this.offerTalk();
    this.stage.enter("paused");
    announce(`Paused at step ${this.#course.losses.length}.`);
  }

  /** The run as the worker has it. */
  #refresh(): Promise<void> {
    return this.samples.keepingOn(async () => this.showRun(await this.host.call((studio) => studio.view())));
  }

  async #finish(): Promise<void> {
    this.stage.enter("finishing");
    show("figure-left", "–");
    this.showRun(
      await this.host.call((studio, live) =>
        studio.finish(live((sample: string) => this.samples.writing("after", sample))),
      ),
    );
    this.#tellUnkept(await this.host.call((studio) => studio.unkept));
    await this.offerTrained();
    this.stage.enter("done");
    announce(`Finished. ${$("verdict").textContent}`);
  }

  #tenth(): number {
    return Math.floor((10 * this.#course.losses.length) / this.#course.steps);
  }

  #showCourse(course: Course): void {
    this.#course = course;
    const { losses, steps, evaluations, best } = course;
    this.#progress.max = steps;
    this.#progress.value = losses.length;
    show("figure-step", `${number(losses.length)} / ${number(steps)}`);
    show("figure-loss", losses.at(-1)?.toFixed(3) ?? "–");
    show("figure-held-out", evaluations.at(-1)?.loss.toFixed(3) ?? "–");
    show("figure-best-name", best ? `Best, step ${number(best.step)}` : "Best");
    show("figure-best", best?.loss.toFixed(3) ?? "–");
    this.#chart.show(course);
  }

  #showProgress(progress: Progress): void {
    this.#showCourse(progress);
    this.samples.progress(progress);
    this.#tellUnkept(progress.unkept);
    show("figure-speed", number(Math.round(progress.tokensPerSecond)));
    show("figure-left", duration(progress.secondsLeft));
    show("figure-memory", megabytes(progress.memoryBytes));
    const tenth = this.#tenth();
    const { losses, steps } = progress;
    if (tenth > this.#announcedTenth && tenth < 10)
      announce(
        `Step ${losses.length} of ${steps}, loss ${losses.at(-1)!.toFixed(2)}, ` +
          `${duration(progress.secondsLeft)} left.`,
      );
    this.#announcedTenth = tenth;
  }

  /** Says once why a reload would lose the run, and takes it back when that has passed. */
  #tellUnkept(reason: string | null): void {
    if (reason === this.#unkept) return;
    if (reason !== null || $("page-error").textContent === this.#unkept) show("page-error", reason ?? "");
    this.#unkept = reason;
    this.stage.enter(this.stage.phase);
  }
}

/** From the opening of the page on: what was kept of the last visit, and a worker in place of one that is lost. */
import { proxy } from "comlink";
import { fieldsOf, loadDraft, loadFile } from "../draft";
import { printable } from "../format";
import type { Loading, Opened, RunView } from "../views";
import type { KeptRun } from "../worker/kept";
import type { ChatCard } from "./chat_card";
import type { DataCard } from "./data_card";
import { announce, show } from "./dom";
import type { Host } from "./host";
import type { ModelCard } from "./model_card";
import type { Recovery } from "./recovery";
import { tell, type Stage } from "./stage";
import type { TrainingCard } from "./training_card";

export class Session {
  /** The run as the worker could not save it, for the worker that may have to follow. */
  #held: KeptRun | null = null;
  #reopening = false;
  /** Whether the visitor has changed a field: what is loaded later must not take its place. */
  touched = false;
  recovery!: Recovery;

  constructor(
    private readonly stage: Stage,
    private readonly host: Host,
    private readonly model: ModelCard,
    private readonly data: DataCard,
    private readonly training: TrainingCard,
    private readonly chat: ChatCard,
  ) {
    stage.onLost = async (error) => {
      if (this.#reopening) return true;
      if (stage.is("loading")) return false;
      await this.#reopen(error);
      return true;
    };
    model.onChosen = (opened) => this.#chosen(opened);
  }

  async open(): Promise<void> {
    this.data.describe();
    const [draft, file] = await Promise.all([loadDraft(), loadFile()]);
    if (draft && !this.touched) {
      this.data.fill(draft.text);
      this.training.fill(draft);
    }
    const { model, run, trouble } = await this.host
      .call(
        (studio, live) =>
          studio.open(
            this.#held,
            proxy((record: KeptRun | null) => {
              this.#held = record;
            }),
            live((loading: Loading) => this.model.showLoading(loading)),
          ),
        Infinity,
      )
      .finally(() => this.model.endLoading());
    this.model.show(model);
    this.training.describeRank(model);
    this.chat.setModel(model);
    this.training.run = null;
    if (trouble) return this.recovery.ask(trouble);
    if (run) {
      await this.continueWith(run, Boolean(draft));
    } else {
      // At a first visit there is something to press the button for.
      if (!draft && !this.touched) await this.#offerSample().catch(() => {});
      this.stage.enter("idle");
    }
    // A run that goes on has its own rows.
    if (file && this.stage.is("idle", "done")) this.stage.try(() => this.data.readRows(file, false));
  }

  async #offerSample(): Promise<void> {
    const content = await this.data.loadSample();
    if (!this.touched) this.data.fill(content);
  }

  /** Another model. What it reads of the rows is its own. */
  async #chosen({ model, run, trouble }: Opened): Promise<void> {
    this.model.show(model);
    this.training.describeRank(model);
    for (const who of ["best", "last", "uploaded"] as const) this.chat.offer(who, false);
    this.chat.setModel(model);
    // The one before it was talked to without an adapter, and is not any more.
    if (model.hasRun && this.training.run) this.training.offerTalk();
    if (run) {
      this.recovery.hide();
      return this.continueWith(run, false);
    }
    if (trouble) return this.recovery.ask(trouble);
    if (!this.data.rows) return;
    await this.data.scoreRows().catch((error: unknown) => {
      this.data.showRows(null);
      throw error;
    });
  }

  async continueWith(run: RunView, draftIsThere: boolean): Promise<void> {
    const { text, rows, settings, losses, steps } = run;
    if (!run.after || (!draftIsThere && !this.touched)) {
      if (text !== null) this.data.fill(text);
      this.training.fill(fieldsOf(settings));
    }
    this.data.showRows(rows);
    if (rows) this.chat.suggest(rows.question);
    this.training.showRun(run);
    if (run.after) await this.training.offerTrained();
    else this.training.offerTalk();
    this.stage.enter(run.after ? "done" : "paused");
    announce(
      run.after
        ? "Your last run is here."
        : `Your run is here, paused at step ${losses.length} of ${steps}. Resume it, or stop it here.`,
    );
  }

  /** A new worker, with the run as it was last saved. */
  async #reopen(reason: Error): Promise<void> {
    console.error(reason);
    this.#reopening = true;
    const had = this.training.run;
    const upload = this.chat.who === "uploaded";
    this.stage.enter("loading");
    this.chat.offer("uploaded", false);
    this.host.start();
    try {
      await this.open();
    } catch (error) {
      this.stage.enter("broken");
      return tell(error);
    } finally {
      this.#reopening = false;
    }
    const { run } = this.training;
    const lost = had && !this.stage.is("held") ? " The run could not be saved, and is lost." : "";
    const back = run ? ` The run is back at step ${run.losses.length}, the last one that was saved.` : lost;
    const cause = printable(reason.message).replace(/(\. Call init\(\).*)?\.?$/, "");
    const again = upload ? " The uploaded adapter is gone: upload it again." : "";
    show("page-error", `The worker had to be started anew: ${cause}.${back}${again}`);
  }
}

/** The run's place in IndexedDB, as this tab knows it: saves that follow one another, or fail. */
import { fieldsOf } from "../draft";
import { printable } from "../format";
import { Refusal } from "../refusal";
import { deleteRuns, readRuns, returnToBefore, revisionOf, seal, unseal, writeRun, type KeptRun } from "./kept";
import type { Run, SavedRun } from "./run";

export class Keeper {
  /** The last good state, wherever it could be kept. */
  last: SavedRun | null = null;
  /** Why the last save did not succeed, or null. */
  unkept: string | null = null;
  /** Gets what cannot be saved, and null once it can. */
  onUnkept: (held: KeptRun | null) => void = () => {};
  /** Of the record in IndexedDB, as this tab saw it last. */
  #seen: number | null = null;
  #saving: Promise<void> = Promise.resolve();

  async read(): Promise<{ latest: unknown; before: unknown }> {
    const runs = await readRuns().catch((error: Error) => {
      this.unkept = notKept(error);
      return { latest: undefined, before: undefined };
    });
    this.#seen = revisionOf(runs.latest);
    return runs;
  }

  /**
   * Saves follow one another, each of the run that is there by then.
   * @param run gives it
   * @throws Refusal where another tab has saved meanwhile
   */
  save(run: () => Run | null, withDraft = false): Promise<void> {
    const saving = this.#saving.then(() => this.#write(run(), withDraft));
    this.#saving = saving.catch(() => {});
    return saving;
  }

  async #write(run: Run | null, withDraft: boolean): Promise<void> {
    if (!run) return;
    const saved = run.save();
    const kept = seal(saved);
    try {
      await writeRun(kept, this.#seen, withDraft ? { text: saved.text ?? "", ...fieldsOf(saved.settings) } : undefined);
      this.#seen = kept.revision;
      this.unkept = null;
    } catch (error) {
      if (error instanceof Refusal) throw error;
      this.unkept = notKept(error as Error);
    }
    this.last = saved;
    this.onUnkept(this.unkept === null ? null : kept);
  }

  /** What could not be saved at the end of something is told, and what was done stays done. */
  failed(error: Error): void {
    this.unkept = error.message;
  }

  /** The run that was saved before the latest. @throws Refusal if it is damaged */
  async before(): Promise<{ saved: SavedRun; take: () => Promise<void> }> {
    const { before } = await readRuns();
    const saved = unseal(before);
    if (!saved)
      throw new Refusal(
        "page",
        "The run that was saved before it is damaged too. Delete the saved run, and train anew.",
      );
    const take = async (): Promise<void> => {
      await returnToBefore(before as KeptRun, this.#seen);
      this.last = saved;
      this.#seen = revisionOf(before);
    };
    return { saved, take };
  }

  async delete(): Promise<void> {
    await deleteRuns(this.#seen);
    this.#seen = null;
  }
}

function notKept(error: Error): string {
  return (
    `This browser does not let the page keep data (${printable(error.message || error.name)}), so a reload would ` +
    `lose the run. ` +
    "Keep this tab open until you have downloaded the adapter."
  );
}

/** What the model does before and after training, side by side. */
import { number, perplexity, printable } from "../format";
import type { Progress, Report, RunView, Written } from "../views";
import { $, show } from "./dom";

/** What stands above the samples until there is something to say about them. */
const INTRODUCTION = $("verdict").textContent!;

export class SamplesCard {
  show({ before, after, rows, losses }: RunView): void {
    const isRows = rows !== null;
    this.#report("before", before, isRows);
    if (after) this.#report("after", after, isRows);
    else this.clear("after");
    show("verdict", (after && verdict(before, after, isRows, losses.length)) ?? INTRODUCTION);
  }

  clear(...which: readonly ("before" | "after")[]): void {
    for (const id of which.length > 0 ? which : (["before", "after"] as const)) {
      this.#write(id, { text: "", isWhole: false });
      show(`${id}-figure`, "");
    }
    if (which.length === 0) show("verdict", INTRODUCTION);
  }

  /** A sample while it is written. */
  writing(id: "before" | "after", text: string): void {
    this.#write(id, { text, isWhole: false });
    if (id === "after") show("after-figure", "");
  }

  /** One that was made on the way. */
  progress({ sample, losses, steps }: Progress): void {
    if (sample === null) return;
    this.#write("after", { text: sample, isWhole: false });
    show("after-figure", `After ${number(losses.length)} of ${number(steps)} steps; it goes on learning.`);
  }

  /** Calls `change`; a sample that was made on the way stays. */
  async keepingOn(change: () => Promise<void>): Promise<void> {
    const [on, figure] = [$("after").textContent!, $("after-figure").textContent!];
    await change();
    this.#write("after", { text: on, isWhole: false });
    show("after-figure", figure);
  }

  #report(id: "before" | "after", { heldOutLoss, sample }: Report, isRows: boolean): void {
    this.#write(id, sample);
    const of = isRows ? "the rows held out" : "the last tenth of the text";
    show(`${id}-figure`, heldOutLoss === null ? "" : `Perplexity on ${of}: ${perplexity(heldOutLoss)}`);
  }

  #write(id: string, { text, isWhole }: Written): void {
    show(id, printable(text).trimStart());
    $(id).classList.toggle("whole", isWhole);
  }
}

/** What came of it, in a sentence or two; null: nothing was measured. */
function verdict(before: Report, after: Report, isRows: boolean, steps: number): string | null {
  const [from, to] = [before.heldOutLoss, after.heldOutLoss];
  if (from === null || to === null) return null;
  const of = isRows ? "the rows that were held out" : "the last tenth of the text";
  const more = isRows ? "More rows, fewer epochs" : "A longer text, fewer steps";
  const advice = ` ${more} or a smaller rank would help.`;
  if (after.step === 0)
    return `On ${of} the model was never better than before training: the adapter is as it began.${advice}`;
  return (
    `On ${of}, which it never trained on, the model's perplexity (roughly, among how many next pieces of words it ` +
    `wavers) ${to < from ? "fell" : "rose"} from ${perplexity(from)} to ${perplexity(to)}.` +
    `${after.step === steps ? "" : ` That was its best, at step ${number(after.step)} of ${number(steps)}.`}` +
    `${to < from ? "" : advice}`
  );
}

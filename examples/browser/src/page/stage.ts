/** What the parts of the page share: the phase that it is in, and how what goes wrong is told. */
import { $, show } from "./dom";
import { explain } from "../refusal";

export type Phase =
  | "loading"
  | "choosing"
  | "reading"
  | "idle"
  | "measuring"
  | "training"
  | "pausing"
  | "paused"
  | "finishing"
  | "done"
  | "held"
  | "broken";

/** Phases in which the worker is at a run: its fields stay as they are. */
const RUNNING: readonly Phase[] = ["measuring", "training", "pausing", "paused", "finishing"];

export class Stage {
  #phase: Phase = "loading";
  readonly #followers: ((phase: Phase) => void)[] = [];
  /** Gets an error that says that the worker is lost. @returns whether that was all there is to do about it */
  onLost: (error: Error) => Promise<boolean> = async () => false;

  get phase(): Phase {
    return this.#phase;
  }
  get isRunning(): boolean {
    return RUNNING.includes(this.#phase);
  }
  is(...phases: readonly Phase[]): boolean {
    return phases.includes(this.#phase);
  }

  enter(next: Phase): void {
    this.#phase = next;
    for (const follow of this.#followers) follow(next);
  }
  /** Each part enables and disables what is its own. */
  follow(fn: (phase: Phase) => void): void {
    this.#followers.push(fn);
  }

  /** Runs what a visitor asked for; an error is told, and the page is back in `otherwise`. */
  async attempt(otherwise: () => Phase, work: () => Promise<void>): Promise<void> {
    clearErrors();
    try {
      await work();
    } catch (error) {
      if (isLost(error) && (await this.onLost(error as Error))) return;
      this.enter(otherwise());
      tell(error);
    }
  }
  /** The same, where the phase stays. */
  try(work: () => Promise<void>): void {
    void this.attempt(() => this.#phase, work);
  }
}

/** Whether the worker, or the engine in it, is of no use any more. */
export function isLost(error: unknown): boolean {
  return ["WorkerLost", "EngineError", "DisposedError"].includes((error as Error).name);
}

function clearErrors(): void {
  for (const element of document.querySelectorAll(".error")) element.textContent = "";
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

/** Beside the field that is described by it, which gets the focus. */
export function tell(error: unknown): void {
  const { place, sentence } = explain(error);
  console.error(error);
  show(`${place}-error`, sentence);
  const field = document.querySelector<HTMLElement>(`[aria-describedby~="${place}-error"]`);
  field?.setAttribute("aria-invalid", "true");
  field?.focus();
  if (place === "page") $("page-error").scrollIntoView({ block: "nearest" });
}

import { printable } from "./format";

/** Where on the page the visitor can do something about an error. */
export type Place = "page" | "model" | "text" | "file" | "rank" | "steps" | "epochs" | "prompt" | "upload" | "chat";

/** An error that is told to the visitor as it stands: what is wrong, and what to do next. */
export class Refusal extends Error {
  constructor(place: Place, message: string) {
    super(message);
    // The name is what crosses from the worker to the page beside the message.
    this.name = `Refusal:${place}`;
  }
}

/** Any error as a sentence and the place it belongs to. */
export function explain(error: unknown): { place: Place; sentence: string } {
  const { name } = error as Error;
  const message = printable((error as Error).message);
  if (name.startsWith("Refusal:")) return { place: name.slice("Refusal:".length) as Place, sentence: message };
  if (name === "OutOfMemoryError") {
    return {
      place: "rank",
      sentence:
        "This device has not enough memory for that. Choose a smaller rank, or close other tabs, and try again.",
    };
  }
  if (name === "CompileError" || name === "EngineError") {
    return {
      place: "page",
      sentence:
        `The kernels could not be started (${message}). Reload the page; if that does not help, use a ` +
        `browser of 2023 or later.`,
    };
  }
  return {
    place: "page",
    sentence: `Something went wrong (${message}). Reload the page: your text and what was saved of the run are kept.`,
  };
}

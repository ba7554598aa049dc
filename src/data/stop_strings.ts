/** Where a text that is being written ends, by what it says. */
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";

/**
 * A text in pieces, up to a stop string, wherever the borders of pieces are. What may be the beginning of one is
 * held back until that is certain. The text ends before the stop string that is complete first (of several, before the
 * longest); then no further piece is taken, so that a generation behind it ends, too.
 *
 * Source: transformers, stop_strings of generate(), which leaves the stop string in the text.
 * @param pieces as `Tokenizer.decodeStream` yields them
 * @param stopStrings one or several; none: the whole text
 * @throws ArgumentError for a stop string that is empty or no text
 *
 * @example
 * const { model, tokenizer } = models.loadModel("models/base");
 * const ids = models.generate(model, tokenizer.encode("My fellow citizens"), { maxNewTokens: 40, temperature: 0 });
 * const pieces = data.untilStopString(tokenizer.decodeStream(ids), [".", "\n"]);
 * console.log([...pieces].join("").includes(".")); // false
 */
export function untilStopString(
  pieces: Iterable<string>,
  stopStrings: string | readonly string[],
): IterableIterator<string> {
  const stops: readonly unknown[] = typeof stopStrings === "string" ? [stopStrings] : stopStrings;
  if (!Array.isArray(stops))
    throw new ArgumentError(`untilStopString: stopStrings must be a text or a list of texts; got ${shown(stops)}.`);
  for (const stop of stops)
    if (typeof stop !== "string" || stop === "")
      throw new ArgumentError(`untilStopString: a stop string must be a text that is not empty; got ${shown(stop)}.`);
  return until(pieces, [...(stops as string[])]);
}

function* until(pieces: Iterable<string>, stops: readonly string[]): IterableIterator<string> {
  const longest = Math.max(0, ...stops.map((stop) => stop.length));
  let held = "";
  for (const piece of pieces) {
    const text = held + piece;
    const found = firstStop(text, stops);
    const cut = found ?? text.length - startOfStop(text, stops, longest);
    if (cut > 0) yield text.slice(0, cut);
    if (found !== undefined) return;
    held = text.slice(cut);
  }
  if (held !== "") yield held;
}

/** Where the stop string begins that is complete first, of several the longest. */
function firstStop(text: string, stops: readonly string[]): number | undefined {
  let start: number | undefined;
  let end = Infinity;
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at < 0 || at + stop.length > end) continue;
    start = at + stop.length < end ? at : Math.min(start!, at);
    end = at + stop.length;
  }
  return start;
}

/** How much of the text's end is the beginning of a stop string. */
function startOfStop(text: string, stops: readonly string[], longest: number): number {
  for (let length = Math.min(longest - 1, text.length); length > 0; length--) {
    const end = text.slice(-length);
    if (stops.some((stop) => stop.startsWith(end))) return length;
  }
  return 0;
}

/** Numbers and texts as the command line shows them. */
import { engine } from "../runtime/engine.js";
import { printable } from "../runtime/printable.js";

const LN10 = 2.302585092994046;

/** The same in every engine. */
export function exp(x: number): number {
  return engine().kernels.exp64(x);
}

/** Bytes as megabytes of 2^20 bytes, with one decimal. */
export function megabytes(bytes: number): string {
  return (bytes / 1048576).toFixed(1);
}

/** A number with a comma after each thousand. */
export function count(n: number): string {
  return n.toLocaleString("en-US");
}

/** A time that is left, in one or two units. It is rounded before it is split, so that "1m60s" cannot be. */
export function formatTime(seconds: number): string {
  // Before the first step the bar knows no time.
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "?";
  const whole = seconds > 10 ? Math.round(seconds / 5) * 5 : Math.max(0, Math.ceil(seconds));
  const two = (n: number): string => String(n).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)}h${two(minutes % 60)}m`;
}

/** exp(loss); a large one by its leading digits and its power of ten, which may be beyond any double. */
export function perplexity(loss: number): string {
  if (loss < 20) return exp(loss).toFixed(2);
  let power = Math.floor(loss / LN10);
  let leading = exp(loss - power * LN10).toFixed(1);
  if (leading === "10.0") [leading, power] = ["1.0", power + 1];
  return power < 1e6 ? `${leading}e+${power}` : "above 1.0e+1000000";
}

/** How the perplexity changed, from the losses: their exponentials may be beyond any double. */
export function perplexityChange(before: number, after: number): string {
  const difference = after - before;
  if (difference > 10) return `up, ${perplexity(difference)} times as high`;
  const change = 1 - exp(difference);
  return `${change >= 0 ? "down" : "up"} ${(Math.abs(change) * 100).toFixed(1)} %`;
}

/** At most so many characters of a text, from its start. */
export function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most)}...` : text;
}

/** A text from a file on one line of at most `most` characters. */
export function oneLine(text: string, most = 200): string {
  return printable(cut(text, most)).replace(/[\n\t]/g, (c) => (c === "\n" ? "\\n" : "\\t"));
}

/** A sample of text in quotation marks; white space counts as one space. */
export function quote(text: string): string {
  return `"${printable(text.replace(/\s+/g, " ").trim())}"`;
}

/** Numbers and foreign texts as the page shows them. */
const FORMAT = new Intl.NumberFormat("en-US");

export function number(value: number): string {
  return FORMAT.format(value);
}
export function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1048576)} MB`;
}

/** exp(loss): from a million on as a power of ten, also where it is beyond a double. */
export function perplexity(loss: number): string {
  const value = Math.exp(loss);
  if (value < 1e6) return value.toFixed(1);
  // A tenth of the first digit is shown: 9.95 is 10 already.
  const exponent = Math.floor((loss - Math.log(0.995)) / Math.LN10);
  return `${Math.exp(loss - exponent * Math.LN10).toFixed(1)} · 10^${exponent}`;
}

/** Rounded up before it is cut into hours and minutes. */
export function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes === 0) return `${whole} s`;
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Controls but tab and newline, separators, bidirectional marks (Unicode Standard Annex 9), lone surrogates. */
const UNSAFE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\p{Surrogate}/gu;

/**
 * A stranger's text, with what would act instead of show as \u and four digits: a name may not turn the sentence around
 * it.
 */
export function printable(text: string): string {
  return text.replace(UNSAFE, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A file's name for a sentence: printable, on one line, and no longer than one reads. */
export function fileName(name: string): string {
  const line = printable(name).replace(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 40)}…${line.slice(-19)}` : line;
}

/**
 * Options objects: an entry that means nothing is refused by name, with the nearest name that does. A slip that is
 * ignored (`lora_alpha`, `learningRate`) trains with a default, and nobody learns why.
 */
import { ArgumentError } from "./errors.js";
import { className } from "./shown.js";

/**
 * Options of T, any of them left out: also by giving undefined, which TypeScript's exactOptionalPropertyTypes keeps
 * apart.
 */
export type Options<T> = { [K in keyof T]?: T[K] | undefined };

/** What `options` says, and `defaults` where it says nothing or undefined. */
export function withDefaults<T extends object>(defaults: T, options: Options<T>): T {
  return { ...defaults, ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) };
}

/** What other libraries call an option, in lower case without underscores, and its names here. */
const SYNONYMS: Readonly<Record<string, readonly string[]>> = {
  learningrate: ["lr"],
  alpha: ["loraAlpha"],
  rank: ["r"],
  dropout: ["loraDropout"],
  decay: ["weightDecay"],
  l2: ["weightDecay"],
  epsilon: ["eps"],
  maxtokens: ["maxNewTokens"],
  maxlength: ["maxNewTokens"],
  numtokens: ["maxNewTokens"],
  batchsize: ["batch"],
  sequencelength: ["seq"],
  maxseqlength: ["seq"],
  seqlen: ["seq"],
  layers: ["layersToTransform"],
  targets: ["targetModules"],
  modules: ["targetModules"],
};

/** Names from files may be of any length; of a longer one this much is looked at and shown. */
const MAX_LENGTH = 64;

/**
 * @param known every option there is
 * @throws ArgumentError unless `options` is undefined or an object with none but known keys
 */
export function checkOptions(where: string, options: unknown, known: readonly string[]): void {
  if (options === undefined) return;
  // A Map or a module is refused: it may have no keys of its own, and its contents would be ignored in silence. An
  // object of another realm is plain by this test too.
  const parent =
    typeof options === "object" && options !== null ? (Object.getPrototypeOf(options) as object | null) : undefined;
  if (typeof options !== "object" || options === null || (parent && Object.getPrototypeOf(parent) !== null)) {
    const got =
      options === null
        ? "null"
        : Array.isArray(options)
          ? "an array"
          : parent
            ? `a ${className(options)}`
            : `${typeof options} ${String(options)}`;
    throw new ArgumentError(`${where}: options must be an object with any of ${known.join(", ")}; got ${got}.`);
  }
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    const likely = nearest(key, known);
    const advice = likely === undefined ? "" : ` Did you mean ${likely}?`;
    throw new ArgumentError(
      `${where}: there is no option ${JSON.stringify(key.slice(0, MAX_LENGTH))}.${advice} The options are ` +
        `${known.join(", ")}.`,
    );
  }
}

/** The known name that a slip most likely stands for, or undefined if none is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const bare = (text: string): string => text.toLowerCase().replace(/[^a-z0-9]/g, "");
  const wanted = bare(name.slice(0, MAX_LENGTH));
  const same =
    known.find((k) => bare(k) === wanted) ??
    (Object.hasOwn(SYNONYMS, wanted) ? SYNONYMS[wanted]! : []).find((k) => known.includes(k));
  if (same !== undefined) return same;
  let best: string | undefined;
  let least = Math.max(1, Math.ceil(wanted.length / 3)) + 1;
  for (const k of known) {
    const d = distance(wanted, bare(k));
    if (d < least) [best, least] = [k, d];
  }
  return best;
}

/** Edits (insertions, deletions, substitutions, swaps of neighbours) from a to b. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        next[j] = Math.min(next[j]!, before[j - 2]! + 1);
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}

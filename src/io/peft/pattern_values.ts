/** The numbers that rank_pattern and alpha_pattern give to modules. */
import { starts } from "./paths.js";
import { type Budget, type Fail, spend } from "./regexp/budget.js";
import { codesOf, isPlain, Pattern } from "./regexp/pattern.js";

/**
 * The keys of rank_pattern or alpha_pattern with their values. Most are names, also with dots that any sign may
 * replace.
 */
export class PatternValues {
  readonly #keys: readonly string[];
  readonly #values: readonly number[];
  /** Place among the keys, by name; of ends of paths, and of whole ones (^). */
  readonly #names = new Map<string, number>();
  readonly #paths = new Map<string, number>();
  readonly #lengths = new Set<number>();
  /** Names with such dots, by their length. */
  readonly #open = new Map<number, { text: string; anchored: boolean; place: number }[]>();
  readonly #patterns: { pattern: Pattern; place: number }[] = [];

  constructor(keys: Readonly<Record<string, number>>, fail: Fail) {
    this.#keys = Object.keys(keys);
    this.#values = Object.values(keys);
    for (const [place, key] of this.#keys.entries()) {
      const pattern = isPlain(key) ? null : new Pattern(key, "end");
      const name = pattern ? pattern.name(fail) : { text: key, open: key.includes("."), anchored: false };
      if (name === null) {
        this.#patterns.push({ pattern: pattern!, place });
        continue;
      }
      const { text, open, anchored } = name;
      this.#lengths.add(text.length);
      if (open && !this.#open.get(text.length)?.push({ text, anchored, place }))
        this.#open.set(text.length, [{ text, anchored, place }]);
      if (open) continue;
      if (anchored) this.#paths.set(text, Math.min(place, this.#paths.get(text) ?? place));
      else this.#names.set(text, Math.min(place, this.#names.get(text) ?? place));
    }
  }

  /** A key that is the first to match on none of these paths. */
  unused(paths: readonly string[], budget: Budget): string | undefined {
    const used = new Set(paths.map((path) => this.#first(path, budget)));
    return this.#keys.find((_, place) => !used.has(place));
  }

  /** The value of the first key that matches. */
  value(path: string, budget: Budget): number | undefined {
    return this.#values[this.#first(path, budget)];
  }

  #first(path: string, budget: Budget): number {
    let first = this.#paths.get(path) ?? Infinity;
    for (const start of starts(path)) {
      if (!this.#lengths.has(path.length - start)) continue;
      const end = path.slice(start);
      first = Math.min(first, this.#names.get(end) ?? Infinity);
      for (const { text, anchored, place } of this.#open.get(end.length) ?? []) {
        spend(budget, 1);
        if (place < first && (start === 0 || !anchored) && fits(text, end)) first = place;
      }
    }
    if (this.#patterns.length > 0) {
      const codes = codesOf(path);
      for (const { pattern, place } of this.#patterns) {
        if (place > first) break;
        if (pattern.match(codes, budget) === 0) first = place;
      }
    }
    return first;
  }
}

/** Whether they are equal but for dots of `name`, compared from the end, where paths differ. */
function fits(name: string, text: string): boolean {
  for (let i = name.length - 1; i >= 0; i--) if (name[i] !== text[i] && name[i] !== ".") return false;
  return true;
}

/** Names of modules in a config, where PEFT compares them with paths in one way or another. */
import { starts } from "./paths.js";
import { type Budget, spend } from "./regexp/budget.js";
import { codesOf, Pattern } from "./regexp/pattern.js";

/** Whole names that end a path where a dot comes before, or that are the path. */
export class Names {
  readonly #names: ReadonlySet<string>;
  readonly #lengths: ReadonlySet<number>;

  constructor(names: readonly string[]) {
    this.#names = new Set(names);
    this.#lengths = new Set(names.map(({ length }) => length));
  }

  has(path: string): boolean {
    return this.#names.has(path);
  }

  ends(path: string): boolean {
    return starts(path).some((at) => this.#lengths.has(path.length - at) && this.#names.has(path.slice(at)));
  }
}

/** modules_to_save where PEFT takes its names for patterns: to keep LoRA off these modules and those in them. */
export class SavedModules {
  readonly #names = new Set<string>();
  readonly #patterns: Pattern[] = [];

  constructor(names: readonly string[]) {
    for (const name of names) {
      if (/^\w+$/.test(name)) this.#names.add(name);
      else this.#patterns.push(new Pattern(name, "module"));
    }
  }

  hold(path: string, budget: Budget): boolean {
    if (this.#names.size > 0 && path.split(".").some((part) => this.#names.has(part))) return true;
    const codes = this.#patterns.length > 0 ? codesOf(path) : [];
    return this.#patterns.some((pattern) => pattern.match(codes, budget) === 0);
  }
}

/** Names that PEFT looks for at the end of a path, also within a word. */
export class Endings {
  readonly #names: ReadonlySet<string>;
  readonly #lengths: readonly number[];

  constructor(names: readonly string[]) {
    this.#names = new Set(names);
    this.#lengths = [...new Set(names.map(({ length }) => length))].sort((a, b) => a - b);
  }

  /** Those at the end of the path's first `length` signs. */
  *of(path: string, length: number, budget?: Budget): IterableIterator<string> {
    for (const size of this.#lengths) {
      if (size > length) return;
      if (budget) spend(budget, 1 + size / 16);
      const end = path.slice(length - size, length);
      if (this.#names.has(end)) yield end;
    }
  }

  /** Whether a module's path ends in one. */
  hold(path: string): boolean {
    return !this.of(path, path.length).next().done;
  }

  /** Whether a parameter is in a module whose path ends in one. */
  holdParameter(path: string, budget: Budget): boolean {
    for (let dot = path.indexOf("."); dot >= 0; dot = path.indexOf(".", dot + 1)) {
      if (!this.of(path, dot, budget).next().done) return true;
    }
    return false;
  }
}

/** Where a model's modules are, what they are called, and which of them is its head. */
import { lastName, lastNames } from "../io/peft/paths.js";
import { escapePattern } from "../io/peft/regexp/pattern.js";
import { type Module, Parameter } from "../nn/module.js";
import { nearest } from "../runtime/options.js";
import { ModulesToSave } from "./modules_to_save.js";

/** Where a module hangs. */
export interface Place {
  path: string;
  parent: Module;
  name: string;
  module: Module;
}

/** Every module below `parent`, parents first; what wrappers hold is theirs. */
export function* places(parent: Module, prefix = "", above: readonly Module[] = []): IterableIterator<Place> {
  for (const [name, module] of parent.children()) {
    if (module === parent || above.includes(module)) continue;
    const path = prefix ? `${prefix}.${name}` : name;
    yield { path, parent, name, module };
    if (!(module instanceof ModulesToSave)) yield* places(module, path, [...above, parent]);
  }
}

/** targetModules that name these modules and no others: their last names, or else a pattern of the paths. */
export function shortNames(model: Module, paths: readonly string[]): string[] | string {
  const names = new Set(paths.map(lastName));
  const isExact = [...places(model)].every(({ path }) => !names.has(lastName(path)) || paths.includes(path));
  return isExact ? [...names] : paths.map(escapePattern).join("|");
}

/** The name that a slip may stand for, in a sentence. */
export function meant(name: string, paths: readonly string[]): string {
  const likely = nearest(name, lastNames(paths)) ?? nearest(name, paths);
  return likely === undefined ? "" : ` Did you mean ${likely}?`;
}

/** What a language model tells of its head; another model has none of this. */
interface LanguageModel {
  /** The module that makes its logits, as transformers' get_output_embeddings; null: none. */
  getOutputEmbeddings(): Module | null;
  /** The table of its tokens, as transformers' get_input_embeddings. */
  getInputEmbeddings(): Module;
  /** Lets adapters see a head that is the embedding table as a layer of its own. */
  showHead(): void;
  /** Afterwards: the head is the table again, unless they have parted. */
  hideHead(): void;
}

/** The module that makes a model's logits, which PEFT's "all-linear" leaves out; null: there is none. */
export function outputEmbeddings(model: Module): Module | null {
  return (model as Partial<LanguageModel>).getOutputEmbeddings?.() ?? null;
}

/** The module that looks up a model's tokens; null: it does not tell. */
export function inputEmbeddings(model: Module): Module | null {
  return (model as Partial<LanguageModel>).getInputEmbeddings?.() ?? null;
}

export function showHead(model: Module): void {
  (model as Partial<LanguageModel>).showHead?.();
}

export function hideHead(model: Module): void {
  (model as Partial<LanguageModel>).hideHead?.();
}

/** Of a tied model, while its head is a layer: the places of table and head. */
export function tiedPlaces(model: Module): { table: Place; head: Place } | null {
  const output = outputEmbeddings(model);
  const all = [...places(model)];
  const head = all.find(({ module }) => module === output);
  const weight = head ? baseWeight(head.module) : null;
  const table = weight && all.find((place) => place !== head && baseWeight(place.module) === weight);
  return head && table ? { table, head } : null;
}

/** The weight of the module that was here before adapters. */
function baseWeight(module: Module): Parameter | null {
  const { weight } = (module instanceof ModulesToSave ? module.originalModule : module) as { weight?: unknown };
  return weight instanceof Parameter ? weight : null;
}

/** How many answers a model gives word for word. */
import type { Answer } from "../data/answers.js";
import { generateBatch } from "../models/generate.js";
import type { CausalLM, WrappedLM } from "../models/parts/causal_lm.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkInteger } from "../tensor/check.js";

/** Options of `exactMatch`. */
export interface ExactMatchOptions {
  /** What ends an answer: `eosTokenIds` of `models.loadModel`. */
  eosTokenIds: readonly number[];
  /** Answers that are written together; it changes none of them. Default 8. */
  batch?: number | undefined;
  /** Called now and then with how many tokens are written, of at most how many. */
  onProgress?: ((done: number, all: number) => void) | undefined;
}

/** What a model answered. */
export interface GivenAnswer {
  /** Its tokens, without the one that ends it: at most one more than the reference has. */
  ids: number[];
  /** Whether they are the reference's, and it ended there. */
  isExact: boolean;
}

/** What came of all answers. */
export interface ExactMatch {
  /** How many are exact. */
  exact: number;
  /** In the order of what was asked. */
  given: GivenAnswer[];
}

/**
 * Lets a model answer, taking the likeliest token each time, and compares what it writes with the references, token by
 * token. It leaves the model in evaluation mode.
 *
 * Source: the exact match of lm-evaluation-harness and Hugging Face's evaluate, on tokens.
 * @param answers as `data.answersOf` gives them
 * @throws ArgumentError for options that are none, no end of an answer among them; what `models.generateBatch` throws
 *
 * @example
 * const { model, eosTokenIds } = models.loadModel("models/base");
 * const answers = [{ prompt: Int32Array.of(5, 6), reference: Int32Array.of(7), where: "rows.jsonl:1" }];
 * const { exact, given } = train.exactMatch(model, answers, { eosTokenIds });
 * console.log(exact, given[0].isExact); // 0 false
 */
export function exactMatch(
  model: CausalLM | WrappedLM,
  answers: readonly Answer[],
  options: ExactMatchOptions,
): ExactMatch {
  const where = "exactMatch";
  checkOptions(where, options, ["eosTokenIds", "batch", "onProgress"]);
  const { eosTokenIds, batch = 8, onProgress } = options ?? {};
  checkInteger(where, "batch", batch, 1);
  if (!Array.isArray(answers)) throw new ArgumentError(`${where}: answers must be a list; got ${shown(answers)}.`);
  for (const [i, answer] of (answers as readonly Partial<Answer>[]).entries())
    if (!(answer?.prompt instanceof Int32Array && answer.reference instanceof Int32Array))
      throw new ArgumentError(
        `${where}: answers[${i}] must be { prompt, reference, where } with two Int32Arrays; got ${shown(answer)}.`,
      );
  if (!Array.isArray(eosTokenIds) || eosTokenIds.length === 0)
    throw new ArgumentError(
      `${where}: eosTokenIds must be a list of at least one token id, or no answer ends; got ${shown(eosTokenIds)}.`,
    );
  const given = (answers as readonly Answer[]).map((): GivenAnswer => ({ ids: [], isExact: false }));
  // Of like lengths together: none waits for a longer one.
  const order = given.map((_, i) => i).sort((a, b) => lengthOf(answers[a]!) - lengthOf(answers[b]!) || a - b);
  const all = (answers as readonly Answer[]).reduce((n, { reference }) => n + reference.length + 1, 0);
  let done = 0;
  for (let first = 0; first < order.length; first += batch) {
    const rows = order.slice(first, first + batch);
    const asked = rows.map((i) => answers[i]! as Answer);
    const most = asked.reduce((n, { reference }) => Math.max(n, reference.length + 1), 0);
    const prompts = asked.map(({ prompt }) => prompt);
    let written = 0;
    const drawn = generateBatch(model, prompts, { maxNewTokens: most, temperature: 0, stopToken: eosTokenIds });
    model.eval();
    for (const { row, token } of drawn) {
      const { ids } = given[rows[row]!]!;
      // One more than the reference has is another answer; what follows it makes no difference.
      if (ids.length > asked[row]!.reference.length) continue;
      ids.push(token);
      onProgress?.(done + ++written, all);
    }
    for (const [row, { reference }] of asked.entries()) {
      const its = given[rows[row]!]!;
      its.isExact = its.ids.length === reference.length && its.ids.every((id, i) => id === reference[i]);
    }
    done += asked.reduce((n, { reference }) => n + reference.length + 1, 0);
  }
  onProgress?.(all, all);
  return { exact: given.filter(({ isExact }) => isExact).length, given };
}

function lengthOf({ prompt, reference }: Answer): number {
  return prompt.length + reference.length;
}

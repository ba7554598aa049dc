/** What a model makes of rows: its loss, and how many of their tokens are the ones that it holds for likeliest. */
import { collate } from "../data/collate.js";
import type { TrainingRow } from "../data/labels.js";
import type { CausalLM, WrappedLM } from "../models/parts/causal_lm.js";
import type { DecoderForCausalLM } from "../models/parts/decoder.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkInteger } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import { meanLoss } from "./mean_loss.js";
import { checkRows } from "./row_batches.js";

/** Options of `evaluateRows`. */
export interface EvaluateRowsOptions {
  /** Rows that are computed together. Default 8. */
  batch?: number | undefined;
  /** Called after each batch with those that are done, and all. */
  onBatch?: ((done: number, all: number) => void) | undefined;
}

/** What `evaluateRows` finds. */
export interface RowsEvaluation {
  /** Mean over the scored tokens, in nats; its exponential is the perplexity. */
  loss: number;
  /** Share of the scored tokens that are the likeliest for the model, given all before them. */
  tokenAccuracy: number;
  /** How many tokens are scored. */
  scored: number;
}

/**
 * The loss and the token accuracy of tokenised rows, without dropout; it leaves the model in evaluation mode. With a
 * run's `batch`, the loss is that of `Finetuning.evaluate` to the bit.
 *
 * Source: TRL's SFTTrainer, eval_loss and eval_mean_token_accuracy.
 * @param model a language model, or a LoraModel of one, whose active adapters act
 * @param rows as `data.tokenizeExamples` gives them, at least one
 * @throws ArgumentError for what is no such model, row or option
 *
 * @example
 * const { model, tokenizer } = models.loadModel("models/base");
 * const ids = Int32Array.from(tokenizer.encode("My fellow citizens"));
 * const { loss, tokenAccuracy, scored } = train.evaluateRows(model, [{ ids, labels: ids, where: "1" }]);
 * console.log(loss < 7, tokenAccuracy > 0, scored === ids.length - 1); // true true true
 */
export function evaluateRows(
  model: CausalLM | WrappedLM,
  rows: readonly TrainingRow[],
  options: EvaluateRowsOptions = {},
): RowsEvaluation {
  const where = "evaluateRows";
  checkOptions(where, options, ["batch", "onBatch"]);
  const { batch = 8, onBatch } = options;
  checkInteger(where, "batch", batch, 1);
  const measured = languageModel(where, model);
  const all = checkRows(where, "rows", rows, measured.config);
  if (all.length === 0) throw new ArgumentError(`${where}: there are no rows; expected at least one.`);
  model.eval();
  let scored = 0;
  let correct = 0;
  const loss = meanLoss(
    Math.ceil(all.length / batch),
    (i) => {
      const part = collate(all.slice(i * batch, (i + 1) * batch), { packing: true });
      return { ...part, weight: part.scored };
    },
    (of) => {
      const found = scope(() =>
        measured.measure(tensor(of.ids, of.shape), tensor(of.targets, of.shape), {
          attentionMask: of.attentionMask ? tensor(of.attentionMask, of.shape) : undefined,
        }),
      );
      scored += of.scored;
      correct += found.correct;
      return found.loss;
    },
    onBatch,
  );
  return { loss, tokenAccuracy: correct / scored, scored };
}

/** @throws ArgumentError */
function languageModel(where: string, model: CausalLM | WrappedLM): DecoderForCausalLM {
  for (const one of [model, (model as WrappedLM | null)?.model])
    if (typeof (one as Partial<DecoderForCausalLM> | undefined)?.measure === "function")
      return one as DecoderForCausalLM;
  throw new ArgumentError(`${where}: model must be a language model or a LoraModel of one; got ${shown(model)}.`);
}

/** Texts of different lengths as one batch. */
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { checkInteger, shown } from "../tensor/check.js";
import { Tensor } from "../tensor/tensor.js";

/** Options of `padTexts`. */
export interface PadTextsOptions {
  /** What fills up the shorter texts: the model's config.padTokenId. Models do not look at it. Default 0. */
  padTokenId?: number | undefined;
}

/** A batch as models take it: `model.forward(ids, { attentionMask })`. */
export interface PaddedTexts {
  /** int32 [batch, steps]: a text a row, from its start on. */
  ids: Tensor;
  /** int32 [batch, steps]: 1 where there is text, 0 behind its end. */
  attentionMask: Tensor;
}

/**
 * Token ids of texts as a batch, as long as the longest of them.
 *
 * Source: transformers, DataCollatorWithPadding.
 * @param texts at least one, none of them empty
 * @throws ArgumentError for what is no list of such lists
 *
 * @example
 * const { ids, attentionMask } = data.padTexts([[5, 6, 7], [8]], { padTokenId: 1 });
 * console.log(ids.indices); // Int32Array(6) [ 5, 6, 7, 8, 1, 1 ]
 * console.log(attentionMask.indices); // Int32Array(6) [ 1, 1, 1, 1, 0, 0 ]
 */
export function padTexts(texts: readonly (readonly number[])[], options: PadTextsOptions = {}): PaddedTexts {
  const where = "padTexts";
  checkOptions(where, options, ["padTokenId"]);
  const { padTokenId = 0 } = options;
  checkInteger(where, "padTokenId", padTokenId, 0);
  if (!Array.isArray(texts) || texts.length === 0)
    throw new ArgumentError(`${where}: texts must be a list of at least one text's token ids; got ${shown(texts)}.`);
  for (const [i, text] of texts.entries())
    if (!Array.isArray(text) || text.length === 0)
      throw new ArgumentError(`${where}: texts[${i}] must be a list of token ids, at least one; got ${shown(text)}.`);
  const steps = texts.reduce((longest, text) => Math.max(longest, text.length), 0);
  const shape = [texts.length, steps];
  const fill = (value: number, of: (text: readonly number[]) => readonly number[]): Tensor =>
    new Tensor(shape, "int32").set(
      texts.flatMap((text) => [...of(text), ...new Array<number>(steps - text.length).fill(value)]),
    );
  return { ids: fill(padTokenId, (text) => text), attentionMask: fill(0, (text) => text.map(() => 1)) };
}

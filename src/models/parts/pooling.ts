/** One vector for each text of a batch, from those of its tokens. */
import { div, embedding, matmul, reshape, rmsNorm } from "../../autograd/ops/index.js";
import { ArgumentError } from "../../runtime/errors.js";
import { graphScope } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";

/** The places of a row's text in it: columns from .. to - 1. */
type Span = readonly [from: number, to: number];

/**
 * Where the text of each row is.
 * @throws ArgumentError for a row without a text, or with several
 */
export function spansOf(where: string, batch: number, steps: number, attentionMask: Tensor | undefined): Span[] {
  const mask = attentionMask?.indices;
  return Array.from({ length: batch }, (_, row) => {
    // A rehearsal has no values.
    if (!mask?.length) return [0, steps];
    const texts = mask.subarray(row * steps, (row + 1) * steps);
    const from = texts.findIndex((text) => text !== 0);
    let to = steps;
    while (to > 0 && texts[to - 1] === 0) to--;
    if (from < 0)
      throw new ArgumentError(`${where}: row ${row} of attentionMask is padding only; expected a text in each row.`);
    if (texts.subarray(from, to).some((text) => text !== texts[from]))
      throw new ArgumentError(
        `${where}: row ${row} of attentionMask holds several texts; expected one, of which the row's vector is made.`,
      );
    return [from, to];
  });
}

/**
 * The vectors of one column of each row: x [batch, steps, size] -> [batch, size].
 * @param columns of which none is beyond steps
 */
export function tokensAt(x: Tensor, columns: readonly number[]): Tensor {
  const [batch, steps, size] = x.shape as [number, number, number];
  return graphScope(() => {
    const places = new Tensor([batch], "int32");
    places.set(columns.map((column, row) => row * steps + column));
    return embedding(places, reshape(x, [batch * steps, size]));
  });
}

/** The vectors of each row's first token that is no padding. Errors as `meanOfTokens`. */
export function firstTokens(where: string, x: Tensor, attentionMask?: Tensor): Tensor {
  const [batch, steps] = x.shape as [number, number];
  return tokensAt(
    x,
    spansOf(where, batch, steps, attentionMask).map(([from]) => from),
  );
}

/**
 * The mean of each row's vectors that are no padding: x [batch, steps, size] -> [batch, size]. They are added in their
 * order, by a product with a row of ones and zeros, so that no bit depends on where the padding is.
 * @throws ArgumentError for a row without a text, or with several
 */
export function meanOfTokens(where: string, x: Tensor, attentionMask?: Tensor): Tensor {
  const [batch, steps, size] = x.shape as [number, number, number];
  const spans = spansOf(where, batch, steps, attentionMask);
  return graphScope(() => {
    const ones = new Tensor([batch, 1, steps]);
    ones.data.fill(0);
    for (const [row, [from, to]] of spans.entries()) ones.data.fill(1, row * steps + from, row * steps + to);
    const counts = new Tensor([batch, 1]);
    counts.set(spans.map(([from, to]) => to - from));
    return div(reshape(matmul(ones, x), [batch, size]), counts);
  });
}

/**
 * x / max(|x|, 1e-12) along the last dimension, |x| the Euclidean norm: an RMSNorm whose weights are 1 / sqrt(size).
 * Source: torch.nn.functional.normalize.
 */
export function normalize(x: Tensor): Tensor {
  const size = x.shape[x.rank - 1] ?? 1;
  return graphScope(() => {
    const weight = new Tensor([size]);
    weight.data.fill(1 / Math.sqrt(size));
    return rmsNorm(x, weight, 1e-24 / size);
  });
}

/** Some rows of a tensor. Kernels: assembly/nn/embedding.ts, for which x is a table. */
import { engine } from "../../runtime/engine.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/**
 * y[i] = x[rows[i]], where a row is what the last dimension has. Callers know the shapes. Other rows get zeros of the
 * gradient.
 *
 * Source: torch.index_select on x.flatten(0, -2).
 * @param x [..., dim]
 * @param rows ascending
 * @returns [rows.length, dim] @internal
 */
export function selectRows(x: Tensor, rows: readonly number[]): Tensor {
  const { kernels } = engine();
  const dim = x.shape.at(-1)!;
  const n = rows.length;
  return allOrNothing(() => {
    const y = new Tensor([n, dim]);
    const places = new Tensor([n], "int32");
    places.indices.set(rows);
    kernels.embeddingForward(y.address, x.address, places.address, n, dim, 0);
    return record(
      y,
      [x],
      (dy) => kernels.embeddingBackward(gradient(x), dy.address, places.address, 0, n, dim, -1),
      [places],
      [],
    );
  });
}

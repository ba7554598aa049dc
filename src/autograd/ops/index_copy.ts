/** Slices of one tensor in the places of another's. */
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";
import { resized, strided, stridesOf } from "./strides.js";

/**
 * x with slices of `source` in the places of its own: y[..., index[i], ...] = source[..., i, ...] along dimension
 * `axis`. What is replaced gets no gradient. Callers know the shapes.
 *
 * Source: torch.index_copy.
 * @param index places along `axis`, each once
 * @param source x's shape, but for index.length along `axis` @internal
 */
export function indexCopy(x: Tensor, axis: number, index: readonly number[], source: Tensor): Tensor {
  const y = new Tensor(x.shape);
  const strides = stridesOf(x.shape);
  const from = stridesOf(source.shape);
  const at = (place: number): number => place * strides[axis]! * 4;
  const one = resized(x.shape, axis, 1);
  strided(null, x.shape, y.address, strides, x.address, strides);
  for (const [i, place] of index.entries())
    strided(null, one, y.address + at(place), strides, source.address + i * from[axis]! * 4, from);
  return record(
    y,
    [x, source],
    (dy) => {
      const dx = gradient(x);
      if (dx) {
        // The runs between the places that were overwritten.
        let start = 0;
        for (const place of [...[...index].sort((a, b) => a - b), x.shape[axis]!]) {
          const run = resized(x.shape, axis, place - start);
          if (place > start) strided(1, run, dx + at(start), strides, dy.address + at(start), strides);
          start = place + 1;
        }
      }
      const dSource = gradient(source);
      if (dSource)
        for (const [i, place] of index.entries())
          strided(1, one, dSource + i * from[axis]! * 4, from, dy.address + at(place), strides);
    },
    [],
    [],
  );
}

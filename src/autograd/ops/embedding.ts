/** Embedding look-up with an optional LoRA branch. Kernels: assembly/lora/embedding.ts. */
import { engine } from "../../runtime/engine.js";
import { checkIndices, checkNumber, checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/**
 * y[..., :] = W[ids] + scaling * Aᵀ[ids] Bᵀ.
 *
 * @param ids int32 of any shape, values in 0 .. vocab - 1
 * @param weight [vocab, dim]
 * @param paddingIdx row that gets no gradient (-1: none)
 * @param lora loraA [r, vocab], loraB [dim, r]
 * @throws ArgumentError for an id out of range; ShapeError, DTypeError, DisposedError
 * Source: loralib.Embedding.forward; torch.nn.functional.embedding.
 */
export function embedding(ids: Tensor, weight: Tensor, paddingIdx = -1, lora: { loraA: Tensor; loraB: Tensor; scaling: number } | null = null, where = "embedding"): Tensor {
  checkTensor(where, "weight", weight, "float32", [null, null]);
  checkTensor(where, "ids", ids, "int32");
  const [vocab, dim] = weight.shape as [number, number];
  checkIndices(where, "ids", ids, vocab);
  if (lora) {
    checkTensor(where, "loraA", lora.loraA, "float32", [null, vocab]);
    checkTensor(where, "loraB", lora.loraB, "float32", [dim, lora.loraA.shape[0]!]);
    checkNumber(where, "scaling", lora.scaling, -Infinity);
  }
  const { loraA: a, loraB: b, scaling: s } = lora ?? { loraA: null, loraB: null, scaling: 0 };
  const { kernels, memory, scratch } = engine();
  const n = ids.size, r = a ? a.shape[0]! : 0;
  return allOrNothing(() => {
    const y = new Tensor([...ids.shape, dim]), hs = new Tensor([n, r]);
    kernels.loraEmbeddingForward(n, dim, r, vocab, s, ids.address, weight.address, a?.address ?? 0, b?.address ?? 0,
      hs.address, y.address, scratch);
    return record(y, [weight, a, b], (dy) => memory.withBlocks([n * r * 4], (zs) => kernels.loraEmbeddingBackward(
      n, dim, r, vocab, s, paddingIdx, ids.address, b?.address ?? 0, hs.address, zs!, dy.address,
      gradient(weight), gradient(a), gradient(b), scratch)), [hs]);
  });
}

/** Embedding look-up with an optional LoRA branch. Kernels: assembly/lora/embedding.ts. */
import { engine } from "../../runtime/engine.js";
import { checkIndices, checkTensor } from "../../tensor/check.js";
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
  const r = lora ? lora.loraA.shape[0]! : 0;
  if (lora) {
    checkTensor(where, "loraA", lora.loraA, "float32", [r, vocab]);
    checkTensor(where, "loraB", lora.loraB, "float32", [dim, r]);
  }
  const { kernels, memory, scratch } = engine();
  const n = ids.size, s = lora?.scaling ?? 0;
  const a = lora?.loraA ?? null, b = lora?.loraB ?? null;
  const y = new Tensor([...ids.shape, dim]);
  const hs = new Tensor([n, r]);
  kernels.loraEmbeddingForward(n, dim, r, vocab, s, ids.address, weight.address, a?.address ?? 0, b?.address ?? 0,
    hs.address, y.address, scratch);
  return record(y, [weight, a, b], (dy) => {
    const zs = memory.alloc(n * r * 4);
    kernels.loraEmbeddingBackward(n, dim, r, vocab, s, paddingIdx, ids.address, b?.address ?? 0, hs.address, zs, dy.address,
      gradient(weight), gradient(a), gradient(b), scratch);
    memory.free(zs);
  }, [hs]);
}

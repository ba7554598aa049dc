/** The way through a model's layers. */
import { gradientCheckpoint } from "../../autograd/gradient_checkpoint.js";
import type { Tensor } from "../../tensor/tensor.js";

/**
 * x through the layers, first to last.
 * @param isCheckpointing whether backward computes each layer's activations again, so that only its input is kept
 */
export function throughLayers<L>(
  layers: readonly L[],
  x: Tensor,
  isCheckpointing: boolean,
  forward: (layer: L, x: Tensor, index: number) => Tensor,
): Tensor {
  for (const [i, layer] of layers.entries())
    x = isCheckpointing ? gradientCheckpoint((h) => forward(layer, h, i), x) : forward(layer, x, i);
  return x;
}

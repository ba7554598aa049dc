/** What loralib's merging promises, by a fixture of its results. */
import type { nn, Tensor } from "../../src/index.js";
import { assertBits, assertClose, f32, type Golden } from "./golden.js";

/**
 * eval() gives the fixture's merged weight and result, and the original weight stays what is saved; train() restores
 * its bits.
 */
export function checkMerging(
  g: Golden,
  layer: nn.Module & { weight: Tensor; forward(x: Tensor): Tensor },
  x: Tensor,
): void {
  const original = layer.weight.data.slice();
  layer.eval();
  assertClose("weight_merged", layer.weight.data, f32(g, "weight_merged").data);
  assertClose("y, merged", layer.forward(x).data, f32(g, g.tensors.has("y_merged") ? "y_merged" : "y").data);
  assertBits("state dict while merged", layer.stateDict().get("weight")!.data, original);
  layer.train();
  assertBits("weight after train()", layer.weight.data, original);
}

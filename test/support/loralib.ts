/** GPT-2 with loralib's layers, as in loralib's example of it. */
import { lora, type models, type nn } from "../../src/index.js";

/** Puts a lora.MergedLinear with the same weights in the place of every c_attn; LoRA is on queries and values. */
export function withMergedLinear(model: models.Gpt2, options: lora.MergedLinearOptions): models.Gpt2 {
  for (const { attn } of model.transformer.h) {
    const before = attn.cAttn as nn.Linear;
    attn.cAttn = new lora.MergedLinear(before.inFeatures, before.outFeatures, {
      enableLora: [true, false, true],
      fanInFanOut: true,
      ...options,
    });
    attn.cAttn.loadStateDict(before.stateDict(), false);
    before.dispose();
  }
  return model;
}

import { init, lora, manualSeed, ops, optim, scope, tensor } from "wasm-lora";

/** Five steps of one LoRA layer. Returns SHA-256 of the losses and factors: the same in every runtime. */
export async function train(options) {
  await init(options);
  manualSeed(0);
  const layer = new lora.Linear(24, 12, { r: 4 });
  lora.markOnlyLoraAsTrainable(layer);
  const optimizer = new optim.AdamW(layer.parameters(), { lr: 0.01 });
  const x = Float32Array.from({ length: 7 * 24 }, (_, i) => ((i * 37) % 101) / 50 - 1);
  const y = Float32Array.from({ length: 7 * 12 }, (_, i) => ((i * 17) % 29) / 14 - 1);
  const results = [];
  for (let step = 0; step < 5; step++) {
    scope(() => {
      const loss = ops.mseLoss(ops.gelu(layer.forward(tensor(x, [7, 24]))), tensor(y, [7, 12]));
      loss.backward();
      optimizer.step();
      optimizer.zeroGrad();
      results.push(loss.item());
    });
  }
  for (const { data } of lora.loraStateDict(layer).values()) results.push(...data);
  const digest = await crypto.subtle.digest("SHA-256", new Float32Array(results));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

import { init, io, lora, models, nn, ops, optim, peft, scope, tensor, type Tensor } from "wasm-lora";
import { inlineModule } from "wasm-lora/inline";

class Net extends nn.Module {
  readonly layer = new lora.Linear(4, 2, { r: 1 });
  forward(x: Tensor): Tensor {
    return ops.relu(this.layer.forward(x));
  }
}

await init({ module: await inlineModule() });
const net = new Net();
const optimizer = new optim.SGD(net.parameters(), { lr: 0.1 });
const loss: number = scope(() => {
  const l = ops.sum(net.forward(tensor([1, 2, 3, 4], [1, 4])));
  l.backward();
  optimizer.step();
  return l.item();
});
const files: Map<string, Uint8Array> = io.memoryFiles;
// Under exactOptionalPropertyTypes, too.
const rank: number | undefined = [4][1];
const name: "module" | undefined = undefined;
new lora.Linear(4, 2, { r: rank, loraAlpha: rank });
new optim.AdamW(net.parameters(), { lr: rank });
peft.getLoraModel(new Net(), { r: rank, targetModules: ["layer"] });
await init({ module: name });
export const all = { loss, files, load: models.loadModel, wrap: peft.getLoraModel };

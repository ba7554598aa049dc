/** Adapters that took their first product out of the base: written, then read on the base as it was. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { init, manualSeed, nn, noGrad, peft, scope, tensor, type Tensor } from "../../../src/index.js";
import { assertClose } from "../../support/golden.js";

await init();
const folder = mkdtempSync(join(tmpdir(), "peft-convert-"));
test.after(() => rmSync(folder, { recursive: true }));

class Net extends nn.Module {
  readonly wte = new nn.Embedding(7, 6);
  readonly qProj = new nn.Linear(6, 5);
  readonly outNorm = new nn.Linear(5, 4, { fanInFanOut: true });
  forward(ids: Tensor): Tensor {
    return this.outNorm.forward(this.qProj.forward(this.wte.forward(ids)));
  }
}

const configs: Record<string, Partial<peft.LoraConfig>> = {
  "pissa beside an embedding": { initLoraWeights: "pissa", targetModules: ["wte", "q_proj"] },
  "pissa_niter_4 with rsLoRA": {
    initLoraWeights: "pissa_niter_4",
    targetModules: ["wte", "q_proj", "out_norm"],
    useRslora: true,
  },
  "olora with patterns": {
    initLoraWeights: "olora",
    targetModules: ["q_proj", "out_norm"],
    rankPattern: { q_proj: 3 },
    alphaPattern: { out_norm: 5 },
  },
};
for (const [name, config] of Object.entries(configs)) {
  test(name, () =>
    scope(() => {
      manualSeed(1);
      const base = new Net();
      const other = new Net();
      other.loadStateDict(base.stateDict());
      const model = peft.getLoraModel(base, { r: 2, loraAlpha: 6, ...config });
      for (const p of model.parameters())
        if (p.requiresGrad)
          p.data.forEach((v, i, data) => {
            data[i] = v + 0.3 * ((i % 3) - 1);
          });
      model.savePretrained(join(folder, name));
      const loaded = peft.LoraModel.fromPretrained(other, join(folder, name));

      const ids = tensor(new Int32Array([0, 1, 2, 3, 4, 5, 6]));
      assertClose("y", noGrad(() => other.forward(ids)).data, noGrad(() => base.forward(ids)).data);
      model.dispose();
      loaded.dispose();
    }),
  );
}

test.run();

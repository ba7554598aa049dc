/** lora.MergedLinear against loralib on PyTorch. */
import { test } from "uvu";
import { init, lora, manualSeed, ops, scope, tensor } from "../../src/index.js";
import { assertBits, assertClose, f32, goldenNames, readGolden } from "../support/golden.js";
import { checkMerging } from "../support/merging.js";

await init();

for (const name of goldenNames("merged_linear_")) {
  test(`lora.MergedLinear ${name}`, () =>
    scope(() => {
      const g = readGolden(name);
      const m = g.metadata;
      manualSeed(Number(m["seed"]));
      const layer = new lora.MergedLinear(Number(m["in_features"]), Number(m["out_features"]), {
        r: Number(m["r"]),
        loraAlpha: Number(m["lora_alpha"]),
        fanInFanOut: m["fan_in_fan_out"] === "true",
        enableLora: JSON.parse(m["enable_lora"]!),
      });
      assertBits("init weight", layer.weight.data, f32(g, "init_weight").data);
      assertBits("init lora_A", layer.loraA!.data, f32(g, "init_lora_A").data);

      layer.loadStateDict(new Map(["weight", "bias", "lora_A", "lora_B"].map((key) => [key, f32(g, key)])));
      const x = tensor(f32(g, "x").data, f32(g, "x").shape);
      x.requiresGrad = true;
      x.keep();
      const y = layer.forward(x);
      assertClose("y", y.data, f32(g, "y").data);
      ops.sum(ops.mul(y, tensor(f32(g, "dy").data, y.shape))).backward();
      assertClose("dx", x.grad!.data, f32(g, "dx").data);
      assertClose("d_lora_A", layer.loraA!.grad!.data, f32(g, "d_lora_A").data);
      assertClose("d_lora_B", layer.loraB!.grad!.data, f32(g, "d_lora_B").data);
      assertClose("d_bias", layer.bias!.grad!.data, f32(g, "d_bias").data);

      checkMerging(g, layer, x);
      x.dispose();
      layer.dispose();
    }));
}

test.run();

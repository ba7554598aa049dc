/** lora.Linear and lora.Embedding against loralib on PyTorch. */
import { test } from "uvu";
import { init, lora, manualSeed, ops, scope, tensor, type Tensor } from "../../src/index.js";
import { assertBits, assertClose, f32, goldenNames, type Golden, ints, readGolden } from "../support/golden.js";
import { checkMerging } from "../support/merging.js";

await init();

/** loss = sum(y * dy): then the gradient that reaches y is dy. */
function backwardFrom(y: Tensor, dy: Float32Array): void {
  ops.sum(ops.mul(y, tensor(dy, y.shape))).backward();
}

function state(g: Golden, ...keys: string[]): Map<string, { shape: number[]; data: Float32Array }> {
  return new Map(keys.filter((k) => g.tensors.has(k)).map((k) => [k, f32(g, k)]));
}

for (const name of goldenNames("linear_")) {
  test(`lora.Linear ${name}`, () =>
    scope(() => {
      const g = readGolden(name);
      const m = g.metadata;
      const hasBias = m["bias"] === "true";
      manualSeed(Number(m["seed"]));
      const layer = new lora.Linear(Number(m["in_features"]), Number(m["out_features"]), {
        r: Number(m["r"]),
        loraAlpha: Number(m["lora_alpha"]),
        fanInFanOut: m["fan_in_fan_out"] === "true",
        bias: hasBias,
      });
      assertBits("init weight", layer.weight.data, f32(g, "init_weight").data);
      assertBits("init lora_A", layer.loraA!.data, f32(g, "init_lora_A").data);

      layer.loadStateDict(state(g, "weight", "bias", "lora_A", "lora_B"));
      const { shape, data } = f32(g, "x");
      const x = tensor(data, shape).keep();
      x.requiresGrad = true;
      const y = layer.forward(x);
      assertClose("y", y.data, f32(g, "y").data);
      backwardFrom(y, f32(g, "dy").data);
      assertClose("dx", x.grad!.data, f32(g, "dx").data);
      assertClose("d_lora_A", layer.loraA!.grad!.data, f32(g, "d_lora_A").data);
      assertClose("d_lora_B", layer.loraB!.grad!.data, f32(g, "d_lora_B").data);
      if (hasBias) assertClose("d_bias", layer.bias!.grad!.data, f32(g, "d_bias").data);

      checkMerging(g, layer, x);
      x.dispose();
      layer.dispose();
    }));
}

for (const name of goldenNames("embedding_")) {
  test(`lora.Embedding ${name}`, () =>
    scope(() => {
      const g = readGolden(name);
      const m = g.metadata;
      manualSeed(Number(m["seed"]));
      const layer = new lora.Embedding(Number(m["num_embeddings"]), Number(m["embedding_dim"]), {
        r: Number(m["r"]),
        loraAlpha: Number(m["lora_alpha"]),
        paddingIdx: m["padding_idx"] === "null" ? null : Number(m["padding_idx"]),
      });
      // Normals: torch fills with vectorised approximations of log, sin and cos.
      assertClose("init weight", layer.weight.data, f32(g, "init_weight").data, 0, 2e-6);
      assertBits("init lora_A", layer.loraA!.data, f32(g, "init_lora_A").data);
      assertClose("init lora_B", layer.loraB!.data, f32(g, "init_lora_B").data, 0, 2e-6);

      layer.loadStateDict(state(g, "weight", "lora_A", "lora_B"));
      const ids = ints(g, "ids");
      const y = layer.forward(tensor(ids.data, ids.shape));
      assertClose("y", y.data, f32(g, "y").data);
      backwardFrom(y, f32(g, "dy").data);
      assertClose("d_lora_A", layer.loraA!.grad!.data, f32(g, "d_lora_A").data);
      assertClose("d_lora_B", layer.loraB!.grad!.data, f32(g, "d_lora_B").data);

      checkMerging(g, layer, tensor(ids.data, ids.shape));
      layer.dispose();
    }));
}

test.run();

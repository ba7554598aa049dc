/** lora.Conv1d to Conv3d against loralib, and the op's branches (PEFT's two convolutions), both on PyTorch. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, lora, manualSeed, nn, ops, scope, tensor, type Tensor, zeros } from "../../src/index.js";
import { assertBits, assertClose, f32, type Golden, goldenNames, readGolden } from "../support/golden.js";
import { checkMerging } from "../support/merging.js";
import { conv2dToPeft } from "../../src/io/loralib/to_peft.js";

await init();

function load(g: Golden, key: string, requiresGrad: boolean): Tensor {
  const { shape, data } = f32(g, key);
  const t = tensor(data, shape);
  t.requiresGrad = requiresGrad;
  return t;
}

/** Gradients by the fixture's names, after backward from sum(y * dy). */
function compareGradients(g: Golden, y: Tensor, gradients: Record<string, Tensor>): void {
  assert.deepEqual(y.shape, f32(g, "y").shape);
  assertClose("y", y.data, f32(g, "y").data);
  ops.sum(ops.mul(y, load(g, "dy", false))).backward();
  for (const [name, t] of Object.entries(gradients)) assertClose(name, t.grad!.data, f32(g, name).data);
}

const LAYERS = { 1: lora.Conv1d, 2: lora.Conv2d, 3: lora.Conv3d };

for (const name of goldenNames("conv")) {
  test(`lora.Conv ${name}`, () =>
    scope(() => {
      const g = readGolden(name);
      const m = (key: string): number => Number(g.metadata[key]);
      manualSeed(m("seed"));
      // The reference drew x between the seed and the constructor.
      const drawn = nn.normal_(zeros(f32(g, "x").shape));
      assertClose("x", drawn.data, f32(g, "x").data, 0, 2e-6);
      const layer = new LAYERS[m("dims") as 1 | 2 | 3](m("in_channels"), m("out_channels"), m("kernel_size"), {
        r: m("r"),
        loraAlpha: m("lora_alpha"),
        stride: m("stride"),
        padding: m("padding"),
        dilation: m("dilation"),
        groups: m("groups"),
      });
      assertBits("init weight", layer.weight.data, f32(g, "init_weight").data);
      assertBits("init lora_A", layer.loraA!.data, f32(g, "init_lora_A").data);

      layer.loadStateDict(new Map(["weight", "bias", "lora_A", "lora_B"].map((key) => [key, f32(g, key)])));
      const x = load(g, "x", true);
      compareGradients(g, layer.forward(x), {
        dx: x,
        d_lora_A: layer.loraA!,
        d_lora_B: layer.loraB!,
        d_bias: layer.bias!,
      });

      checkMerging(g, layer, load(g, "x", false));
      layer.dispose();
    }));
}

for (const name of goldenNames("peft_conv")) {
  test(`conv with a branch: ${name}`, () =>
    scope(() => {
      const g = readGolden(name);
      const m = (key: string): number => Number(g.metadata[key]);
      const each = (key: string): number[] => Array.from({ length: m("dims") }, () => m(key));
      const x = load(g, "x", true);
      const bias = load(g, "bias", true);
      const loraA = load(g, "lora_A", true);
      const loraB = load(g, "lora_B", true);
      const options = {
        stride: each("stride"),
        padding: each("padding"),
        dilation: each("dilation"),
        groups: m("groups"),
      };
      const branch = { loraA, loraB, scaling: m("lora_alpha") / m("r"), mask: null };
      const y = ops.conv(x, load(g, "weight", false), bias, options, [branch]);
      compareGradients(g, y, { dx: x, d_lora_A: loraA, d_lora_B: loraB, d_bias: bias });
    }));
}

for (const name of goldenNames("conv2d").filter((n) => readGolden(n).metadata["groups"] === "1")) {
  test(`loralib's ${name}, converted to PEFT's two convolutions, gives the same y and dx`, () =>
    scope(() => {
      const g = readGolden(name);
      const m = (key: string): number => Number(g.metadata[key]);
      const each = (key: string): number[] => [m(key), m(key)];
      const { r, loraAlpha, loraA, loraB } = conv2dToPeft("conv2dToPeft", f32(g, "lora_A"), f32(g, "lora_B"), {
        r: m("r"),
        loraAlpha: m("lora_alpha"),
        kernelSize: m("kernel_size"),
      });
      const x = load(g, "x", true);
      const branch = {
        loraA: tensor(loraA.data, loraA.shape),
        loraB: tensor(loraB.data, loraB.shape),
        scaling: loraAlpha / r,
        mask: null,
      };
      const options = { stride: each("stride"), padding: each("padding"), dilation: each("dilation") };
      compareGradients(g, ops.conv(x, load(g, "weight", false), load(g, "bias", false), options, [branch]), { dx: x });
    }));
}

test.run();

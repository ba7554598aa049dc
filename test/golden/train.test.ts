/** 50 steps of two LoRA layers under each optimiser, and 20 of a small Llama and of a small GPT-2, against PyTorch. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, lora, models, nn, ops, optim, peft, scope, tensor, type Tensor } from "../../src/index.js";
import { assertClose, f32, goldenNames, type Golden, ints, readGolden } from "../support/golden.js";
import { withMergedLinear } from "../support/loralib.js";

await init();

class TwoLayers extends nn.Module {
  readonly fc1: lora.Linear;
  readonly fc2: lora.Linear;
  constructor(sizes: [number, number, number], r: number, loraAlpha: number) {
    super();
    this.fc1 = new lora.Linear(sizes[0], sizes[1], { r, loraAlpha });
    this.fc2 = new lora.Linear(sizes[1], sizes[2], { r, loraAlpha });
  }
  forward(x: Tensor): Tensor {
    return this.fc2.forward(ops.relu(this.fc1.forward(x)));
  }
}

/** Settings of test/fixtures/README.md. */
function makeOptimizer(name: string, params: nn.Parameter[]): optim.SGD | optim.Adam | optim.AdamW {
  switch (name) {
    case "sgd":
      return new optim.SGD(params, { lr: 0.05 });
    case "momentum":
      return new optim.SGD(params, { lr: 0.02, momentum: 0.9, weightDecay: 0.01 });
    case "nesterov":
      return new optim.SGD(params, { lr: 0.02, momentum: 0.9, nesterov: true });
    case "adam":
      return new optim.Adam(params, { lr: 0.01 });
    case "adamw":
      return new optim.AdamW(params, { lr: 0.01, betas: [0.9, 0.95], weightDecay: 0.1 });
    default:
      throw new Error(`no optimizer ${name}`);
  }
}

function part(g: Golden, prefix: string): Map<string, { shape: number[]; data: Float32Array }> {
  return new Map(
    [...g.tensors.keys()].filter((k) => k.startsWith(prefix)).map((k) => [k.slice(prefix.length), f32(g, k)]),
  );
}

for (const name of goldenNames("train_")) {
  const g = readGolden(name);
  const m = g.metadata;
  test(`${name}: ${m["task"]}, ${m["optimizer"]}, bias ${m["bias"]}`, () => {
    const initial = part(g, "init.");
    const [hidden, inputs] = initial.get("fc1.weight")!.shape as [number, number];
    const model = new TwoLayers(
      [inputs, hidden, initial.get("fc2.weight")!.shape[0]!],
      Number(m["r"]),
      Number(m["lora_alpha"]),
    );
    model.loadStateDict(initial);
    const bias = m["bias"] as lora.BiasMode;
    lora.markOnlyLoraAsTrainable(model, bias);
    assert.deepEqual([...lora.loraStateDict(model, bias).keys()].sort(), JSON.parse(m["lora_state_dict_keys"]!));
    const optimizer = makeOptimizer(
      m["optimizer"]!,
      model.parameters().filter((p) => p.requiresGrad),
    );
    const classes = g.tensors.get("target")!.dtype === "I64";
    const losses: number[] = [];
    const norms: number[] = [];
    for (let step = 0; step < Number(m["steps"]); step++) {
      scope(() => {
        const x = tensor(f32(g, "x").data, f32(g, "x").shape);
        const y = model.forward(x);
        const loss = classes
          ? ops.crossEntropy(y, tensor(ints(g, "target").data, ints(g, "target").shape))
          : ops.mseLoss(y, tensor(f32(g, "target").data, f32(g, "target").shape));
        loss.backward();
        losses.push(loss.item());
        norms.push(optim.clipGradNorm_(model.parameters(), Number(m["clip_grad_norm"])));
        optimizer.step();
        optimizer.zeroGrad();
      });
    }
    const expected = f32(g, "losses").data;
    for (const [i, loss] of losses.entries()) assertClose(`loss ${i}`, [loss], [expected[i]!], 1e-4, 0);
    assertClose("first gradient norm", [norms[0]!], [f32(g, "grad_norms").data[0]!]);
    const final = part(g, "final.");
    for (const [key, entry] of lora.loraStateDict(model, bias))
      assertClose(`final ${key}`, entry.data, final.get(key)!.data, 1e-4, 1e-6);
    optimizer.dispose();
    model.dispose();
  });
}

test("llama: logits, loss, gradients and 20 AdamW steps", () => {
  const g = readGolden("llama_tiny");
  const m = g.metadata;
  const number = (key: string): number => Number(m[key]);
  const llama = new models.Llama({
    modelType: "llama",
    vocabSize: number("vocab_size"),
    hiddenSize: number("hidden_size"),
    intermediateSize: number("intermediate_size"),
    numHiddenLayers: number("num_hidden_layers"),
    numAttentionHeads: number("num_attention_heads"),
    numKeyValueHeads: number("num_key_value_heads"),
    headDim: number("hidden_size") / number("num_attention_heads"),
    maxPositionEmbeddings: 32,
    rmsNormEps: number("rms_norm_eps"),
    ropeParameters: { ropeType: "default" as const, ropeTheta: number("rope_theta") },
    tieWordEmbeddings: false,
    bosTokenId: null,
    eosTokenId: null,
  });
  peft.getLoraModel(llama, { r: number("r"), loraAlpha: number("lora_alpha"), targetModules: ["q_proj", "v_proj"] });
  const peftKey = (key: string): string => `base_model.model.${key.replace(".default", "")}`;
  const keys = [...llama.namedParameters()].map(([key]) => key);
  llama.loadStateDict(
    new Map(keys.map((key) => [key, f32(g, key.includes("lora_") ? peftKey(key) : key.replace(".base_layer", ""))])),
  );

  fineTune(g, llama, peftKey);
});

test("gpt2: logits, loss, gradients and 20 AdamW steps", () => {
  const g = readGolden("gpt2_tiny");
  const m = g.metadata;
  const number = (key: string): number => Number(m[key]);
  const plain = new models.Gpt2({
    modelType: "gpt2",
    vocabSize: number("vocab_size"),
    hiddenSize: number("n_embd"),
    intermediateSize: 4 * number("n_embd"),
    numHiddenLayers: number("n_layer"),
    numAttentionHeads: number("n_head"),
    maxPositionEmbeddings: number("n_positions"),
    layerNormEpsilon: number("layer_norm_epsilon"),
    tieWordEmbeddings: true,
    bosTokenId: null,
    eosTokenId: null,
  });
  const enableLora = JSON.parse(m["enable_lora"]!) as boolean[];
  const model = withMergedLinear(plain, { r: number("r"), loraAlpha: number("lora_alpha"), enableLora });
  model.loadStateDict(new Map([...model.namedParameters()].map(([key]) => [key, f32(g, key)])));
  lora.markOnlyLoraAsTrainable(model);
  fineTune(g, model, (key) => key);
});

/** Compares logits, then loss and gradients of the first step, then all losses. */
function fineTune(g: Golden, model: models.CausalLM, gradientKey: (key: string) => string): void {
  const tokens = ints(g, "tokens");
  const [batch, width] = tokens.shape as [number, number];
  const rows = (from: number): Int32Array =>
    Int32Array.from(
      { length: batch * (width - 1) },
      (_, i) => tokens.data[Math.floor(i / (width - 1)) * width + from + (i % (width - 1))]!,
    );
  const shape = [batch, width - 1];
  scope(() => assertClose("logits", model.forward(tensor(rows(0), shape)).data, f32(g, "logits").data));

  const optimizer = new optim.AdamW(
    model.parameters().filter((p) => p.requiresGrad),
    { lr: Number(g.metadata["adamw_lr"]), weightDecay: 0 },
  );
  const expected = f32(g, "losses").data;
  for (let step = 0; step < expected.length; step++) {
    scope(() => {
      const loss = model.loss(tensor(rows(0), shape), tensor(rows(1), shape));
      loss.backward();
      assertClose(`loss ${step}`, [loss.item()], [expected[step]!], 2e-4, 0);
      if (step === 0) {
        assertClose("loss", [loss.item()], f32(g, "loss").data);
        for (const [key, p] of model.namedParameters()) {
          if (p.requiresGrad) assertClose(`grad ${key}`, p.grad!.data, f32(g, `grad.${gradientKey(key)}`).data);
          else assert.equal(p.grad, null, `${key} is frozen`);
        }
      }
      optimizer.step();
      optimizer.zeroGrad();
    });
  }
  optimizer.dispose();
  model.dispose();
}

test.run();

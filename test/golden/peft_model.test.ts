/**
 * Models with PEFT 0.21's adapters (test/fixtures/peft_model/make.py): what factors start as, outputs and gradients,
 * merged weights, combined adapters, training, and the folders of language models.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { fileURLToPath } from "node:url";
import {
  ArgumentError,
  init,
  manualSeed,
  models,
  nn,
  ops,
  optim,
  peft,
  scope,
  tensor,
  type Tensor,
} from "../../src/index.js";
import { readPeftAdapter } from "../../src/io/peft/folder.js";
import { assertBits, assertClose, f32, goldenNames, type Golden, ints, readGolden } from "../support/golden.js";
import { ROOT } from "../support/root.js";

const FIXTURES = "peft_model/";
const folder = mkdtempSync(join(tmpdir(), "peft-model-"));
await init();
test.after(() => rmSync(folder, { recursive: true }));

const inputs = readGolden(`${FIXTURES}inputs`);
type Options = Record<string, unknown>;
type Layer = nn.Module & { forward(x: Tensor): Tensor };
const json = <T>(g: Golden, key: string): T => JSON.parse(g.metadata[key]!) as T;
const LAYERS = json<Record<string, [kind: string, sizes: [number, number, nn.Sizes], options: Options]>>(
  inputs,
  "layers",
);

/** {"lora_alpha": 1} -> {loraAlpha: 1} */
function camelCase(options: Options): Options {
  return Object.fromEntries(
    Object.entries(options).map(([key, value]) => [key.replace(/_(.)/g, (_, c: string) => c.toUpperCase()), value]),
  );
}

/** Layers by name, drawn in that order. */
class Net extends nn.Module {
  constructor(names: readonly string[]) {
    super();
    for (const name of names) Object.assign(this, { [name]: layer(name) });
  }
  get(name: string): Layer {
    return (this as unknown as Record<string, Layer>)[name]!;
  }
  loadBase(): this {
    this.loadStateDict(new Map([...this.namedParameters()].map(([key]) => [key, f32(inputs, `base.${key}`)])));
    return this;
  }
}

function layer(name: string): Layer {
  const [kind, [a, b, kernelSize], options] = LAYERS[name]!;
  switch (kind) {
    case "Linear":
      return new nn.Linear(a, b);
    // Its arguments are the other way round.
    case "Conv1D":
      return new nn.Linear(b, a, { fanInFanOut: true });
    case "Embedding":
      return new nn.Embedding(a, b, camelCase(options));
    case "LayerNorm":
      return new nn.LayerNorm(a);
    default:
      return new nn[kind as "Conv1d" | "Conv2d" | "Conv3d"](a, b, kernelSize, camelCase(options));
  }
}

function adapted<M extends nn.Module>(
  model: M,
  layers: readonly string[],
  adapters: Record<string, Options>,
): peft.LoraModel<M> {
  const wrapped = new peft.LoraModel(model);
  for (const [name, config] of Object.entries(adapters))
    wrapped.addAdapter(name, camelCase({ target_modules: layers, ...config }));
  return wrapped;
}

/** All parameters by the names they have in PEFT below "base_model.model.". */
function named(model: peft.LoraModel): Map<string, nn.Parameter> {
  return new Map([...model.namedParameters()].map(([key, p]) => [key.replace(/^model\./, ""), p]));
}

/** An adapter's own parameters. */
function own(model: peft.LoraModel): [string, nn.Parameter][] {
  return [...named(model)].filter(([key]) => key.includes("lora_") || key.includes(".modules_to_save."));
}

function part(g: Golden, prefix: string): Map<string, Float32Array> {
  return new Map(
    [...g.tensors.keys()]
      .filter((key) => key.startsWith(prefix))
      .map((key) => [key.slice(prefix.length), f32(g, key).data]),
  );
}

/** Sets an adapter's parameters; both sides must have the same. */
function setOwn(model: peft.LoraModel, g: Golden): void {
  const values = part(g, "value.");
  const parameters = own(model);
  assert.deepEqual(parameters.map(([key]) => key).sort(), [...values.keys()].sort());
  for (const [key, p] of parameters) p.set(values.get(key)!);
}

function trainable(model: peft.LoraModel): string[] {
  return [...named(model)]
    .filter(([, p]) => p.requiresGrad)
    .map(([key]) => key)
    .sort();
}

function input(g: Golden, key: string): Tensor {
  const from = g.tensors.get(key)!.dtype === "I64" ? ints(g, key) : f32(g, key);
  return tensor(from.data, from.shape);
}

/** W' - W of what is merged now. */
function delta(model: peft.LoraModel<Net>, name: string): Float32Array {
  return named(model)
    .get(`${name}.base_layer.weight`)!
    .data.map((v, i) => v - f32(inputs, `base.${name}.weight`).data[i]!);
}

for (const path of goldenNames("init_", FIXTURES)) {
  test(`factors after a seed: ${path}`, () => {
    const g = readGolden(path);
    const layers = json<string[]>(g, "layers");
    const drawn = json<boolean>(g, "drawn");
    const seed = json<number>(g, "seed");
    manualSeed(seed);
    const base = new Net(layers);
    if (!drawn) manualSeed(seed);
    const model = adapted(drawn ? base : base.loadBase(), layers, { default: json<Options>(g, "config") });
    const parameters = named(model);
    const kind = json<{ init_lora_weights: unknown }>(g, "config").init_lora_weights;
    const normal = (key: string): boolean => kind === "gaussian" || kind === "orthogonal" || /^wte\./.test(key);
    for (const [key, expected] of part(g, "")) {
      if (key.endsWith(".delta")) continue;
      const actual = parameters.get(key)?.data;
      assert(actual, `there is no ${key}`);
      if ((!drawn && key.includes("base_layer")) || key.includes("magnitude")) assertClose(key, actual, expected);
      else if (normal(key)) assertClose(key, actual, expected, 0, 2e-6);
      else assertBits(key, actual, expected);
    }
    for (const name of layers.filter((name) => g.tensors.has(`${name}.delta`))) {
      const weight = parameters.get(`${name}.base_layer.weight`)!;
      const before = weight.data.slice();
      model.mergeAdapter();
      assertClose(
        `${name}.delta`,
        weight.data.map((v, i) => v - before[i]!),
        f32(g, `${name}.delta`).data,
      );
      model.unmergeAdapter();
    }
    model.dispose();
  });
}

for (const path of goldenNames("layers_", FIXTURES)) {
  test(`outputs, gradients and merged weights: ${path}`, () => {
    const g = readGolden(path);
    const layers = json<string[]>(g, "layers");
    const extra = json<string[]>(g, "extra");
    const active = json<string[] | null>(g, "active");
    const adapterNames = json<string[] | null>(g, "adapter_names");
    const model = adapted(
      new Net([...layers, ...extra]).loadBase(),
      layers,
      json<Record<string, Options>>(g, "adapters"),
    );
    setOwn(model, g);
    if (active) model.setAdapter(active);
    assert.deepEqual(trainable(model), json<string[]>(g, "trainable"));
    assert.deepEqual(model.getNbTrainableParameters(), json<number[]>(g, "counts"));
    const names = [...layers, ...extra];
    const forward = (name: string, x = input(inputs, `x.${name}`)): Tensor => model.model.get(name).forward(x);
    const check = (): void =>
      scope(() => {
        for (const name of names) assertClose(`y.${name}`, forward(name).data, f32(g, `y.${name}`).data);
      });

    for (const name of names) {
      scope(() => {
        const x = input(inputs, `x.${name}`).keep();
        x.requiresGrad = x.dtype === "float32";
        const y = adapterNames ? model.withAdapterNames(adapterNames, () => forward(name, x)) : forward(name, x);
        assertClose(`y.${name}`, y.data, f32(g, `y.${name}`).data);
        if (y.requiresGrad) ops.sum(ops.mul(y, input(inputs, `dy.${name}`))).backward();
        if (x.grad) assertClose(`dx.${name}`, x.grad.data, f32(g, `dx.${name}`).data);
        x.dispose();
      });
    }
    const parameters = named(model);
    const gradients = part(g, "grad.");
    for (const [key, expected] of gradients) {
      const actual = parameters.get(key)?.grad;
      assert(actual, `${key} has no gradient`);
      assertClose(`grad.${key}`, actual.data, expected);
    }
    for (const [key, p] of parameters) assert(p.grad === null || gradients.has(key), `PEFT has no gradient of ${key}`);

    model.disableAdapter(() =>
      scope(() => {
        const base = new Net(names).loadBase();
        for (const name of layers)
          assertBits(`${name} disabled`, forward(name).data, base.get(name).forward(input(inputs, `x.${name}`)).data);
        base.dispose();
      }),
    );
    for (const safeMerge of g.tensors.has(`merged.${layers[0]}`) ? [false, true] : []) {
      model.mergeAdapter(undefined, { safeMerge });
      for (const name of layers)
        assertClose(`merged.${name}`, parameters.get(`${name}.base_layer.weight`)!.data, f32(g, `merged.${name}`).data);
      check();
      model.unmergeAdapter();
      for (const name of layers)
        assertBits(
          `${name} unmerged`,
          parameters.get(`${name}.base_layer.weight`)!.data,
          f32(inputs, `base.${name}.weight`).data,
        );
      if (!adapterNames) check();
    }

    for (const [adapter, saved] of Object.entries(json<Record<string, string[]>>(g, "saved"))) {
      const directory = join(folder, path, adapter);
      model.savePretrained(directory, adapter);
      assert.deepEqual([...readPeftAdapter(directory).tensors.keys()].sort(), saved);
    }
    model.dispose();
  });
}

test("a module cannot be both adapted and saved whole", () => {
  const net = new Net(["fc", "head"]).loadBase();
  const before = [...net.namedParameters()].map(([key]) => key);
  assert.throws(
    () => peft.getLoraModel(net, { targetModules: ["head"], modulesToSave: ["ead"] }),
    (error) => error instanceof ArgumentError && error.message.includes("head matches targetModules and"),
  );
  assert.deepEqual(
    [...net.namedParameters()].map(([key]) => key),
    before,
  );
  net.dispose();
});

test("combined adapters", () => {
  const g = readGolden(`${FIXTURES}weighted`);
  const layers = json<string[]>(g, "layers");
  const model = adapted(new Net(layers).loadBase(), layers, json<Record<string, Options>>(g, "adapters"));
  setOwn(model, g);
  for (const [name, [adapters, weights, options]] of Object.entries(
    json<Record<string, [string[], number[], Options]>>(g, "weighted"),
  )) {
    const combinationType = name.split("_")[0] as peft.CombinationType;
    model.addWeightedAdapter(adapters, weights, name, { combinationType, ...camelCase(options) });
    model.mergeAdapter([name]);
    for (const layer of layers)
      assertClose(`${name} of ${layer}`, delta(model, layer), f32(g, `delta.${name}.${layer}`).data);
    model.unmergeAdapter();
  }
  model.dispose();
});

class MLP extends nn.Module {
  readonly wte = new nn.Embedding(7, 4);
  readonly fca = new nn.Linear(12, 10);
  readonly fcb = new nn.Linear(10, 3);
  forward(ids: Tensor): Tensor {
    return this.fcb.forward(ops.relu(this.fca.forward(ops.reshape(this.wte.forward(ids), [ids.shape[0]!, 12]))));
  }
}

class CNN extends nn.Module {
  readonly conv = new nn.Conv2d(2, 4, 3);
  readonly fca = new nn.Linear(36, 3);
  forward(x: Tensor): Tensor {
    return this.fca.forward(ops.reshape(ops.relu(this.conv.forward(x)), [x.shape[0]!, 36]));
  }
}

/** Settings of make.py. */
function makeOptimizer(name: string, model: peft.LoraModel): optim.AdamW | optim.LoraFA {
  switch (name) {
    case "adamw":
      return new optim.AdamW(
        model.parameters().filter((p) => p.requiresGrad),
        { lr: 0.01, weightDecay: 0.1 },
      );
    case "loraplus":
      return new optim.AdamW(
        optim
          .loraPlusGroups(model, { lr: 0.005, loraplusLrRatio: 8, loraplusLrEmbedding: 0.02, weightDecay: 0.1 })
          .filter(({ params }) => params.length > 0),
      );
    case "lorafa":
      return new optim.LoraFA(model, { scaling: 2, lr: 0.01, weightDecay: 0.1 });
    default:
      throw new Error(`no optimizer ${name}`);
  }
}

for (const path of goldenNames("train_", FIXTURES)) {
  test(`20 steps: ${path}`, () => {
    const g = readGolden(path);
    const base = json<string>(g, "model") === "MLP" ? new MLP() : new CNN();
    base.loadStateDict(new Map([...base.namedParameters()].map(([key]) => [key, f32(g, `base.${key}`)])));
    const config = json<Options & { target_modules: string[] }>(g, "config");
    const model = adapted(base, config.target_modules, { default: config });
    setOwn(model, g);
    const optimizer = makeOptimizer(json<string>(g, "optimizer"), model);
    for (const [step, expected] of f32(g, "losses").data.entries()) {
      scope(() => {
        const loss = ops.crossEntropy(base.forward(input(g, "x")), input(g, "target"));
        assertClose(`loss ${step}`, [loss.item()], [expected], 2e-4, 0);
        optimizer.zeroGrad();
        loss.backward();
        optimizer.step();
      });
    }
    for (const [key, expected] of part(g, "final."))
      assertClose(`final ${key}`, named(model).get(key)!.data, expected, 1e-4, 1e-6);
    optimizer.dispose();
    model.dispose();
  });
}

for (const name of ["gpt2", "llama"] as const) {
  test(`folders of transformers and PEFT: ${name}`, () => {
    const g = readGolden(`${FIXTURES}lm_${name}`);
    const directory = fileURLToPath(new URL(`test/fixtures/${FIXTURES}${name}`, ROOT));
    const { model: base } = models.loadModel(directory);
    const model = peft.LoraModel.fromPretrained<models.CausalLM>(base, join(directory, "adapter"), {
      isTrainable: true,
    });
    const {
      data,
      shape: [batch, width],
    } = ints(g, "ids") as { data: Int32Array; shape: [number, number] };
    const rows = (from: number): Tensor =>
      tensor(
        data.filter((_, i) => from <= i % width && i % width < from + width - 1),
        [batch, width - 1],
      );
    scope(() => {
      assertClose("logits", model.model.forward(rows(0)).data, f32(g, "logits").data);
      const loss = model.model.loss(rows(0), rows(1));
      assertClose("loss", [loss.item()], f32(g, "loss").data);
      loss.backward();
    });
    const gradients = part(g, "grad.");
    assert.deepEqual(trainable(model), [...gradients.keys()].sort());
    for (const [key, expected] of gradients) assertClose(`grad.${key}`, named(model).get(key)!.grad!.data, expected);
    model.dispose();
  });
}

test.run();

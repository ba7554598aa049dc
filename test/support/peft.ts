/** A small model with every kind of layer that can be adapted, and what tests of adapters ask of it. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { manualSeed, nn, noGrad, ops, peft, scope, type Tensor, tensor } from "../../src/index.js";
import { ModulesToSave } from "../../src/peft/modules_to_save.js";
import { TrainableTokens } from "../../src/peft/trainable_tokens.js";
import { assertBits } from "./golden.js";
import { stream } from "./random.js";

class Body extends nn.Module {
  readonly fc: nn.Layer = new nn.Linear(6, 8);
  /** Stored [in, out]. */
  readonly proj: nn.Layer = new nn.Linear(8, 6, { fanInFanOut: true });
  forward(x: Tensor): Tensor {
    return this.proj.forward(ops.relu(this.fc.forward(x)));
  }
}

/** ids [n, 4] -> [n, 5]; its modules: embed, body.fc, body.proj, norm, conv, head. */
export class Tiny extends nn.Module {
  readonly embed: nn.Layer = new nn.Embedding(10, 6);
  readonly body = new Body();
  readonly norm: nn.Layer = new nn.LayerNorm(6);
  readonly conv: nn.Layer;
  readonly head: nn.Layer = new nn.Linear(24, 5);

  constructor(groups = 1) {
    super();
    this.conv = new nn.Conv2d(4, 4, [2, 3], { padding: [1, 1], stride: [2, 1], groups });
  }

  forward(ids: Tensor): Tensor {
    const n = ids.shape[0]!;
    const image = ops.reshape(this.norm.forward(this.body.forward(this.embed.forward(ids))), [n, 4, 2, 3]);
    return this.head.forward(ops.reshape(this.conv.forward(image), [n, 24]));
  }

  getOutputEmbeddings(): nn.Module {
    return this.head;
  }
}

/** Always with the same weights. */
export function tiny(groups?: number): Tiny {
  manualSeed(1);
  return new Tiny(groups);
}

export const ALL = ["embed", "fc", "proj", "conv", "head"];

/** ids [n, 4], other ones for each seed. */
export function batch(n: number, seed = 1): Tensor {
  const next = stream(seed);
  return tensor(
    Int32Array.from({ length: 4 * n }, () => Math.floor(next() * 10)),
    [n, 4],
  );
}

/** What the model gives for some input, by default a batch of 3, without history. */
export function outputs(model: { forward(x: Tensor): Tensor }, input = (): Tensor => batch(3)): Float32Array {
  return noGrad(() => scope(() => model.forward(input()).data.slice()));
}

/** Layers that have this adapter, or any, by their paths in the wrapped model. */
export function layersOf(adapted: peft.LoraModel, name?: string): { path: string; layer: peft.LoraLayer }[] {
  return [...adapted.model.namedModules()].flatMap(([path, layer]) =>
    layer instanceof peft.LoraLayer && (name === undefined || layer.adapters.has(name)) ? [{ path, layer }] : [],
  );
}

/** Trained copies that an adapter has (modulesToSave), by their modules' paths. */
export function copiesOf(adapted: peft.LoraModel, name: string): { path: string; module: nn.Module }[] {
  return [...adapted.model.namedModules()].flatMap(([path, wrapper]) => {
    const module = wrapper instanceof ModulesToSave ? wrapper.modulesToSave.get(name) : undefined;
    return module ? [{ path, module }] : [];
  });
}

/** Rows of tokens that an adapter trains; a head's that are the table's are there once. */
function rowsOf(adapted: peft.LoraModel, name: string): nn.Parameter[] {
  return [...adapted.model.namedModules()].flatMap(([, wrapper]) => {
    const own = wrapper instanceof TrainableTokens ? wrapper.tokens.get(name) : undefined;
    return own && !own.table ? [own.rows] : [];
  });
}

/** Parameters of an adapter: factors and their biases, magnitudes, copies, rows of tokens. */
export function parametersOf(adapted: peft.LoraModel, name: string): nn.Parameter[] {
  const factors = layersOf(adapted, name).flatMap(({ layer }) => {
    const { loraA, loraB, loraBias, magnitude } = layer.adapters.get(name)!;
    return [loraA, loraB, loraBias, magnitude].filter((p) => p !== null);
  });
  const copies = copiesOf(adapted, name).flatMap(({ module }) => module.parameters());
  return [...factors, ...copies, ...rowsOf(adapted, name)];
}

/** As after training: adds up to 0.4 to every value of the adapter. */
export function train(adapted: peft.LoraModel, name: string, seed: number): void {
  const next = stream(seed);
  for (const p of parametersOf(adapted, name))
    p.data.forEach((v, i, all) => {
      all[i] = v + 0.8 * next() - 0.4;
    });
}

export function values(module: nn.Module): Map<string, Float32Array> {
  return new Map([...module.namedParameters()].map(([key, p]) => [key, p.data.slice()]));
}

/** The same parameters with the same bits. */
export function assertValues(label: string, module: nn.Module, expected: ReadonlyMap<string, Float32Array>): void {
  const got = values(module);
  assert.deepEqual([...got.keys()].sort(), [...expected.keys()].sort(), label);
  for (const [key, data] of got) assertBits(`${label}: ${key}`, data, expected.get(key)!);
}

/** Keys of what trains. */
export function trainable(module: nn.Module): string[] {
  return [...module.namedParameters()].filter(([, p]) => p.requiresGrad).map(([key]) => key);
}

/** A folder for this test file, and a path in it. */
export function temporary(): (name: string) => string {
  const folder = mkdtempSync(join(tmpdir(), "peft-"));
  test.after(() => rmSync(folder, { recursive: true }));
  return (name) => join(folder, name);
}

export function assertSameFolder(label: string, a: string, b: string): void {
  assert.deepEqual(readdirSync(a).sort(), readdirSync(b).sort(), label);
  for (const file of readdirSync(a))
    assert.deepEqual(readFileSync(join(a, file)), readFileSync(join(b, file)), `${label}: ${file}`);
}

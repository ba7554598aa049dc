/**
 * Adapters on random trees of layers under random configs: wrapping and unwrapping is the identity, merging is
 * reversible to the bit and keeps the outputs, and folders that are written, read and written again have the same
 * bytes.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import {
  init,
  memoryStats,
  nn,
  noGrad,
  ops,
  peft,
  scope,
  tensor,
  type Tensor,
  WasmLoraError,
} from "../../src/index.js";
import { assertBits, assertClose } from "../support/golden.js";
import { gridTensor as grid } from "../support/gradcheck.js";
import { assertSameFolder, assertValues, layersOf, temporary, train, trainable, values } from "../support/peft.js";

await init();
const at = temporary();
// The generator of random numbers takes its memory at first use.
new nn.Linear(1, 1).dispose();
const LIMITS = { interruptAfterTimeLimit: 6000, markInterruptAsFailure: false };

const WIDTH = 4;
const KINDS = ["linear", "conv1d", "convolution", "grouped", "embedding", "norm"] as const;
type Kind = (typeof KINDS)[number];

function layerOf(kind: Kind): nn.Layer {
  switch (kind) {
    case "linear":
      return new nn.Linear(WIDTH, WIDTH);
    case "conv1d":
      return new nn.Linear(WIDTH, WIDTH, { fanInFanOut: true, bias: false });
    case "convolution":
      return new nn.Conv1d(WIDTH, WIDTH, 1);
    case "grouped":
      return new nn.Conv1d(WIDTH, WIDTH, 1, { groups: 2 });
    case "embedding":
      return new nn.Embedding(5, WIDTH);
    case "norm":
      return new nn.LayerNorm(WIDTH);
  }
}

/** What a layer of this kind does to x [2, 4]. */
function run(kind: Kind, layer: nn.Layer, x: Tensor): Tensor {
  if (kind === "embedding") return layer.forward(tensor(new Int32Array([1, 4]), [2]));
  if (kind === "convolution" || kind === "grouped")
    return ops.reshape(layer.forward(ops.reshape(x, [2, WIDTH, 1])), [2, WIDTH]);
  return layer.forward(x);
}

type Tree = Kind | Tree[];

/** Its parts hang under a, b, c; a layer under its kind. */
class Node extends nn.Module {
  readonly parts: Map<string, Node>;
  readonly layer: Map<Kind, nn.Layer>;
  constructor(tree: Tree) {
    super();
    this.parts = new Map(typeof tree === "string" ? [] : tree.map((part, i) => ["abc"[i]!, new Node(part)]));
    this.layer = new Map(typeof tree === "string" ? [[tree, layerOf(tree)]] : []);
  }
  forward(x: Tensor): Tensor {
    for (const [kind, layer] of this.layer) return run(kind, layer, x);
    return [...this.parts.values()].reduce((y, part) => ops.add(y, part.forward(y)), x);
  }
}

const tree: fc.Arbitrary<Tree> = fc.letrec<{ tree: Tree; branch: Tree[] }>((tie) => ({
  branch: fc.array(tie("tree"), { minLength: 1, maxLength: 3 }),
  tree: fc.oneof({ maxDepth: 2 }, fc.constantFrom(...KINDS), tie("branch")),
})).branch;

function kindsOf(tree: Tree): Kind[] {
  return typeof tree === "string" ? [tree] : [...new Set(tree.flatMap(kindsOf))];
}

type Config = Partial<peft.LoraConfig>;
const config = (kinds: Kind[]): fc.Arbitrary<Config> =>
  fc.record({
    r: fc.constantFrom(2, 4),
    loraAlpha: fc.integer({ min: 1, max: 9 }),
    useRslora: fc.boolean(),
    useDora: fc.boolean(),
    targetModules: fc.oneof(
      fc.subarray(kinds, { minLength: 1 }),
      fc.constantFrom(
        "all-linear",
        "all-linear",
        ".*(linear|embedding)",
        "parts\\.[ab]\\..*\\.(conv1d|grouped|convolution)",
      ),
    ),
    modulesToSave: fc.constantFrom(
      null,
      null,
      kinds.filter((kind) => kind === "norm"),
      kinds.filter((kind) => kind === "norm" || kind === "linear"),
    ),
    bias: fc.constantFrom("none" as const, "none" as const, "all" as const, "lora_only" as const),
    initLoraWeights: fc.constantFrom(
      true,
      true,
      false,
      "gaussian" as const,
      "orthogonal" as const,
      "pissa" as const,
      "olora" as const,
    ),
    rankPattern: fc.constantFrom<Record<string, number>>({}, {}, { "(?:.*\\.)?layer\\..*": 2 }, { linear: 2 }),
    alphaPattern: fc.constantFrom<Record<string, number>>({}, {}, { ".*": 2.5 }, { conv1d: 3 }),
  });

/** Without history, each alone. */
function compute(fn: () => Tensor): Float32Array {
  return noGrad(() => scope(() => fn().data.slice()));
}

function outputs(model: Node): Float32Array {
  return compute(() => model.forward(grid([2, WIDTH], 1, false)));
}

/** What each adapted layer makes of the same input. */
function layerOutputs(adapted: peft.LoraModel<Node>): [string, Float32Array][] {
  return layersOf(adapted).map(({ path, layer }) => [
    path,
    compute(() => run(path.split(".").at(-1) as Kind, layer, grid([2, WIDTH], 2, false))),
  ]);
}

/** Whether it succeeded; a refusal must leave model and memory as they were. */
function attempt(model: nn.Module, step: () => unknown): boolean {
  const before = values(model);
  const trains = trainable(model);
  const live = memoryStats().liveBytes;
  try {
    step();
    return true;
  } catch (error) {
    if (!(error instanceof WasmLoraError)) throw error;
    assertValues("refused", model, before);
    assert.deepEqual([trainable(model), memoryStats().liveBytes], [trains, live]);
    return false;
  }
}

/** Two adapters; as a rule the second can stand beside the first. */
const scenario = tree.chain((shape) =>
  fc.tuple(
    fc.constant(shape),
    config(kindsOf(shape)),
    fc.oneof(
      config(kindsOf(shape)),
      config(kindsOf(shape)).map((c): Config => ({ ...c, bias: "none", initLoraWeights: true, modulesToSave: null })),
    ),
  ),
);

const reached = { adapted: 0, read: 0, two: 0, merged: 0 };

test("property: wrap, train, write, read, merge, unmerge, unwrap", () => {
  fc.assert(
    fc.property(scenario, ([shape, first, second]) => {
      const empty = memoryStats().liveBytes;
      const model = new Node(shape);
      const base = values(model);
      const plain = outputs(model);
      const live = memoryStats().liveBytes;
      const adapted = new peft.LoraModel(model);
      if (attempt(adapted, () => adapted.addAdapter("default", first))) {
        reached.adapted++;
        train(adapted, "default", 3);
        if (attempt(adapted, () => adapted.savePretrained(at("first")))) {
          reached.read++;
          const copy = new Node(shape);
          for (const [key, p] of copy.namedParameters()) p.set(base.get(key)!);
          const again = peft.LoraModel.fromPretrained(copy, at("first"));
          if (
            adapted.config("default").initLoraWeights === "pissa" ||
            adapted.config("default").initLoraWeights === "olora"
          ) {
            layerOutputs(again).forEach(([path, y], i) => assertClose(path, y, layerOutputs(adapted)[i]![1]));
          } else assertBits("read", outputs(copy), outputs(model));
          again.savePretrained(at("second"));
          assertSameFolder("written again", at("first"), at("second"));
          again.dispose();
        }
        if (attempt(adapted, () => adapted.addAdapter("second", second))) {
          train(adapted, "second", 4);
          if (attempt(adapted, () => adapted.setAdapter(["default", "second"]))) reached.two++;
        }
        const before = values(adapted);
        const apart = layerOutputs(adapted);
        if (attempt(adapted, () => adapted.mergeAdapter(undefined, { safeMerge: true }))) {
          reached.merged++;
          layerOutputs(adapted).forEach(([path, y], i) => assertClose(path, y, apart[i]![1]));
          assertBits(
            "disabled",
            adapted.disableAdapter(() => outputs(model)),
            plain,
          );
          adapted.unmergeAdapter();
        }
        assertValues("unmerged", adapted, before);
      }
      adapted.unload();
      assertValues("unwrapped", model, base);
      assert.equal(memoryStats().liveBytes, live);
      model.dispose();
      assert.equal(memoryStats().liveBytes, empty);
    }),
    { numRuns: 200, ...LIMITS },
  );
  assert(
    Object.values(reached).every((count) => count > 5),
    JSON.stringify(reached),
  );
});

test.run();

/** What optimisers take, count, keep and refuse; steps against torch's formulas in float64. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  DisposedError,
  FormatError,
  full,
  init,
  lora,
  memoryStats,
  nn,
  ops,
  optim,
  OutOfMemoryError,
  peft,
  ShapeError,
  tensor,
  zeros,
  type Tensor,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { assertBits } from "../../support/golden.js";
import { layersOf } from "../../support/peft.js";

await init();

const param = (...values: number[]): nn.Parameter => new nn.Parameter([values.length]).set(values);
/** Lets a parameter have this gradient. */
function grad(p: nn.Parameter, ...values: number[]): void {
  p.grad?.dispose();
  p.grad = new nn.Parameter([values.length]).set(values);
}
const near = (got: number, expected: number, tolerance = 2e-6): void =>
  assert(Math.abs(got - expected) <= tolerance * Math.max(1, Math.abs(expected)), `got ${got}, expected ${expected}`);

/** torch's Adam (l2) and AdamW (decay) of one value in float64. */
function adam(
  value: number,
  grads: readonly number[],
  { lr = 1e-3, betas: [b1, b2] = [0.9, 0.999], eps = 1e-8, weightDecay = 0, decoupled = true } = {},
): number {
  let m = 0;
  let v = 0;
  for (const [i, raw] of grads.entries()) {
    const t = i + 1;
    const g = decoupled ? raw : raw + weightDecay * value;
    if (decoupled) value *= 1 - lr * weightDecay;
    m = b1 * m + (1 - b1) * g;
    v = b2 * v + (1 - b2) * g * g;
    value -= (lr * (m / (1 - b1 ** t))) / (Math.sqrt(v / (1 - b2 ** t)) + eps);
  }
  return value;
}

for (const [name, make, decoupled] of [
  ["Adam", optim.Adam, false],
  ["AdamW", optim.AdamW, true],
] as const) {
  test(`${name}: a parameter's corrections count from its own first gradient, whatever the others did`, () => {
    const early = param(1);
    const late = param(1);
    const rare = param(1);
    const options = { lr: 0.05, weightDecay: 0.1 };
    const optimizer = new make([early, late, rare], options);
    const grads = new Map<nn.Parameter, number[]>([
      [early, []],
      [late, []],
      [rare, []],
    ]);
    for (let step = 0; step < 40; step++) {
      for (const [p, every, from] of [
        [early, 1, 0],
        [late, 1, 20],
        [rare, 7, 3],
      ] as const) {
        if (step < from || step % every !== 0) continue;
        const g = Math.fround(Math.cos(step) - 0.3);
        grad(p, g);
        grads.get(p)!.push(g);
      }
      optimizer.step();
      optimizer.zeroGrad();
    }
    for (const [p, list] of grads) near(p.item(), adam(1, list, { ...options, decoupled }));
    const state = optimizer.stateDict();
    const counts = [0, 1, 2].map((i) => state.get(`${i}.step`)!.data[0]);
    assert.deepEqual([...counts, optimizer.steps], [40, 20, 5, 40]);
    optimizer.dispose();
  });
}

test("Adam: a new parameter's first step is lr, also under another name of the class", () => {
  for (const make of [optim.Adam, optim.AdamW]) {
    const a = param(2);
    const b = param(2);
    const optimizer = new make([a, b], { lr: 0.25, weightDecay: 0, eps: 1e-12 });
    for (let i = 0; i < 30; i++) {
      grad(a, 3);
      optimizer.step();
    }
    grad(b, -3);
    optimizer.step();
    near(b.item(), 2.25);
    optimizer.dispose();
  }
});

test("SGD: momentum starts with a parameter's own first gradient, and when it is switched on", () => {
  const a = param(0);
  const b = param(0);
  const optimizer = new optim.SGD([a, b], { lr: 1, momentum: 0.5 });
  grad(a, 1);
  optimizer.step(); // buffer 1
  grad(a, 1);
  grad(b, 4);
  optimizer.step(); // 1.5; 4
  assert.deepEqual([a.item(), b.item()], [-2.5, -4]);
  optimizer.dispose();

  const c = param(0);
  const plain = new optim.SGD([c], { lr: 1 });
  grad(c, 2);
  plain.step();
  plain.paramGroups[0]!.momentum = 0.5;
  plain.step(); // the buffer begins as the gradient
  plain.step(); // 0.5 * 2 + 2
  assert.equal(c.item(), -7);
  plain.dispose();
});

test("adapters that are switched in the middle train as each alone", () => {
  class Net extends nn.Module {
    fc = new nn.Linear(3, 3, { bias: false });
  }
  const x = tensor([[1, -2, 0.5]]);
  const train = (order: readonly string[]): Map<string, Float32Array> => {
    const net = new Net();
    net.fc.weight.data.fill(0.1);
    const model = peft.getLoraModel(net, { r: 1, targetModules: ["fc"] }, "a");
    model.addAdapter("b", { r: 1, targetModules: ["fc"] });
    for (const [key, p] of model.namedParameters())
      if (key.includes("lora_")) for (let i = 0; i < p.size; i++) p.data[i] = (i + 1) / 5;
    const factors = [...model.namedParameters()].filter(([key]) => key.includes("lora_"));
    const optimizer = new optim.AdamW(
      factors.map(([, p]) => p),
      { lr: 0.1 },
    );
    for (const name of order) {
      model.setAdapter(name);
      ops.sum(ops.mul(net.fc.forward(x), net.fc.forward(x))).backward();
      optimizer.step();
      optimizer.zeroGrad();
    }
    return new Map(factors.map(([key, p]) => [key, p.data.slice()]));
  };
  const both = train(["a", "a", "b", "a", "b"]);
  const a = train(["a", "a", "a"]);
  const b = train(["b", "b"]);
  for (const [key, v] of both) assertBits(key, v, (key.includes(".a.") ? a : b).get(key)!);
});

test("addParamGroup: torch's defaults, its own options, counts of its own; wrong groups change nothing", () => {
  const a = param(1);
  const b = param(1);
  const optimizer = new optim.AdamW([a], { lr: 0.1, weightDecay: 0, betas: [0.8, 0.9] });
  for (let i = 0; i < 5; i++) {
    grad(a, 1);
    optimizer.step();
  }
  const c = param(1);
  for (const [group, words] of [
    [{ params: [a] }, ["two groups"]],
    [{ params: [c, c] }, ["twice"]],
    [{ params: [c], lr: -1 }, ["lr", "-1"]],
    [{ params: [c], learning_rate: 1 }, ["learning_rate", "lr"]],
    [[c], ["group must be"]],
    [c, ["group"]],
    [undefined, ["group", "undefined"]],
    [{ lr: 1 }, ["params"]],
    [{ params: c }, ["list"]],
    [{ params: [3] }, ["params[0]", "3"]],
    [{ params: new nn.Linear(1, 1) }, ["model.parameters()"]],
    [{ params: [ops.scale(c, 2)] }, ["computed by an op"]],
    [{ params: [zeros([1], "int32")] }, ["int32"]],
  ] as [optim.ParamGroup<optim.AdamOptions>, string[]][]) {
    assert.throws(
      () => optimizer.addParamGroup(group),
      (e: Error) => e instanceof ArgumentError && ["AdamW", ...words].every((w) => e.message.includes(w)),
      words.join(),
    );
  }
  assert.equal(optimizer.paramGroups.length, 1);
  optimizer.addParamGroup({ params: new Set([b]), lr: 0.5 });
  assert.deepEqual(
    optimizer.paramGroups.map(({ lr, betas, weightDecay, eps }) => [lr, betas, weightDecay, eps]),
    [
      [0.1, [0.8, 0.9], 0, 1e-8],
      [0.5, [0.8, 0.9], 0, 1e-8],
    ],
  );
  grad(b, 2);
  optimizer.step();
  near(b.item(), 0.5);
  assert.deepEqual(
    [...optimizer.stateDict().keys()],
    ["0.step", "0.expAvg", "0.expAvgSq", "1.step", "1.expAvg", "1.expAvgSq"],
  );
  optimizer.dispose();

  const sgd = new optim.SGD([a], { lr: 1 });
  sgd.addParamGroup({ params: [b], momentum: 0.9 });
  assert.deepEqual(
    sgd.paramGroups.map((g) => g.momentum),
    [0, 0.9],
  );
});

test("LoRA-FA: a group of a new adapter has its A frozen and its B projected", () => {
  class Net extends nn.Module {
    fc = new nn.Linear(4, 3, { bias: false });
  }
  const net = new Net();
  const model = peft.getLoraModel(net, { r: 2, targetModules: ["fc"] }, "a");
  const optimizer = new optim.LoraFA(model, { scaling: 1, lr: 0.1 });
  model.addAdapter("b", { r: 2, targetModules: ["fc"] });
  model.setAdapter("b");
  const { loraA, loraB } = layersOf(model, "b")[0]!.layer.adapters.get("b")!;
  optimizer.addParamGroup({ params: [loraB] });
  assert.equal(loraA.requiresGrad, false);
  // A with orthogonal rows of length 2: (A A^T)^-1 = I / 4.
  loraA.set([2, 0, 0, 0, 0, 2, 0, 0]);
  loraB.grad = tensor([
    [1, 0],
    [0, 2],
    [1, 1],
  ]).keep();
  optimizer.step();
  const state = optimizer.stateDict().get("1.expAvg")!.data;
  for (const [i, g] of [1, 0, 0, 2, 1, 1].entries()) near(state[i]!, (0.1 * g) / 4, 1e-6);
  optimizer.dispose();
});

test("what optimisers take for parameters: any iterable of them, or of groups; the rest says what to write", () => {
  const model = new nn.Linear(2, 2);
  const list = model.parameters();
  function* generated(): Generator<nn.Parameter> {
    yield* list;
  }
  for (const make of [optim.SGD, optim.Adam, optim.AdamW]) {
    const { name } = make;
    for (const params of [
      list,
      new Set(list),
      generated(),
      new Map(model.namedParameters()).values(),
      [{ params: new Set(list) }],
      new Set([{ params: list }]),
    ]) {
      assert.deepEqual(new make(params as Iterable<nn.Parameter>).paramGroups[0]!.params, list);
    }
    const frozen = Object.assign(param(1), { requiresGrad: false });
    assert.deepEqual(new make([frozen]).paramGroups[0]!.params, [frozen]);
    const disposed = param(1);
    disposed.dispose();
    assert.throws(() => new make([disposed]), DisposedError);
    for (const [params, word] of [
      [model, "model.parameters()"],
      [model.namedParameters(), "model.parameters()"],
      [new Map(model.namedParameters()), "got a Map"],
      [model.weight, "[...]"],
      [undefined, "undefined"],
      [null, "null"],
      [3, "3"],
      ["params", "params"],
      [[undefined], "params[0]"],
      [[model.weight, null], "params[1]"],
      [[{ params: list }, model.weight], "do not mix"],
      [[[model.weight]], "params[0]"],
    ] as [Iterable<nn.Parameter>, string][]) {
      assert.throws(
        () => new make(params),
        (e: Error) => e instanceof ArgumentError && e.message.startsWith(name) && e.message.includes(word),
        `${name}: ${word}`,
      );
    }
    for (const [options, word] of [
      [0.1, "number 0.1"],
      [{ learningRate: 1 }, "Did you mean lr"],
      [{ weight_decay: 0 }, "Did you mean weightDecay"],
      [{ LR: 1 }, "lr"],
      [null, "null"],
      [[0.1], "array"],
    ] as [object, string][]) {
      assert.throws(
        () => new make(list, options),
        (e: Error) => e instanceof ArgumentError && e.message.includes(word),
        word,
      );
    }
    assert.throws(() => new make([{ params: list, momentom: 1 } as unknown as { params: nn.Parameter[] }]), /momentom/);
    assert.equal(new make(list, { lr: undefined as unknown as number }).paramGroups[0]!.lr, 1e-3);
    const late = new make(list);
    Object.assign(late.paramGroups[0]!, { learningRate: 1 });
    assert.throws(() => late.step(), /learningRate/);
    assert.throws(() => optim.clipGradNorm_(model as unknown as nn.Parameter[], 1), /model\.parameters\(\)/);
  }
  assert.throws(
    () => new optim.SGD(list, { nesterov: 1 as unknown as boolean, momentum: 0.9 }),
    /nesterov must be true or false/,
  );
  for (const bad of [undefined, null, list]) {
    assert.throws(() => new optim.LoraFA(bad as unknown as nn.Module, { scaling: 1 }), ArgumentError);
    assert.throws(
      () => optim.loraPlusGroups(bad as unknown as nn.Module, { lr: 1, loraplusLrRatio: 1 }),
      ArgumentError,
    );
  }
  assert.throws(() => new optim.LoraFA(model, undefined as unknown as { scaling: number }), /scaling/);
  assert.throws(() => new optim.LoraFA(model, { scaling: 1, alpha: 2 } as { scaling: number }), /alpha/);
  assert.throws(
    () => optim.loraPlusGroups(model, { lr: 1, loraplus_lr_ratio: 16 } as unknown as optim.LoraPlusOptions),
    /Did you mean loraplusLrRatio/,
  );
  for (const make of [optim.constantSchedule, () => optim.linearSchedule(4), () => optim.cosineSchedule(4)]) {
    for (const step of [NaN, -1, 0.5, "1", undefined]) assert.throws(() => make()(step as number), ArgumentError);
  }
});

const makers: Record<string, (params: nn.Parameter[]) => optim.SGD | optim.Adam | optim.AdamW> = {
  SGD: (ps) => new optim.SGD(ps, { lr: 0.1 }),
  "SGD with momentum": (ps) => new optim.SGD(ps, { lr: 0.1, momentum: 0.9 }),
  Adam: (ps) => new optim.Adam(ps, { lr: 0.1 }),
  AdamW: (ps) => new optim.AdamW(ps, { lr: 0.1 }),
};

for (const [name, make] of Object.entries(makers)) {
  test(`${name}: what is not finite is refused by name before anything changes`, () => {
    const a = param(1, 2);
    const b = param(3, 4, 5);
    const optimizer = make([a, b]);
    grad(a, 1, 1);
    grad(b, 1, 1, 1);
    optimizer.step();
    const values = [a, b].map((p) => p.data.slice());
    const state = optimizer.stateDict();
    const blocks = memoryStats().blocks;
    const refused = (words: string[], error: new (...args: never[]) => Error = ArgumentError): void => {
      assert.throws(
        () => optimizer.step(),
        (e: Error) => e instanceof error && ["step", ...words].every((w) => e.message.includes(w)),
        words.join(),
      );
      for (const [i, p] of [a, b].entries()) assertBits(`parameter ${i}`, p.data, values[i]!);
      assert.deepEqual([optimizer.stateDict(), optimizer.steps, memoryStats().blocks], [state, 1, blocks]);
    };
    for (const bad of [NaN, Infinity, -Infinity]) {
      b.grad!.data[1] = bad;
      refused(["gradient of parameter 1", "[3]", "zeroGrad()"]);
    }
    b.grad!.data[1] = 1;
    optimizer.paramGroups[0]!.lr = 1e39;
    refused(["parameter 0", "[2]", "lr = 1e+39"]);
    optimizer.paramGroups[0]!.lr = 0.1;
    a.data[0] = NaN;
    values[0]![0] = NaN;
    refused(["parameter 0"]);
    a.data[0] = values[0]![0] = 1;
    const { grad: right } = b;
    b.grad = zeros([4]);
    assert.throws(() => optimizer.step(), ShapeError);
    assert.throws(() => optim.clipGradNorm_([a, b], 1), ShapeError);
    b.grad.dispose();
    b.grad = right;
    optimizer.step();
    optimizer.dispose();
  });
}

test("Adam: a gradient whose square overflows, and would stop its parameter, is refused; others are taken", () => {
  for (const make of [optim.Adam, optim.AdamW]) {
    const p = new nn.Parameter([5000]);
    const optimizer = new make([p], { lr: 0.1, weightDecay: 0 });
    p.data.fill(0);
    p.grad = full([5000], 0).keep();
    p.grad.data[4999] = 1e30;
    assert.throws(
      () => optimizer.step(),
      (e: Error) =>
        e instanceof ArgumentError && /parameter 0 of shape \[5000\].*not finite.*clipGradNorm_/.test(e.message),
    );
    assert.deepEqual([optimizer.steps, optimizer.stateDict().size], [0, 0]);
    // The norm's square overflows, no value's does.
    p.grad.data.fill(1e19);
    optimizer.step();
    near(p.data[17]!, -0.1);
    optimizer.dispose();
  }
  const p = param(1, 1);
  const zero = new optim.Adam([p], { eps: 0 });
  grad(p, 1, 0);
  assert.throws(() => zero.step(), ArgumentError); // 0 / 0
  grad(p, 1, 1);
  zero.step();
});

test("weights at the edge of float32 are still weights", () => {
  const p = param(3e38);
  const optimizer = new optim.SGD([p], { lr: 1 });
  grad(p, 1e30);
  optimizer.step();
  assert(Math.abs(p.item() - 3e38) < 1e32);
  grad(p, -3e38);
  assert.throws(() => optimizer.step(), ArgumentError);
  assert(p.item() < 3.1e38);
});

test("LoRA-FA: a projected gradient that overflows is refused", () => {
  const model = new lora.Linear(4, 4, { r: 2 });
  lora.markOnlyLoraAsTrainable(model);
  const optimizer = new optim.LoraFA(model, { scaling: 1e-20 });
  model.loraB!.grad = full([4, 2], 1).keep();
  assert.throws(
    () => optimizer.step(),
    (e: Error) => e instanceof ArgumentError && /LoraFA\.step: parameter 0 of shape \[4,2\]/.test(e.message),
  );
  assert.deepEqual([...model.loraB!.data], new Array(8).fill(0));
});

test("state dicts: the next step has the same bits; older ones without counts are taken; all or nothing", () => {
  for (const make of [optim.Adam, optim.AdamW]) {
    const build = (): [nn.Parameter[], optim.Adam | optim.AdamW] => {
      const ps = [param(1, 2), param(3), param(4)];
      return [ps, new make([{ params: ps.slice(0, 2) }, { params: ps.slice(2), betas: [0.5, 0.7] }], { lr: 0.1 })];
    };
    const [[a, b, c], first] = build() as [[nn.Parameter, nn.Parameter, nn.Parameter], optim.AdamW];
    for (let i = 0; i < 4; i++) {
      grad(a, 1, -i);
      if (i > 1) grad(b, 2);
      first.step();
      first.zeroGrad();
    }
    const [others, second] = build();
    for (const [i, p] of [a, b, c].entries()) others[i]!.set(p.data);
    // What it had before is replaced, also for a parameter that the state does not know.
    grad(others[2]!, 5);
    second.step();
    second.zeroGrad();
    others[2]!.set(c.data);
    const state = first.stateDict();
    second.loadStateDict(Object.fromEntries(state), first.steps);
    assert.deepEqual([second.stateDict(), second.steps], [state, 4]);
    for (const ps of [[a, b, c], others]) {
      grad(ps[0]!, 1, 1);
      grad(ps[1]!, 1);
      grad(ps[2]!, 1);
    }
    first.step();
    second.step();
    for (const [i, p] of [a, b, c].entries()) assertBits(`parameter ${i}`, others[i]!.data, p.data);

    const [old, third] = build();
    third.loadStateDict(new Map([...state].filter(([key]) => !key.endsWith(".step"))), 4);
    assert.deepEqual(
      [
        third.stateDict().get("0.step")!.data[0],
        third.stateDict().get("1.step")!.data[0],
        third.stateDict().has("2.step"),
      ],
      [4, 4, false],
    );
    third.loadStateDict(new Map(), 0);
    assert.equal(third.stateDict().size, 0);

    const entry = (shape: number[], fill = 0.5): nn.StateEntry => ({
      shape,
      data: new Float32Array(shape.reduce((n, d) => n * d, 1)).fill(fill),
    });
    third.loadStateDict(state, 4);
    const held = third.stateDict();
    const [, fourth] = build();
    const blocks = memoryStats().blocks;
    for (const [changes, steps, error] of [
      [{ "0.step": entry([], 1.5) }, 4, FormatError],
      [{ "0.step": entry([], -1) }, 4, FormatError],
      [{ "0.step": entry([], NaN) }, 4, FormatError],
      [{ "0.step": entry([], 3e9) }, 4, FormatError],
      [{ "0.step": entry([2]) }, 4, FormatError],
      [{ "0.expAvg": entry([2], NaN) }, 4, FormatError],
      [{ "0.expAvgSq": entry([2], Infinity) }, 4, FormatError],
      [{ "2.expAvg": entry([1]) }, 4, FormatError],
      [{ "3.expAvg": entry([1]) }, 4, FormatError],
      [{}, 2 ** 53, ArgumentError],
      [{}, "4", ArgumentError],
      [{ "0.expAvg": null }, 4, ArgumentError],
    ] as [Record<string, nn.StateEntry>, number, new (...args: never[]) => Error][]) {
      assert.throws(
        () => third.loadStateDict({ ...Object.fromEntries(state), ...changes }, steps),
        error,
        JSON.stringify(changes),
      );
      assert.deepEqual([third.stateDict(), third.steps, memoryStats().blocks], [held, 4, blocks]);
    }
    for (const wrong of [undefined, null, [], "x"])
      assert.throws(() => third.loadStateDict(wrong as unknown as nn.StateDict, 1), ArgumentError);

    const { memory } = engine();
    const alloc = memory.alloc.bind(memory);
    for (let at = 0; at < 4; at++) {
      let count = 0;
      memory.alloc = (n) => {
        if (count++ === at) throw new OutOfMemoryError(n, 0, 0);
        return alloc(n);
      };
      assert.throws(() => fourth.loadStateDict(state, 4), OutOfMemoryError);
      memory.alloc = alloc;
      assert.deepEqual([fourth.stateDict().size, fourth.steps, memoryStats().blocks], [0, 0, blocks]);
    }
    for (const o of [first, second, third, fourth]) o.dispose();
    assert(old.length === 3);
  }
});

test("an own count of two thousand million steps is read in no time", () => {
  const p = param(1);
  const optimizer = new optim.AdamW([p]);
  const entry: nn.StateEntry = { shape: [1], data: Float32Array.of(0.5) };
  optimizer.loadStateDict({ "0.expAvg": entry, "0.expAvgSq": entry }, 2 ** 31);
  grad(p, 1);
  optimizer.step();
  // Corrections are 1 by then.
  near(p.item(), 1 - 1e-3 * 0.01 - (1e-3 * (0.9 * 0.5 + 0.1)) / Math.sqrt(0.999 * 0.5 + 0.001));
});

test("a gradient that a caller put there is checked before backward adds to it", () => {
  const p = param(1, 2, 3);
  const wrong: Tensor = zeros([2]);
  p.grad = wrong;
  assert.throws(() => ops.sum(ops.mul(p, p)).backward(), ShapeError);
  assert.deepEqual([...wrong.data], [0, 0]);
});

test.run();

/**
 * Refusals that guard gradients and memory on rare paths: stale graphs, half-loaded states, allocation that fails
 * inside an op.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  DisposedError,
  DTypeError,
  FormatError,
  full,
  init,
  lora,
  memoryStats,
  nn,
  ops,
  optim,
  OutOfMemoryError,
  scope,
  ShapeError,
  type Tensor,
  tensor,
  WasmLoraError,
  zeros,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { LinearMemory } from "../../../src/runtime/memory.js";
import { assertBits } from "../../support/golden.js";
import { fillBut } from "../../support/memory.js";
import { causalAttention, positionsFrom, ropeTable } from "../../support/attention.js";

await init({ maximumBytes: 64 * 65536 });
new nn.Linear(1, 1).dispose();

const live = (): number => memoryStats().liveBytes;
function refuses(error: new (...args: never[]) => WasmLoraError, fn: () => unknown): void {
  const before = live();
  assert.throws(fn, error);
  assert.equal(live(), before, "memory leaked");
}

test("lora.Embedding checks its options before it allocates", () => {
  refuses(ArgumentError, () => new lora.Embedding(10, 4, { r: -1 }));
});

test("reshape refuses negative and fractional dimensions whose product fits", () => {
  const x = zeros([2, 3]);
  for (const shape of [[-2, -3], [1.5, 4], [-6], [NaN]]) refuses(ShapeError, () => ops.reshape(x, shape));
  x.dispose();
});

test("rope refuses a position that the table has not, and a dead table", () => {
  const table = ropeTable(4, 2, 10);
  const x = zeros([1, 2, 1, 2]);
  const row = positionsFrom(0, 1, 2);
  for (const first of [-1, 3, -100000]) {
    const positions = positionsFrom(first, 1, 2);
    refuses(ArgumentError, () => ops.rope(x, table, positions));
    positions.dispose();
  }
  table.sin.dispose();
  refuses(DisposedError, () => ops.rope(x, table, row));
  row.dispose();
  table.cos.dispose();
  x.dispose();
});

test("a graph that backward consumed cannot be walked through a second loss", () => {
  const w = tensor([2]);
  w.requiresGrad = true;
  const clear = (): void => {
    w.grad?.dispose();
    w.grad = null;
  };
  for (const keep of [false, true]) {
    refuses(WasmLoraError, () =>
      scope(() => {
        const h = ops.mul(w, w);
        if (keep) h.keep();
        try {
          const first = ops.sum(h);
          const second = ops.sum(ops.add(h, h));
          first.backward();
          clear();
          second.backward();
        } finally {
          clear();
          h.dispose();
        }
      }),
    );
  }
  w.dispose();
});

test("an activation disposed before backward is an error, not a missing gradient", () => {
  const w = tensor([2]);
  w.requiresGrad = true;
  refuses(DisposedError, () =>
    scope(() => {
      const h = ops.mul(w, w);
      const loss = ops.sum(h);
      h.dispose();
      loss.backward();
    }),
  );
  w.dispose();
});

test("an input whose requiresGrad is switched off before backward gets nothing, nor does address 0", () => {
  const { memory } = engine();
  const below = (): Uint8Array => memory.u8(0, 4096).slice();
  const single: Record<string, (x: Tensor) => Tensor> = {
    scale: (x) => ops.scale(x, 2),
    reshape: (x) => ops.reshape(x, [16]),
    sum: ops.sum,
    narrow: (x) => ops.narrow(x, 0, 1, 2),
    relu: ops.relu,
    gelu: ops.gelu,
    dropout: (x) => ops.dropout(x, 0.5),
    crossEntropy: (x) => ops.crossEntropy(x, tensor(new Int32Array([0, 1, 2, 3]))),
  };
  for (const [name, op] of Object.entries(single)) {
    scope(() => {
      const x = full([4, 4], 3);
      const before = below();
      x.requiresGrad = true;
      const loss = ops.sum(op(x));
      x.requiresGrad = false;
      loss.backward();
      assert.equal(x.grad, null, name);
      assert.deepEqual(below(), before, `${name} wrote through a null pointer`);
    });
  }
});

test("loadStateDict checks every entry's data before it changes anything", () => {
  const layer = new nn.Linear(2, 2);
  const weight = layer.weight.data.slice();
  const state = layer.stateDict();
  state.set("weight", { shape: [2, 2], data: new Float32Array([9, 9, 9, 9]) });
  state.set("bias", { shape: [2], data: new Float32Array(1) });
  refuses(ShapeError, () => layer.loadStateDict(state));
  assertBits("weight", layer.weight.data, weight);
  layer.dispose();
});

test("an optimiser's loadStateDict changes nothing if anything is wrong", () => {
  const layer = new nn.Linear(2, 2);
  const optimizer = new optim.AdamW(layer.parameters());
  const entry = (shape: number[]): nn.StateEntry => ({
    shape,
    data: new Float32Array(shape.reduce((n, d) => n * d, 1)),
  });
  const good: [string, nn.StateEntry] = ["0.expAvg", entry([2, 2])];
  refuses(FormatError, () => optimizer.loadStateDict(new Map([good, ["7.expAvg", entry([2])]]), 3));
  refuses(FormatError, () => optimizer.loadStateDict(new Map([["0.nonsense", entry([2, 2])]]), 3));
  for (const steps of [NaN, -1, 1.5]) refuses(ArgumentError, () => optimizer.loadStateDict(new Map([good]), steps));
  assert.equal(optimizer.stateDict().size, 0);
  optimizer.dispose();
  layer.dispose();
});

test("factors that are no tensors, a NaN scaling, one beta alone", () => {
  const x = zeros([2, 3]);
  const layer = new nn.Linear(3, 3);
  refuses(DTypeError, () =>
    ops.linear(x, x, null, [{ loraA: null as unknown as Tensor, loraB: x, scaling: 1, mask: null }]),
  );
  refuses(ArgumentError, () =>
    scope(() =>
      ops.linear(x, layer.weight, null, [{ loraA: zeros([1, 3]), loraB: zeros([3, 1]), scaling: NaN, mask: null }]),
    ),
  );
  refuses(ArgumentError, () => new optim.AdamW(layer.parameters(), { betas: [0.9] as unknown as [number, number] }));
  x.dispose();
  layer.dispose();
});

test("memory that runs out between two allocations of one op leaves nothing behind", () => {
  const x = zeros([64, 256]);
  const weight = zeros([2, 256]);
  const loraA = zeros([1, 256]);
  const loraB = zeros([2, 1]);
  const empty = fillBut(4096); // y and the branch fit, the masked copy of x does not
  try {
    refuses(OutOfMemoryError, () =>
      ops.linear(x, weight, null, [{ loraA, loraB, scaling: 1, mask: { p: 0.5, seed: 1, stream: 0 } }]),
    );
  } finally {
    empty();
    for (const t of [x, weight, loraA, loraB]) t.dispose();
  }
});

test("memory that runs out in a convolution leaves nothing behind, forward and backward", () => {
  const x = zeros([64, 4, 8, 8]);
  const weight = zeros([2, 4, 8, 8]);
  const loraA = zeros([1, 4, 8, 8]);
  const loraB = zeros([2, 1, 1, 1]);
  x.requiresGrad = loraA.requiresGrad = true;
  const branch = { loraA, loraB, scaling: 1, mask: { p: 0.5, seed: 1, stream: 0 } };
  try {
    const empty = fillBut(4096); // y and h fit, the panel of 256 x 16 floats does not
    try {
      refuses(OutOfMemoryError, () => ops.conv(x, weight, null, {}, [branch]));
    } finally {
      empty();
    }
    const before = live();
    scope(() => {
      const loss = ops.sum(ops.conv(x, weight, null, {}, [branch]));
      const refill = fillBut(x.size * 4 + 70000); // dx fits, the masked copies of x do not
      assert.throws(() => loss.backward(), OutOfMemoryError);
      refill();
    });
    x.grad?.dispose();
    x.grad = null;
    assert.equal(live(), before);
  } finally {
    for (const t of [x, weight, loraA, loraB]) t.dispose();
  }
});

test("memory that runs out in backward gives its working space back", () => {
  const q = zeros([1, 2000, 1, 1]);
  q.requiresGrad = true;
  const before = live();
  scope(() => {
    const loss = ops.sum(causalAttention(q, q, q));
    // One of the two buffers of probabilities fits.
    const empty = fillBut(engine().kernels.attentionProbsBytes(2000) + 20000);
    assert.throws(() => loss.backward(), OutOfMemoryError);
    empty();
  });
  q.grad?.dispose();
  q.grad = null;
  assert.equal(live(), before);
  q.dispose();
});

test("a request near 4 GiB is refused like any other", () => {
  const memory = new LinearMemory(new WebAssembly.Memory({ initial: 2 }), 1024);
  for (const bytes of [2 ** 32 - 128, 2 ** 32 - 64, 2 ** 32])
    assert.throws(() => memory.alloc(bytes), OutOfMemoryError);
});

test.run();

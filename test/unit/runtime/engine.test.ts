/**
 * The engine's life (init, limits, traps, close) and its allocator against a model. Ends engines, so it is a file of
 * its own.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  DisposedError,
  EngineError,
  init,
  lora,
  manualSeed,
  memoryStats,
  ops,
  OutOfMemoryError,
  scope,
  StateError,
  tensor,
  zeros,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { LinearMemory } from "../../../src/runtime/memory.js";
import { gridTensor as grid } from "../../support/gradcheck.js";
import { stream } from "../../support/random.js";

const PAGE = 65536;
const LIMIT = 64 * PAGE;

/* The tests below run in order: each leaves the engine that the next one needs. */

test("before init() every use says so", () => {
  for (const use of [() => tensor([1]), () => zeros([2]), () => memoryStats(), () => new lora.Linear(2, 2)]) {
    assert.throws(
      use,
      (e: Error) => e instanceof EngineError && e.code === "ERR_ENGINE" && e.message.includes("await init()"),
    );
  }
});

test("init refuses a maximumBytes that is no number of at least ten pages", async () => {
  for (const maximumBytes of [NaN, -1, 0, 1000, 9 * PAGE, Infinity]) {
    await assert.rejects(
      init({ maximumBytes }),
      (e: Error) =>
        e instanceof ArgumentError &&
        e.message.includes("maximumBytes") &&
        e.message.includes(`${10 * PAGE}`) &&
        e.message.includes(`${maximumBytes}`),
    );
  }
  assert.throws(() => memoryStats(), EngineError);
  const smallest = await init({ maximumBytes: 10 * PAGE });
  assert.deepEqual([...tensor([1, 2]).data], [1, 2]);
  smallest.close();
});

test("memory that cannot grow: OutOfMemoryError with its numbers, and nothing has changed", async () => {
  const created = await init({ maximumBytes: LIMIT });
  assert.equal(await init(), created, "while it lives there is one engine");
  for (const same of [
    {},
    undefined,
    { maximumBytes: LIMIT },
    { maximumBytes: LIMIT + 1, fused: false },
    { fused: undefined },
  ])
    assert.equal(await init(same as object), created);
  for (const [options, word] of [
    [{ maximumBytes: 2 * LIMIT }, "maximumBytes"],
    [{ maximumBytes: LIMIT, fused: true }, "fused"],
  ] as const) {
    await assert.rejects(
      init(options),
      (e: Error) => e instanceof StateError && e.message.includes(word) && e.message.includes("engine.close()"),
    );
  }
  for (const [options, word] of [
    [{ maximumBytes: NaN }, "NaN"],
    [{ maximumBytes: 1n }, "maximumBytes"],
    [{ maximumByte: LIMIT }, "Did you mean maximumBytes"],
    [{ fused: "yes" }, "fused"],
    [{ module: new Uint8Array(8) }, "WebAssembly.Module"],
    ["fused", "fused"],
    [null, "null"],
  ] as [object, string][]) {
    await assert.rejects(init(options), (e: Error) => e instanceof ArgumentError && e.message.includes(word), word);
  }
  assert.equal(created.alive, true);
  manualSeed(1);
  const layer = new lora.Linear(16, 8, { r: 2 });
  const x = grid([4, 16], 1, false);
  const y = layer.forward(x);
  const expected = y.data.slice();
  y.dispose();
  const before = memoryStats();
  assert.throws(
    () => zeros([(2 * LIMIT) / 4]),
    (e: unknown) => {
      assert(e instanceof OutOfMemoryError);
      assert.deepEqual(
        [e.requested, e.live, e.limit, e.code],
        [2 * LIMIT, before.liveBytes, LIMIT, "ERR_OUT_OF_MEMORY"],
      );
      for (const n of [e.requested, e.live, e.limit]) assert(e.message.includes(String(n)));
      return true;
    },
  );
  assert.deepEqual(memoryStats(), before);

  // Piece by piece until it is full: the request that fails is the one that does not fit.
  scope(() => {
    const block = 4 * PAGE;
    assert.throws(
      () => {
        for (let i = 0; i < 100; i++) zeros([block / 4]);
      },
      (e: unknown) =>
        e instanceof OutOfMemoryError && e.requested === block && e.live > LIMIT - 2 * block && e.limit === LIMIT,
    );
    assert(memoryStats().reservedBytes <= LIMIT);
  });
  assert.equal(memoryStats().liveBytes, before.liveBytes);
  assert.equal(memoryStats().blocks, before.blocks);

  // A scope that fails in the middle of an op gives the op's pieces back.
  const wide = zeros([256, 1024]);
  const held = memoryStats().liveBytes;
  assert.throws(
    () =>
      scope(() => {
        for (let h = wide; ; ) h = ops.gelu(h);
      }),
    OutOfMemoryError,
  );
  assert.equal(memoryStats().liveBytes, held);
  wide.dispose();

  scope(() => {
    const again = layer.forward(x);
    assert.deepEqual(again.data, expected, "and the engine works as before");
    ops.sum(again).backward();
  });
  layer.dispose();
  x.dispose();
});

test("a trap poisons the engine; init() makes a new one; tensors of the old one are dead", async () => {
  const old = engine();
  const t = tensor([1, 2, 3]);
  const outside = 0xffff0000 | 0;
  assert.throws(
    () => old.kernels.sum(outside, 1024),
    (e: Error) =>
      e instanceof EngineError &&
      e.message.includes("sum trapped") &&
      e.message.includes("init()") &&
      e.cause instanceof WebAssembly.RuntimeError,
  );
  assert(!old.alive);
  for (const use of [
    () => engine(),
    () => tensor([1]),
    () => memoryStats(),
    () => t.data,
    () => old.kernels.sum(2048, 1),
  ]) {
    assert.throws(use, (e: Error) => e instanceof EngineError && e.message.includes("trapped"));
  }
  const fresh = await init();
  assert.notEqual(fresh, old);
  assert.deepEqual([...ops.add(tensor([1]), tensor([2])).data], [3]);
  assert.throws(
    () => t.data,
    (e: Error) => e instanceof DisposedError && e.message.includes("[3]"),
  );
  assert.throws(() => ops.sum(t), DisposedError);
  const before = memoryStats();
  t.dispose();
  assert.deepEqual(memoryStats(), before, "disposing a dead tensor touches nothing");
});

test("a view taken before memory grew is detached; a tensor hands out a fresh one", () => {
  const t = tensor([1, 2, 3]);
  const view = t.data;
  const { reservedBytes } = memoryStats();
  const big = zeros([(reservedBytes + 8 * PAGE - memoryStats().liveBytes) / 4]);
  assert(memoryStats().reservedBytes > reservedBytes);
  assert.equal(view.length, 0);
  assert.deepEqual([...t.data], [1, 2, 3]);
  big.dispose();
  t.dispose();
});

test("after close() everything is refused until init(); seeds mean the same in the new engine", async () => {
  manualSeed(5);
  const layer = new lora.Linear(8, 4, { r: 2 });
  const weight = layer.weight.data.slice();
  const t = tensor([1, 2]);
  const old = engine();
  old.close();
  for (const use of [() => tensor([1]), () => t.data, () => layer.weight.data]) {
    assert.throws(use, (e: Error) => e instanceof EngineError && e.message.includes("closed"));
  }
  await init();
  assert.notEqual(engine(), old);
  assert.throws(() => t.data, DisposedError);
  assert.throws(() => layer.forward(tensor(new Float32Array(8), [1, 8])), DisposedError);
  assert.throws(() => ops.add(tensor([1, 2]), t), DisposedError);
  t.dispose();
  layer.dispose();
  manualSeed(5);
  assert.deepEqual(new lora.Linear(8, 4, { r: 2 }).weight.data, weight);
});

/* The allocator alone, on a memory of its own. */

test("allocator: arguments", () => {
  const memory = new LinearMemory(new WebAssembly.Memory({ initial: 2, maximum: 64 }), 2000, LIMIT);
  for (const bytes of [-1, 1.5, NaN, Infinity])
    assert.throws(
      () => memory.alloc(bytes),
      (e: Error) => e instanceof ArgumentError && e.message.includes(`got ${bytes}`),
    );
  const a = memory.alloc(10);
  memory.free(a);
  for (const address of [a, a + 64, 0, NaN])
    assert.throws(
      () => memory.free(address),
      (e: Error) => e instanceof StateError && e.message.includes(`${address}`),
    );
  assert.deepEqual([memory.stats().liveBytes, memory.stats().blocks], [0, 0]);
});

test("allocator: a host that refuses to grow", () => {
  // The host's own maximum of 4 pages lies below the limit that the allocator believes in.
  const memory = new LinearMemory(new WebAssembly.Memory({ initial: 2, maximum: 4 }), 1024, LIMIT);
  const a = memory.alloc(1000);
  const before = memory.stats();
  assert.throws(
    () => memory.alloc(4 * PAGE),
    (e: unknown) => e instanceof OutOfMemoryError && e.requested === 4 * PAGE && e.live === before.liveBytes,
  );
  assert.deepEqual(memory.stats(), before);
  // Growth by an eighth more is refused, growth by what is needed is not.
  memory.free(memory.alloc(2 * PAGE));
  assert.equal(memory.stats().reservedBytes, 4 * PAGE);
  memory.free(a);
});

test("allocator: 20,000 random calls against a model", () => {
  const LIVE_LIMIT = 200;
  const memory = new LinearMemory(new WebAssembly.Memory({ initial: 2, maximum: 1024 }), 2000, 1024 * PAGE);
  const next = stream(1);
  const model = new Map<number, { bytes: number; stamp: number }>();
  const first = memory.alloc(0);
  memory.free(first);
  let peak = 64;
  const check = (address: number): void => {
    const { bytes, stamp } = model.get(address)!;
    if (bytes > 0)
      for (const at of [0, bytes >> 1, bytes - 1])
        assert.equal(memory.u8(address + at, 1)[0], stamp, `block at ${address} was overwritten at ${at}`);
  };
  for (let step = 0; step < 20000; step++) {
    if (model.size === 0 || (model.size < LIVE_LIMIT && next() < 0.55)) {
      // Sizes over five decades, zero included.
      const bytes = Math.floor(10 ** (next() * 5)) - 1;
      const address = memory.alloc(bytes);
      assert.equal(address % 64, 0);
      assert(
        address >= 2000 && address + bytes + 64 + PAGE <= memory.stats().reservedBytes,
        "spare bytes and the last page stay free",
      );
      const stamp = step & 255;
      assert(!model.has(address));
      memory.u8(address, bytes).fill(stamp);
      model.set(address, { bytes, stamp });
    } else {
      const victim = [...model.keys()][Math.floor(next() * model.size)]!;
      check(victim);
      memory.free(victim);
      model.delete(victim);
    }
    const live = [...model.values()].reduce((sum, { bytes }) => sum + Math.ceil(bytes / 64) * 64 + 64, 0);
    peak = Math.max(peak, live);
    const stats = memory.stats();
    assert.deepEqual([stats.liveBytes, stats.peakBytes, stats.blocks], [live, peak, model.size]);
    if (step % 500 === 0) {
      const sorted = [...model].sort(([a], [b]) => a - b);
      for (const [i, [address]] of sorted.entries()) {
        check(address);
        const before = sorted[i - 1];
        if (before) assert(before[0] + before[1].bytes + 64 <= address, "blocks overlap");
      }
    }
  }
  for (const address of model.keys()) memory.free(address);
  assert.deepEqual([memory.stats().liveBytes, memory.stats().blocks], [0, 0]);
  // All neighbours merged, the top is where it began: one block as large as everything fits without growth.
  const { reservedBytes } = memory.stats();
  assert.equal(memory.alloc(Math.floor((reservedBytes - PAGE - first) / 64) * 64 - 64), first);
  assert.equal(memory.stats().reservedBytes, reservedBytes);
});

test("allocator: what it reserves for a mixed load, and holes that do not fit cost nothing", () => {
  const memory = new LinearMemory(new WebAssembly.Memory({ initial: 2, maximum: 8192 }), 1024);
  const next = stream(7);
  const live: number[] = [];
  for (let i = 0; i < 60_000; i++) {
    if (live.length === 0 || next() < 0.5) {
      live.push(memory.alloc(Math.floor(10 ** (next() * 5))));
    } else {
      const victim = Math.floor(next() * live.length);
      const last = live.pop()!;
      memory.free(victim < live.length ? live[victim]! : last);
      if (victim < live.length) live[victim] = last;
    }
  }
  const { peakBytes, reservedBytes } = memory.stats();
  assert(reservedBytes < 1.5 * peakBytes, `${reservedBytes} reserved for ${peakBytes}`);

  // Holes that are too small by little, of one size and of many, in lists of one size and of several.
  for (const [hole, wanted] of [
    [64, 128],
    [4000, 4100],
    [100_000, 100_100],
  ] as const) {
    const heap = new LinearMemory(new WebAssembly.Memory({ initial: 2, maximum: 65536 }), 1024);
    const holes: number[] = [];
    const time = (count: number): number => {
      while (holes.length < count) {
        holes.push(heap.alloc(hole));
        heap.alloc(4);
      }
      for (const address of holes) heap.free(address);
      const start = performance.now();
      for (let i = 0; i < 2000; i++) heap.free(heap.alloc(wanted));
      const took = performance.now() - start;
      holes.length = 0;
      return took;
    };
    time(100);
    // Looking at each of them took 12 s.
    assert(time(hole > 50_000 ? 20_000 : 50_000) < 2000, `${hole}`);
  }
});

test("allocator: the block that fits best among a step's is taken, and any sufficient one is found", () => {
  const memory = new LinearMemory(new WebAssembly.Memory({ initial: 2, maximum: 64 }), 1024);
  const sizes = [128, 64, 6400, 6464, 12800, 130_000];
  const blocks = sizes.map((bytes) => {
    const at = memory.alloc(bytes);
    memory.alloc(0);
    return at;
  });
  for (const at of blocks) memory.free(at);
  const { reservedBytes } = memory.stats();
  assert.deepEqual(
    [6464, 64, 120, 6300, 12_000, 100_000].map((bytes) => memory.alloc(bytes)),
    [3, 1, 0, 2, 4, 5].map((i) => blocks[i]),
  );
  assert.equal(memory.stats().reservedBytes, reservedBytes);
});

test.run();

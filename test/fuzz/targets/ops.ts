/**
 * Calls of every op, forward and backward, while each block of linear memory stands between guards: whatever the
 * arguments, nothing but the tensors is written, and errors are the library's.
 */
import { nn, ops, scope, Tensor } from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import type { Random } from "../random.js";
import { must, type Target } from "../target.js";
import { built, changed, odd, t, UNDEFINED, type Value } from "../values.js";

interface Input {
  op: string;
  args: Value[];
}
type Recipe = (random: Random) => Value[];

const size = (random: Random): number =>
  random.once(20) ? 0 : random.once(12) ? random.pick([16, 17, 33]) : random.integer(1, 5);
/** A tensor that mostly wants a gradient. */
const g = (random: Random, ...shape: number[]): Value => t(shape, random.once(4) ? {} : { grad: true });
const lead = (random: Random): number[] => Array.from({ length: random.below(3) }, () => size(random));
const unary: Recipe = (random) => [g(random, ...lead(random), size(random))];
const binary: Recipe = (random) => {
  const shape = [...lead(random), size(random)];
  return [g(random, ...shape), g(random, ...shape)];
};
const branch = (random: Random, d: number, k: number, first: number): Value => {
  const r = random.integer(1, 3);
  const from = random.below(first + 1);
  return {
    loraA: g(random, r, d),
    loraB: g(random, k, r),
    scaling: random.pick([1, 0.5, -2]),
    mask: random.once(4) ? { p: 0.5, seed: 1, stream: random.below(9) } : null,
    ...(random.once(3) ? { from, to: random.integer(from, first) } : {}),
  };
};
const some = (random: Random, value: Value): Value => (random.once(2) ? value : null);

/** Shapes that are repeated to a common one, or a number on one side. */
const arithmetic: Recipe = (r) => {
  const shape = [...lead(r), size(r), size(r)];
  const part = (): number[] => shape.map((n) => (r.once(4) ? 1 : n)).slice(r.below(shape.length + 1));
  const number = r.pick([2, -0.5, 0, 1e38]);
  return r.once(8)
    ? [g(r, ...part()), number]
    : r.once(8)
      ? [number, g(r, ...part())]
      : [g(r, ...part()), g(r, ...part())];
};
/** A tensor, one of its dimensions, and whether that stays. */
const along: Recipe = (r) => {
  const shape = [...lead(r), size(r)];
  return [g(r, ...shape), r.once(4) ? UNDEFINED : r.integer(-shape.length, shape.length - 1), r.once(2)];
};

const RECIPES: Record<string, Recipe> = {
  add: arithmetic,
  sub: arithmetic,
  mul: arithmetic,
  div: arithmetic,
  sum: along,
  mean: along,
  argmax: along,
  softmax: (r) => along(r).slice(0, 2),
  logSoftmax: (r) => along(r).slice(0, 2),
  matmul: (r) => {
    const batch = lead(r);
    const part = batch.map((n) => (r.once(3) ? 1 : n)).slice(r.below(batch.length + 1));
    const n = size(r);
    const k = size(r);
    const m = size(r);
    return [r.once(6) ? g(r, k) : g(r, ...batch, n, k), r.once(6) ? g(r, k) : g(r, ...part, k, m)];
  },
  transpose: (r) => {
    const shape = [...lead(r), size(r), size(r)];
    const dim = (): number => r.integer(-shape.length, shape.length - 1);
    return [g(r, ...shape), dim(), dim()];
  },
  concat: (r) => {
    const shape = [...lead(r), size(r)];
    const dim = r.below(shape.length);
    const part = (): Value => g(r, ...shape.map((n, i) => (i === dim ? size(r) : n)));
    return [Array.from({ length: r.integer(1, 4) }, part), r.once(2) ? dim : dim - shape.length];
  },
  scale: (r) => [...unary(r), r.pick([0, -1, 0.5, 1e30])],
  dropout: (r) => [...unary(r), r.pick([0, 0.5, 1])],
  reshape: (r) => {
    const shape = [...lead(r), size(r)];
    return [g(r, ...shape), r.once(2) ? [...shape].reverse() : [shape.reduce((n, d) => n * d, 1)]];
  },
  narrow: (r) => {
    const shape = [...lead(r), size(r)];
    const dim = r.below(shape.length);
    const start = r.below(shape[dim]! + 1);
    return [g(r, ...shape), r.once(2) ? dim : dim - shape.length, start, r.below(shape[dim]! - start + 1)];
  },
  rmsNorm: (r) => {
    const d = size(r);
    return [g(r, ...lead(r), d), g(r, d), 1e-5];
  },
  layerNorm: (r) => {
    const d = size(r);
    return [g(r, ...lead(r), d), g(r, d), g(r, d), 1e-5];
  },
  linear: (r) => {
    const d = size(r);
    const k = size(r);
    const rows = lead(r);
    const transposed = r.once(3);
    return [
      g(r, ...rows, d),
      transposed ? g(r, d, k) : g(r, k, d),
      some(r, g(r, k)),
      Array.from({ length: r.below(3) }, () => branch(r, d, k, rows[0] ?? d)),
      transposed,
    ];
  },
  mergedLinear: (r) => {
    const d = size(r);
    const per = r.integer(1, 3);
    const enabled = Array.from({ length: r.integer(1, 3) }, () => r.once(2));
    const on = enabled.filter(Boolean).length;
    const rank = r.integer(1, 2);
    return [
      g(r, ...lead(r), d),
      g(r, per * enabled.length, d),
      some(r, g(r, per * enabled.length)),
      {
        loraA: g(r, on * rank, d),
        loraB: g(r, on * per, rank),
        scaling: 0.5,
        mask: r.once(4) ? { p: 0.5, seed: 1, stream: 2 } : null,
        enableLora: enabled,
      },
      false,
    ];
  },
  conv: (r) => {
    const dims = r.integer(1, 3);
    const groups = r.integer(1, 2);
    const inChannels = groups * r.integer(1, 2);
    const outChannels = groups * r.integer(1, 2);
    const each = (low: number, high: number): number[] => Array.from({ length: dims }, () => r.integer(low, high));
    const kernel = each(1, 3);
    const options: { [key: string]: Value } = { stride: each(1, 2), padding: each(0, 2), dilation: each(1, 2), groups };
    const n = r.integer(1, 3);
    const rank = groups * r.integer(1, 2);
    const branches: Value[] = r.once(2)
      ? [
          {
            loraA: g(r, rank, inChannels, ...kernel),
            loraB: g(r, outChannels, rank / groups, ...kernel.map(() => 1)),
            scaling: 0.5,
            mask: null,
          },
        ]
      : [];
    return [
      g(r, n, inChannels, ...each(1, 6)),
      g(r, outChannels, inChannels / groups, ...kernel),
      some(r, g(r, outChannels)),
      options,
      branches,
    ];
  },
  embedding: (r) => {
    const vocab = r.integer(1, 6);
    const d = size(r);
    const rows = lead(r);
    const rank = r.integer(1, 2);
    const options: { [key: string]: Value } = {
      paddingIdx: r.pick([null, 0, -1]),
      maxNorm: r.pick([null, 0.5]),
      scaleGradByFreq: r.once(3),
    };
    return [
      t(rows, { ids: vocab }),
      g(r, vocab, d),
      options,
      r.once(2) && rows.length > 0 ? [{ loraA: g(r, rank, vocab), loraB: g(r, d, rank), scaling: 0.5 }] : [],
    ];
  },
  rope: (r) => {
    const pairs = r.integer(1, 3);
    const steps = r.integer(1, 4);
    const batch = r.integer(1, 2);
    return [
      g(r, batch, steps, r.integer(1, 2), 2 * pairs + r.below(3)),
      { cos: t([6, pairs]), sin: t([6, pairs]) },
      t([batch, steps], { ids: 6 }),
    ];
  },
  ropeFrequencies: (r) => [2 * r.integer(1, 4), r.pick([1, 10000])],
  ropeTable: (r) => [r.integer(1, 8), t([r.integer(1, 4)]), r.pick([1, 1.5])],
  attentionRanges: (r) => {
    const batch = r.integer(1, 2);
    const queries = r.integer(0, 5);
    const keys = queries + r.below(3);
    const options: { [key: string]: Value } = { batch, queries, keys, causal: r.once(2), window: r.pick([null, 1, 3]) };
    if (r.once(2)) options["attentionMask"] = t([batch, keys], { ids: 3 });
    return [options];
  },
  attention: (r) => {
    const batch = r.integer(1, 2);
    const kv = r.integer(1, 2);
    const heads = kv * r.integer(1, 2);
    const dim = r.integer(1, 5);
    const queries = r.integer(1, 4);
    const keys = queries + r.below(3);
    return [
      g(r, batch, queries, heads, dim),
      g(r, batch, keys, kv, dim),
      g(r, batch, keys, kv, dim),
      { ranges: t([batch, queries, 2], { ids: r.pick([1, keys + 1]) }), softcap: r.pick([null, 2]) },
    ];
  },
  crossEntropy: (r) => {
    const rows = lead(r);
    const classes = size(r);
    return [g(r, ...rows, classes), t(rows, { ids: Math.max(1, classes) }), -100, some(r, r.integer(1, 9))];
  },
  linearCrossEntropy: (r) => {
    const rows = lead(r);
    const classes = r.integer(1, 5);
    const d = size(r);
    return [
      g(r, ...rows, d),
      g(r, classes, d),
      some(r, g(r, classes)),
      t(rows, { ids: classes }),
      r.integer(1, 4),
      -100,
      some(r, r.integer(1, 9)),
    ];
  },
  doraNorm: (r) => {
    const d = size(r);
    const k = size(r);
    const rank = r.integer(1, 2);
    return [t([k, d]), t([rank, d]), t([k, rank]), 0.5, false];
  },
  doraScale: (r) => {
    const d = size(r);
    return [g(r, d), t([d])];
  },
  channelScale: (r) => {
    const d = size(r);
    const shape = lead(r);
    return [g(r, ...shape, d), g(r, d), some(r, g(r, d)), shape.length];
  },
  siluMul: binary,
  mseLoss: binary,
  binaryCrossEntropyWithLogits: binary,
  binaryCrossEntropy: binary,
};
const IN_PLACE = Object.keys(nn)
  .filter((name) => name.endsWith("_"))
  .map((name) => `nn.${name}`);
const NAMES = [...Object.keys(ops), ...IN_PLACE];

/** For an op without a recipe: tensors of shapes that go together, numbers, axes. */
const anything: Recipe = (random) => {
  const shape = [...lead(random), size(random)];
  const args: Value[] = [g(random, ...shape)];
  for (let i = random.below(3); i > 0; i--) {
    args.push(
      random.pick<Value>([
        g(random, ...shape),
        g(random, ...[...shape].reverse()),
        g(random, shape.at(-1)!),
        0,
        1,
        -1,
        0.5,
        UNDEFINED,
        [0],
        { dim: 0 },
        true,
      ]),
    );
  }
  return random.once(6) ? [args] : args;
};

function generate(random: Random): Input {
  const op = random.pick(NAMES);
  let args = op.startsWith("nn.")
    ? [g(random, ...lead(random), size(random)), ...(random.once(2) ? [random.pick([0, 0.5, 1, 2])] : [])]
    : (RECIPES[op] ?? (random.once(2) ? unary : anything))(random);
  for (let i = random.few(3); i > 0; i--) {
    if (random.once(10)) args = [...args, odd(random)];
    else
      args = args.map((arg, at) => (at === i % args.length || random.once(args.length) ? changed(arg, random) : arg));
  }
  return { op, args };
}

const GUARD = 64;
const POISON = 0x7fa5a5a5;
const sizes = new Map<number, number>();

function assertGuards(address: number, bytes: number): void {
  const { memory } = engine();
  const front = new Uint32Array(memory.wasm.buffer, address - GUARD, GUARD / 4);
  const back = memory.u8(address + bytes, GUARD);
  must(
    front.every((word) => word === POISON),
    () => `bytes before a block of ${bytes} were written`,
  );
  must(
    back.every((byte) => byte === 0xa5),
    () => `bytes behind a block of ${bytes} were written`,
  );
}

function prepare(): void {
  const { memory } = engine();
  const alloc = memory.alloc.bind(memory);
  const free = memory.free.bind(memory);
  memory.alloc = (bytes) => {
    const address = alloc(bytes + 2 * GUARD) + GUARD;
    new Uint32Array(memory.wasm.buffer, address - GUARD, GUARD / 4).fill(POISON);
    memory.u8(address + bytes, GUARD).fill(0xa5);
    sizes.set(address, bytes);
    return address;
  };
  memory.free = (address) => {
    const bytes = sizes.get(address);
    if (bytes === undefined) return free(address);
    assertGuards(address, bytes);
    sizes.delete(address);
    free(address - GUARD);
  };
}

function tensorsIn(value: unknown): Tensor[] {
  if (value instanceof Tensor) return [value];
  return typeof value === "object" && value !== null
    ? Object.values(value).filter((inner) => inner instanceof Tensor)
    : [];
}

function run({ op, args }: Input): void {
  const fn = (op.startsWith("nn.") ? nn[op.slice(3) as "zeros_"] : ops[op as "add"]) as (...args: unknown[]) => unknown;
  try {
    scope(() => {
      const given = args.map(built);
      const results = tensorsIn(fn(...given));
      for (const result of results) {
        if (result.node) ops.sum(result).backward();
        else if (!given.includes(result)) result.dispose();
      }
    });
  } finally {
    for (const [address, bytes] of sizes) assertGuards(address, bytes);
  }
}

export const op: Target<Input> = { name: "ops", inputs: 30_000, prepare, generate, run };

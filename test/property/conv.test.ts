/**
 * Convolution is linear in x and its backward is its adjoint: <conv(x), u> = <x, convᵀ(u)> for random
 * shapes, strides, paddings, dilations and groups, with and without a branch.
 *
 * Both inner products are added in float64. A float32 sum of k products is off by at most k 2^-24 times
 * the sum of their magnitudes (Higham 2002, section 3.1, first order), so both sides differ by at most
 * 2^-24 * (roundings along one path from x to y, there and back) * <conv(|x|) with |W|, |A|, |B|, |u|>.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { init, ops, scope, tensor, type Tensor } from "../../src/index.js";
import { stream } from "../support/random.js";

await init();

const dimension = fc
  .record({
    size: fc.integer({ min: 1, max: 9 }),
    kernel: fc.integer({ min: 1, max: 4 }),
    stride: fc.integer({ min: 1, max: 3 }),
    padding: fc.integer({ min: 0, max: 4 }),
    dilation: fc.integer({ min: 1, max: 3 }),
  })
  .filter((d) => d.dilation * (d.kernel - 1) + 1 <= d.size + 2 * d.padding);

const shape = fc.record({
  n: fc.integer({ min: 1, max: 3 }),
  groups: fc.integer({ min: 1, max: 3 }),
  perGroup: fc.integer({ min: 1, max: 3 }),
  outs: fc.integer({ min: 1, max: 4 }),
  ranks: fc.integer({ min: 0, max: 2 }),
  dims: fc.array(dimension, { minLength: 1, maxLength: 3 }),
  seed: fc.integer(),
});

test("backward of conv in x is the adjoint of forward", () => {
  fc.assert(
    fc.property(shape, ({ n, groups, perGroup, outs, ranks, dims, seed }) =>
      scope(() => {
        const next = stream(seed);
        const random = (sizes: number[]): Tensor => {
          const t = tensor(new Float32Array(sizes.reduce((a, b) => a * b, 1)), sizes);
          return t.set(t.data.map(() => next() * 2 - 1));
        };
        const each = (key: keyof (typeof dims)[0] & string): number[] => dims.map((d) => d[key]);
        const kernel = each("kernel");
        const cin = groups * perGroup;
        const cout = groups * outs;
        const r = groups * ranks;
        const x = random([n, cin, ...each("size")]);
        const weight = random([cout, perGroup, ...kernel]);
        const loraA = random([r, cin, ...kernel]);
        const loraB = random([cout, ranks, ...kernel.map(() => 1)]);
        const options = { stride: each("stride"), padding: each("padding"), dilation: each("dilation"), groups };
        const forward = (map: (t: Tensor) => Tensor): Tensor =>
          ops.conv(
            map(x),
            map(weight),
            null,
            options,
            ranks ? [{ loraA: map(loraA), loraB: map(loraB), scaling: 0.75, mask: null }] : [],
          );
        const magnitude = (t: Tensor): Tensor => tensor(t.data.map(Math.abs), t.shape);
        x.requiresGrad = true;
        const y = forward((t) => t);
        const values = y.data.slice();
        const u = random([...y.shape]);
        ops.sum(ops.mul(y, u)).backward();
        const inner = (a: Float32Array, b: Float32Array): number => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
        const taps = kernel.reduce((a, b) => a * b, 1);
        const roundings = 2 * (cin * taps + r + cout + taps + 3);
        // Copied: making another tensor may grow the memory, which detaches every view of it.
        const most = inner(forward(magnitude).data.slice(), magnitude(u).data);
        const left = inner(values, u.data);
        const right = inner(x.data, x.grad!.data);
        assert(Math.abs(left - right) <= 2 ** -24 * roundings * most, `${left} and ${right}`);
      }),
    ),
    { numRuns: 300 },
  );
});

test.run();

/**
 * No op hides a NaN: every element of the result, and of every gradient, that depends on an element of an input is NaN
 * if that is. What depends on it is found by changing it. Comparisons treat NaN as torch's do.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, manualSeed, ops, scope, tensor, Tensor, type WasmLoraError } from "../../../src/index.js";
import { gridTensor as grid } from "../../support/gradcheck.js";
import { int, OPS } from "../../support/op_calls.js";
import { stream } from "../../support/random.js";

await init();

/** The float32 tensors among the arguments, and in them. */
function inputs(value: unknown): Tensor[] {
  if (value instanceof Tensor) return value.dtype === "float32" ? [value] : [];
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(inputs) : [];
}

interface Run {
  y: Float32Array;
  gradients: Float32Array[];
}

/** The op on its arguments, of which element `at` of input `which` is changed. */
function run(name: string, which: number, at: number, change: (v: number) => number): Run {
  return scope(() => {
    manualSeed(1);
    const [op, make] = OPS[name]!;
    const args = make();
    const given = inputs(args);
    if (which >= 0) given[which]!.data[at] = change(given[which]!.data[at]!);
    const y = (op as (...args: unknown[]) => Tensor)(...args);
    const values = y.data.slice();
    if (y.node !== null) {
      const next = stream(y.size);
      ops
        .sum(
          ops.mul(
            y,
            tensor(
              Float32Array.from({ length: y.size }, () => next() * 2 - 1),
              y.shape,
            ),
          ),
        )
        .backward();
    }
    return { y: values, gradients: given.map((t) => t.grad?.data.slice() ?? new Float32Array(0)) };
  });
}

/** Of argmax a test of its own is below; the others take no floats, or give no tensor. */
const OTHERS = ["argmax", "attentionRanges", "ropeFrequencies", "ropeTable"];
/** A slope that is chosen by comparing with 0: torch lets the gradient through where x is NaN. */
const CHOSEN = ["relu"];

for (const name of Object.keys(OPS).filter((name) => !OTHERS.includes(name))) {
  test(`${name}: what depends on a NaN is NaN`, () => {
    const sizes = scope(() => inputs(OPS[name]![1]()).map((t) => t.size));
    const before = run(name, -1, 0, (v) => v);
    let dependent = 0;
    for (const [which, size] of sizes.entries())
      for (let at = 0; at < size; at++) {
        if (name === "binaryCrossEntropy" && which === 0) {
          assert.throws(
            () => run(name, which, at, () => NaN),
            (e: WasmLoraError) => e instanceof ArgumentError && e.message.includes("NaN"),
          );
          continue;
        }
        const moved = run(name, which, at, (v) => v * 0.75 + 0.0625);
        const lost = run(name, which, at, () => NaN);
        const compare = (label: string, a: Float32Array, b: Float32Array, c: Float32Array): void => {
          for (const [i, v] of a.entries()) {
            if (v === b[i] || Number.isNaN(v)) continue;
            dependent++;
            assert(Number.isNaN(c[i]), `${label}[${i}] depends on input ${which}[${at}] and is ${c[i]}`);
          }
        };
        compare("y", before.y, moved.y, lost.y);
        if (!CHOSEN.includes(name))
          for (const [i, g] of before.gradients.entries())
            compare(`gradient ${i}`, g, moved.gradients[i]!, lost.gradients[i]!);
      }
    assert(dependent > 0, "nothing depends on anything");
  });
}

test("comparisons: relu, argmax and the maximum in softmax and log-sum-exp, wherever the NaN stands", () =>
  scope(() => {
    for (const n of [1, 2, 3, 4, 5, 7, 8, 9, 33])
      for (let at = 0; at < n; at++) {
        const x = grid([n], n, false);
        x.data[at] = NaN;
        const relu = ops.relu(x).data.slice();
        assert.deepEqual(
          [...relu],
          [...x.data].map((v, i) => (i === at ? NaN : Math.max(v, 0))),
        );
        assert.equal(ops.argmax(x).item(), at);
        assert(ops.softmax(x).data.every(Number.isNaN) && ops.logSoftmax(x).data.every(Number.isNaN));
        const logits = ops.reshape(x, [1, n]);
        const target = int((at + 1) % n);
        assert(Number.isNaN(ops.crossEntropy(logits, target).item()), "a NaN that is not the target's logit");
        assert(Number.isNaN(ops.sum(x).item()) && Number.isNaN(ops.mean(ops.reshape(x, [n, 1]), 0).item()));
      }
    // A row that is ignored takes no part, as in torch.
    assert.equal(
      ops
        .crossEntropy(
          tensor([
            [NaN, 1],
            [0, 0],
          ]),
          int(-100, 1),
        )
        .item(),
      Math.fround(Math.log(2)),
    );
    const loss = ops.crossEntropy(
      tensor([
        [Infinity, Infinity],
        [0, 0],
      ]),
      int(0, 1),
    );
    assert(Number.isNaN(loss.item()), "Infinity - Infinity");
  }));

test.run();

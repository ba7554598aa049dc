/**
 * Cross-entropy over a linear layer by chunks of rows: the bits of the two ops it stands for, whatever the chunk, and
 * less memory.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  DTypeError,
  init,
  memoryStats,
  ones,
  ops,
  scope,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { noGrad } from "../../../src/autograd/tape.js";
import { addProduct, draw, Frame, gradient, plus } from "../../support/frame.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { gradcheck, gridTensor as grid } from "../../support/gradcheck.js";
import { assertSameBits, transposed } from "../../support/kernels.js";
import { refuses } from "../../support/refuses.js";

await init();
const CHUNKS = [1, 2, 3, 5, 7, 11, 12, 128];

interface Case {
  n: number;
  d: number;
  classes: number;
  trained: readonly ("x" | "weight" | "bias")[];
  bias: boolean;
  targets: number[];
  ignoreIndex?: number;
}

const targetsOf = (n: number, classes: number, ignored: (i: number) => boolean = () => false): number[] =>
  Array.from({ length: n }, (_, i) => (ignored(i) ? -100 : (i * 5 + 2) % classes));

/** Loss and gradients, after `use` made something of the op's result. */
function run(
  { n, d, classes, trained, bias, targets, ignoreIndex }: Case,
  chunk: number | null,
  use: (loss: Tensor, x: Tensor) => Tensor,
): Record<string, Float32Array> {
  return scope(() => {
    const x = grid([2, n / 2, d], 1, trained.includes("x"));
    const weight = grid([classes, d], 2, trained.includes("weight"));
    const b = bias ? grid([classes], 3, trained.includes("bias")) : null;
    const t = tensor(Int32Array.from(targets), [2, n / 2]);
    // Gradients that are there already are added to.
    if (weight.requiresGrad) weight.grad = grid([classes, d], 4, false).keep();
    const loss =
      chunk === null
        ? ops.crossEntropy(ops.linear(x, weight, b), t, ignoreIndex)
        : ops.linearCrossEntropy(x, weight, b, t, chunk, ignoreIndex);
    const out: Record<string, Float32Array> = { loss: loss.data.slice() };
    use(loss, x).backward();
    for (const [name, p] of Object.entries({ x, weight, bias: b })) if (p?.grad) out[name] = p.grad.data.slice();
    return out;
  });
}

const uses: Record<string, (loss: Tensor, x: Tensor) => Tensor> = {
  "loss.backward()": (loss) => loss,
  "a scaled loss": (loss) => ops.scale(loss, -0.3),
  "x used again, later": (loss, x) => ops.add(loss, ops.sum(ops.mul(x, x))),
};

for (const [name, use] of Object.entries(uses)) {
  test(`the bits of crossEntropy(linear()): ${name}`, () => {
    const n = 12;
    const d = 9;
    for (const classes of [1, 3, 17, 33])
      for (const bias of [false, true]) {
        for (const trained of [["x"], ["weight"], ["x", "weight"], ["bias"], ["x", "weight", "bias"]] as const) {
          if (trained.includes("bias" as never) && !bias) continue;
          for (const [targets, ignoreIndex] of [
            [targetsOf(n, classes)],
            [targetsOf(n, classes, (i) => i % 3 === 0)],
            [targetsOf(n, classes), 0],
            [targetsOf(n, classes, () => true)],
          ] as [number[], number?][]) {
            // x's other use makes a gradient of its own.
            if (name.startsWith("x used") && !trained.includes("x" as never)) continue;
            const c: Case = {
              n,
              d,
              classes,
              trained,
              bias,
              targets,
              ...(ignoreIndex !== undefined && { ignoreIndex }),
            };
            const expected = run(c, null, use);
            for (const chunk of CHUNKS) {
              const got = run(c, chunk, use);
              const label = `${JSON.stringify(c)} chunk ${chunk}`;
              assert.deepEqual(Object.keys(got), Object.keys(expected), label);
              for (const key of Object.keys(expected))
                assertSameBits(got[key]!, expected[key]!, 1, () => `${label}: ${key}`);
            }
          }
        }
      }
  });
}

test("the kernel: formula in float64, guards, null gradients", () => {
  const { kernels, scratch } = engine();
  for (const [n, d, classes] of [
    [1, 1, 1],
    [5, 7, 3],
    [4, 16, 19],
  ] as const)
    for (const chunk of [1, 2, n])
      for (const wanted of [[], ["dx"], ["dW"], ["dbias"], ["dx", "dW", "dbias"]]) {
        const x = draw(n * d);
        const w = draw(classes * d);
        const bias = draw(classes);
        const targets = targetsOf(n, classes, (i) => i === 2);
        const g = Math.fround(0.7);
        const lossAt = (logits: ArrayLike<number>): number => {
          let total = 0;
          targets.forEach((target, i) => {
            if (target === -100) return;
            const row = Array.from({ length: classes }, (_, j) => logits[i * classes + j]!);
            total += Math.log(row.reduce((sum, v) => sum + Math.exp(v), 0)) - row[target]!;
          });
          return total;
        };
        const logits = Float32Array.from({ length: n * classes }, (_, i) => bias[i % classes]!);
        addProduct(logits, x, transposed(w, classes, d), n, classes, d);
        const dlogits = Float32Array.from(gradient(lossAt, logits), (v) => g * v);
        const expected: Record<string, Float32Array> = {
          dx: addProduct(new Float32Array(n * d), dlogits, w, n, d, classes),
          dW: addProduct(new Float32Array(classes * d), transposed(dlogits, n, classes), x, classes, d, n),
          dbias: addProduct(new Float32Array(classes), new Float32Array(n).fill(1), dlogits, 1, classes, n),
        };
        const f = new Frame(engine(), `linearCrossEntropy [${n}, ${d}, ${classes}] chunk ${chunk} ${wanted}`);
        const inputs = {
          x: f.input("x", x),
          weight: f.input("W", w),
          bias: f.input("bias", bias),
          targets: f.integers("targets", targets),
        };
        const before = Object.fromEntries(wanted.map((key) => [key, draw(expected[key]!.length)]));
        const rooms = Object.fromEntries(wanted.map((key) => [key, f.room(key, expected[key]!.length, before[key])]));
        const at = (key: string): number => rooms[key]?.address ?? 0;
        const loss = kernels.linearCrossEntropy({
          ...inputs,
          n,
          d,
          classes,
          chunk,
          ignoreIndex: -100,
          scale: g,
          format: 0,
          losses: f.room("losses", 2 * n).address,
          logits: f.room("logits", chunk * classes).address,
          dx: at("dx"),
          dWeight: at("dW"),
          dBias: at("dbias"),
          scratch,
        });
        assertClose(f.label, [loss], [lossAt(logits)]);
        for (const key of wanted)
          assertClose(`${f.label} ${key}`, rooms[key]!.read(), plus(before[key]!, expected[key]!));
        f.end();
      }
});

test("gradients by central differences", () =>
  scope(() => {
    const x = grid([2, 3, 4], 1);
    const weight = grid([5, 4], 2);
    const bias = grid([5], 3);
    const targets = tensor(new Int32Array([0, -100, 3, 1, 1, 4]), [2, 3]);
    gradcheck("all trained", { x, weight, bias }, () => ops.linearCrossEntropy(x, weight, bias, targets, 4));
    weight.requiresGrad = bias.requiresGrad = false;
    gradcheck("only x", { x, weight, bias }, () => ops.linearCrossEntropy(x, weight, bias, targets, 4));
  }));

test("a weight that is frozen or thawed between forward and backward", () =>
  scope(() => {
    const weight = grid([5, 4], 2);
    const x = grid([6, 4], 1);
    const targets = tensor(new Int32Array([0, 1, 2, 3, 4, 0]));
    for (const before of [true, false]) {
      const dx = [false, true].map((chunked) => {
        weight.requiresGrad = before;
        const loss = chunked
          ? ops.linearCrossEntropy(x, weight, null, targets, 4)
          : ops.crossEntropy(ops.linear(x, weight), targets);
        weight.requiresGrad = !before;
        loss.backward();
        return [x, weight].map((t) => {
          const values = t.grad?.data.slice() ?? new Float32Array(0);
          t.grad?.dispose();
          t.grad = null;
          return values;
        });
      });
      for (const i of [0, 1]) assertBits(`thawed before: ${before}`, dx[1]![i]!, dx[0]![i]!);
      assert.equal(dx[1]![1]!.length, before ? 0 : 20);
    }
  }));

test("memory: one chunk's logits, and what it made for backward goes with the graph", () =>
  scope(() => {
    const n = 64;
    const d = 8;
    const classes = 512;
    const x = grid([n, d], 1);
    const weight = grid([classes, d], 2, false);
    const targets = tensor(Int32Array.from(targetsOf(n, classes)));
    const { memory } = engine();
    const before = memoryStats().liveBytes;
    memory.resetPeak();
    scope(() => {
      ops.linearCrossEntropy(x, weight, null, targets, 4).backward();
    });
    const used = memoryStats().peakBytes - before;
    const block = (elements: number): number => Math.ceil(elements / 16) * 64 + 64;
    // The loss, dx, then the rows' losses in float64 and the logits.
    assert.equal(used, block(1) + block(n * d) + block(2 * n) + block(4 * classes));
    x.grad!.dispose();
    x.grad = null;
    scope(() => {
      ops.linearCrossEntropy(x, weight, null, targets, 4);
    });
    noGrad(() =>
      scope(() => {
        ops.linearCrossEntropy(x, weight, null, targets, 4);
      }),
    );
    assert.equal(memoryStats().liveBytes, before);
  }));

test("the loss arrives where the logits' room makes memory grow", () =>
  scope(() => {
    const x = grid([8, 4], 1);
    const { memory } = engine();
    // The logits are twice of what there is now, the weight as much as that.
    const classes = memory.stats().reservedBytes / 16;
    const weight = zeros([classes, 4]);
    const targets = tensor(new Int32Array(8));
    const reserved = memory.stats().reservedBytes;
    const loss = ops.linearCrossEntropy(x, weight, null, targets);
    assert(memory.stats().reservedBytes > reserved);
    assertClose("loss", [loss.item()], [Math.log(classes)]);
  }));

const x23 = ones([2, 3]);
const w43 = ones([4, 3]);
const t2 = tensor(new Int32Array([0, 3]));
const where = "linearCrossEntropy";
refuses("x's width", ShapeError, [where, "x", "[2,3]", "inFeatures = 2"], () =>
  scope(() => ops.linearCrossEntropy(x23, ones([4, 2]), null, t2)),
);
refuses("a bias of another size", ShapeError, [where, "bias", "[2]", "[4]"], () =>
  scope(() => ops.linearCrossEntropy(x23, w43, ones([2]), t2)),
);
refuses("no classes", ShapeError, [where, "weight", "[0,3]"], () =>
  scope(() => ops.linearCrossEntropy(x23, ones([0, 3]), null, t2)),
);
refuses("targets of another shape", ShapeError, [where, "targets", "[2]", "[3]"], () =>
  scope(() => ops.linearCrossEntropy(ones([3, 3]), w43, null, t2)),
);
refuses("targets that are no integers", DTypeError, [where, "targets", "int32"], () =>
  scope(() => ops.linearCrossEntropy(x23, w43, null, ones([2]))),
);
refuses("a target out of range", ArgumentError, [where, "targets", "3", "position 1", "0 .. 2"], () =>
  scope(() => ops.linearCrossEntropy(x23, ones([3, 3]), null, t2)),
);
for (const chunk of [0, 1.5, NaN, -1])
  refuses(`chunk ${chunk}`, ArgumentError, [where, "chunk", String(chunk)], () =>
    ops.linearCrossEntropy(x23, w43, null, t2, chunk),
  );

test.run();

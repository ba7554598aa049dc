/** The benchmark's own checks: they accept what is right, and find planted faults. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { judge } from "./bars.mjs";
import { Contestant } from "./contestant.mjs";
import { watch } from "./neighbour.mjs";
import { median, ratio } from "./median.mjs";
import { productError, stepError, stepReference, updateError, values } from "./reference.mjs";

const [m, n, k] = [5, 7, 300];

test("a product is within the bound; one with a value lost, doubled or NaN is not", () => {
  const a = values(m * k, 1);
  const b = values(k * n, 2);
  const c = new Float32Array(m * n);
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) for (let p = 0; p < k; p++) c[i * n + j] += a[i * k + p] * b[p * n + j];
  assert(productError(c, m, n, k, a, b) <= 1);
  for (const fault of [0, 2 * c[9], NaN]) assert(!(productError(c.with(9, fault), m, n, k, a, b) <= 1), `${fault}`);
  assert(!(productError(c.subarray(1), m, n, k, a, b) <= 1));
});

/**
 * The step's loss and gradients by central differences in float64, which share nothing with the reference's formulas.
 */
function byDifferences({ n, d, k, r, s, x, w, a, b, dy }) {
  const loss = () => {
    let sum = 0;
    for (let i = 0; i < n; i++)
      for (let j = 0; j < k; j++) {
        let y = 0;
        for (let p = 0; p < d; p++) {
          y += x[i * d + p] * w[j * d + p];
          for (let q = 0; q < r; q++) y += s * x[i * d + p] * a[q * d + p] * b[j * r + q];
        }
        sum += y * dy[i * k + j];
      }
    return sum;
  };
  // The loss is linear in each of them: any distance is exact but for rounding.
  const gradient = (of) =>
    Float64Array.from(of, (value, i) => {
      of[i] = value + 0.5;
      const above = loss();
      of[i] = value - 0.5;
      const below = loss();
      of[i] = value;
      return above - below;
    });
  return { loss: loss(), dx: gradient(x), gradients: [gradient(a), gradient(b)] };
}

test("the LoRA step's reference agrees with central differences, and finds a fault in each output", () => {
  const problem = Object.fromEntries(
    Object.entries({ x: 12, w: 20, a: 8, b: 10, dy: 15 }).map(([name, size], i) => [
      name,
      Float64Array.from(values(size, i + 1)),
    ]),
  );
  Object.assign(problem, { n: 3, d: 4, k: 5, r: 2, s: 2 });
  const reference = stepReference(problem);
  const result = byDifferences(problem);
  assert(stepError(reference, result) <= 1e-3);
  assert(stepError(reference, { ...result, loss: result.loss * 1.01 }) > 1);
  assert(stepError(reference, { ...result, dx: result.dx.with(3, 0) }) > 1);
  for (const i of [0, 1])
    assert(
      !(
        stepError(reference, { ...result, gradients: result.gradients.with(i, result.gradients[i].with(2, NaN)) }) <= 1
      ),
    );
  for (const i of [0, 1])
    assert(
      stepError(reference, { ...result, gradients: result.gradients.with(i, result.gradients[i].with(2, 9)) }) > 1,
    );
});

test("bars name the worst and what fails", () => {
  const row = (shape, kind, ofBestPeer, ofWall, ofFmaWall) => ({ shape, kind, ofBestPeer, ofWall, ofFmaWall });
  const sgemm = {
    rows: [
      row([512, 512, 512], "large", 1.4, 0.9, 0.89),
      row([128, 768, 768], "large", 1.2, 0.95, 0.87),
      row([1, 768, 768], "one row", 1.5, 0.1),
    ],
  };
  const lora = { rows: [{ shape: [1, 2, 3, 4], ratios: { "jax-js": 2.5 }, ofProducts: 1.09 }] };
  const byTitle = (sections) => Object.fromEntries(judge(sections).map((bar) => [bar.title, bar]));
  const bars = byTitle({ sgemm, lora });
  const large = bars["large products: 1.3x the best peer"];
  assert.deepEqual(
    [large.passed, large.worst, large.at, large.failed, large.atTheWall],
    [false, 1.2, "128, 768, 768", ["128, 768, 768"], [1.2 / 0.95]],
  );
  assert.equal(bars["large products: 88 % of the wall"].passed, true);
  assert.equal(bars["one row: 1.2x the best peer"].passed, true);
  const fused = "large products, fused: 88 % of the FMA wall";
  assert.deepEqual(bars[fused].failed, ["128, 768, 768"]);
  assert.equal(
    byTitle({ sgemm: { rows: sgemm.rows.map(({ ofFmaWall, ...rest }) => rest) } })[fused].note,
    "not measured",
  );
  assert.equal(bars["8 rows: 1.3x the best peer"].passed, null);
  assert.equal(bars["LoRA step: 2x jax-js"].passed, true);
  const fuses = byTitle({ sgemm: { ...sgemm, fusingGains: 1.7 }, lora: { ...lora, fusingGains: 1.7 } });
  assert.equal(fuses["8 rows: 1.2x the best peer"].passed, null);
  assert.equal(fuses["LoRA step: 1.15x jax-js"].limit, 1.15);
  assert.equal(bars["LoRA step's kernels: within 8 % of their products"].passed, false);
});

test("a neighbour on the core is seen: work that is slower each time it is tried, but not once", () => {
  let now = 0;
  let of = () => 0.1;
  const shared = watch(
    () => {
      now += of();
    },
    () => now,
    1,
  );
  assert.equal(shared(), false);
  of = () => 0.12;
  assert.equal(shared(), true);
  of = () => 0.105;
  assert.equal(shared(), false);
  // An interruption, of one try.
  let interrupted = false;
  of = () => {
    const time = interrupted ? 0.1 : 5;
    interrupted = true;
    return time;
  };
  assert.equal(shared(), false);
  // What seemed the best was not.
  of = () => 0.08;
  assert.equal(shared(), false);
  of = () => 0.1;
  assert.equal(shared(), true);
});

test("medians, and ratios within rounds", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  // A round that is slow for both leaves the ratio as it is; rounds that only one ran do not count.
  assert.equal(ratio([2, 20, 2], [1, 10, 1, 7]), 2);
});

test("updates are compared by the largest one of their factor, and a loss by itself", () => {
  const before = [Float32Array.of(1, 2), Float32Array.of(3)];
  const ours = { loss: 2, factors: [Float32Array.of(1.5, 2), Float32Array.of(3.25)] };
  assert.equal(updateError(ours, ours, before), 0);
  assert.equal(updateError(ours, { ...ours, loss: 2.5 }, before), 0.25);
  assert.equal(updateError(ours, { ...ours, factors: [Float32Array.of(1.5, 2.125), ours.factors[1]] }, before), 0.25);
  assert(Number.isNaN(updateError(ours, { ...ours, factors: [ours.factors[0], Float32Array.of(NaN)] }, before)));
});

test("a contestant in a process of its own answers in turn, and one that ends or is not there tells why", async () => {
  const script = (text) => new Contestant(process.execPath, ["--input-type=module", "-e", text]);
  const lines = script(
    `console.log('{ "ready": "yes" }');
     process.stdin.on("data", (text) => console.log(JSON.stringify({ got: String(text).trim() })));`,
  );
  assert.deepEqual(await lines.opened(), { ready: "yes" });
  for (const line of ["check a.bin", "run 3"]) assert.deepEqual(await lines.ask(line), { got: line });
  lines.close();
  await assert.rejects(script(`console.error("a warning"); throw new RangeError("no such thing");`).opened(), {
    message: "RangeError: no such thing",
  });
  await assert.rejects(new Contestant("./no-such-program", []).opened(), { message: /ENOENT/ });
});

test("whole steps have bars on threads and beside PyTorch, of the slower arithmetic where both ran", () => {
  const row = (model, speedup, ofTorch) => ({ model, shape: [4, 128], threads: 2, speedup, ofTorch });
  const rows = [
    row("the embedded base", { "wasm-lora": 1.6, "wasm-lora fused": NaN }, {}),
    row("SmolLM2-135M's shape", { "wasm-lora": 1.8, "wasm-lora fused": 1.7 }, { "wasm-lora fused, 2 threads": 0.5 }),
  ];
  assert.deepEqual(
    judge({ step: { rows } }).map(({ worst, passed }) => [worst, passed]),
    [
      [1.6, true],
      [1.7, false],
      [0.5, true],
    ],
  );
  const ofOne = rows.map((row) => ({ ...row, threads: 1 }));
  for (const { passed, note } of judge({ step: { rows: ofOne } }))
    assert.deepEqual([passed, note], [null, "not measured"]);
});

test.run();

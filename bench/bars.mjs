/** The bars: what a run must reach. */
import { FUSED, JAX, onThreads, TFJS_BEST, TFJS_WRITTEN, TORCH } from "./engines.mjs";
import { MODELS } from "./shapes.mjs";

const name = ({ shape }) => shape.join(", ");

/**
 * One bar: `rows` that have a figure, what it is, and the limit from below (or from above). A ratio to a peer that is
 * missed tells what it would be at this machine's wall: where that is less than the limit, no code can reach it.
 */
function bar(title, rows, of, limit, { atMost = false, toPeer = false } = {}) {
  const known = rows.filter((row) => Number.isFinite(of(row)));
  if (known.length === 0) return { title, passed: null, note: "not measured" };
  const worst = known.reduce((a, b) => (atMost === of(a) > of(b) ? a : b));
  const good = (row) => (atMost ? of(row) <= limit : of(row) >= limit);
  const failed = known.filter((row) => !good(row));
  return {
    title,
    passed: failed.length === 0,
    limit,
    worst: of(worst),
    at: name(worst),
    failed: failed.map(name),
    ...(toPeer ? { atTheWall: failed.map((row) => of(row) / row.ofWall) } : {}),
  };
}

/**
 * Cores differ in kind: on some a fused multiply-add is done where others do a product and a sum, and there peers that
 * fuse come close to arithmetic that does not. What is asked of them is less.
 */
const FUSING_DOUBLES = 1.4;

/** Every bar, judged. */
export function judge({ sgemm, lora, step }) {
  const products = (kind) => sgemm.rows.filter((row) => row.kind === kind);
  const peer = (row) => row.ofBestPeer ?? NaN;
  const wall = (row) => row.ofWall;
  const over = (contestant) => (row) => row.ratios[contestant] ?? NaN;
  const toPeer = { toPeer: true };
  const doubles = (sgemm ?? lora)?.fusingGains > FUSING_DOUBLES;
  const small = doubles ? 1.2 : 1.3;
  const jax = doubles ? 1.15 : 2;
  return [
    ...(sgemm
      ? [
          bar("large products: 1.3x the best peer", products("large"), peer, 1.3, toPeer),
          bar("large products: 88 % of the wall", products("large"), wall, 0.88),
          // No smaller ones: those measure what a call costs, and panels to pack are a hundredth of these (measured).
          bar("large products, fused: 88 % of the FMA wall", products("large"), (row) => row.ofFmaWall, 0.88),
          bar(`8 rows: ${small}x the best peer`, products("8 rows"), peer, small, toPeer),
          bar(`thin products: ${small}x the best peer`, products("thin"), peer, small, toPeer),
          bar("one row: 1.2x the best peer", products("one row"), peer, 1.2, toPeer),
          bar("one row: 85 % of reading its operand", products("one row"), (row) => row.ofReading, 0.85),
          bar("every product: not below 0.95x a peer", sgemm.rows, peer, 0.95, toPeer),
          bar("no cliff: large products at 80 % of this engine's wall", products("large"), wall, 0.8),
          bar("512, 2048, 2048 on several threads: 1.85x one", sgemm.rows.filter(isLargest), slowest, 1.85),
        ]
      : []),
    ...(lora
      ? [
          bar(`LoRA step: ${jax}x jax-js`, lora.rows, over(JAX), jax, toPeer),
          bar("LoRA step, fused: 1.8x jax-js", lora.rows, (row) => row.fusedOfJax, 1.8),
          bar("LoRA step: 1.5x tfjs at its best", lora.rows, over(TFJS_BEST), 1.5, toPeer),
          bar("LoRA step: 10x tfjs as written", lora.rows, over(TFJS_WRITTEN), 10, toPeer),
          bar("LoRA step's kernels: within 8 % of their products", lora.rows, (row) => row.ofProducts, 1.08, {
            atMost: true,
          }),
        ]
      : []),
    ...(step ? ofSteps(step) : []),
  ];
}

const isLargest = ({ shape }) => name({ shape }) === "512, 2048, 2048";

/** What several threads gain, in the arithmetic that gains less; not finite where none was measured. */
const slowest = ({ speedup = {} }) => Math.min(...Object.values(speedup).filter(Number.isFinite));

/** Those of whole steps, on several threads: beside one, and beside PyTorch on as many. */
function ofSteps({ rows }) {
  const several = rows.filter(({ threads }) => threads > 1);
  const [base, small] = [MODELS.base, MODELS.small].map(({ model }) => several.filter((row) => row.model === model));
  const ours = ({ speedup }) => slowest({ speedup: { ...speedup, [TORCH]: NaN } });
  return [
    bar("base's step on several threads: 1.5x one", base, ours, 1.5),
    bar("135M step on several threads: 1.75x one", small, ours, 1.75),
    bar(
      "135M step, fused, on several threads: within 2.2x of PyTorch on as many",
      small,
      ({ ofTorch, threads }) => ofTorch[onThreads(FUSED, threads)],
      1 / 2.2,
    ),
  ];
}

/** Data and float64 references: every contestant's result is compared before it is timed. */

/** Values in [-1, 1) from a linear congruential generator: the same data in every run. */
export function values(length, seed, scale = 1) {
  let state = seed >>> 0;
  return new Float32Array(length).map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 8) / 8388608 - 1) * scale;
  });
}

const UNIT = 2 ** -24;
/** Higham's bound: a sum of k products in any order errs by at most gamma(k) times the sum of their magnitudes. */
const gamma = (k) => (k * UNIT) / (1 - k * UNIT);
const SAMPLES = 1009;
const samples = (size) =>
  Array.from({ length: Math.min(size, SAMPLES) }, (_, i) => Math.floor((i * size) / Math.min(size, SAMPLES)));

/** Largest error of about a thousand elements of C = A B, in units of the bound; more than 1: wrong. */
export function productError(actual, m, n, k, a, b) {
  if (actual.length !== m * n) return Infinity;
  let worst = 0;
  for (const at of samples(m * n)) {
    const i = Math.floor(at / n);
    const j = at % n;
    let sum = 0;
    let size = 0;
    for (let p = 0; p < k; p++) {
      const term = a[i * k + p] * b[p * n + j];
      sum += term;
      size += Math.abs(term);
    }
    worst = larger(worst, Math.abs(actual[at] - sum) / (gamma(k) * size));
  }
  return worst;
}

/** NaN counts as the largest. */
const larger = (worst, error) => (error > worst || Number.isNaN(error) ? error : worst);

/**
 * The LoRA linear step in float64: y = x Wᵀ + s x Aᵀ Bᵀ, loss = sum(y * dy), and samples of dx, dA, dB as [index,
 * value]; with r = 0 it is full fine-tuning, with samples of dW. On magnitudes it gives what errors are measured by.
 */
function stepInDouble({ n, d, k, r, s, x, w, a, b, dy }) {
  const hs = new Float64Array(n * r);
  const zs = new Float64Array(n * r);
  for (let i = 0; i < n; i++) {
    for (let q = 0; q < r; q++) {
      let h = 0;
      let z = 0;
      for (let p = 0; p < d; p++) h += x[i * d + p] * a[q * d + p];
      for (let j = 0; j < k; j++) z += dy[i * k + j] * b[j * r + q];
      hs[i * r + q] = s * h;
      zs[i * r + q] = s * z;
    }
  }
  let loss = 0;
  const row = new Float64Array(d);
  for (let i = 0; i < n; i++) {
    // <x Wᵀ, dy> of a row is <x, dy W>: W is walked along its rows.
    row.fill(0);
    for (let j = 0; j < k; j++) {
      const g = dy[i * k + j];
      for (let p = 0; p < d; p++) row[p] += g * w[j * d + p];
    }
    for (let p = 0; p < d; p++) loss += x[i * d + p] * row[p];
    for (let j = 0; j < k; j++) for (let q = 0; q < r; q++) loss += dy[i * k + j] * hs[i * r + q] * b[j * r + q];
  }
  const dx = samples(n * d).map((at) => {
    const i = Math.floor(at / d);
    const p = at % d;
    let sum = 0;
    for (let j = 0; j < k; j++) sum += dy[i * k + j] * w[j * d + p];
    for (let q = 0; q < r; q++) sum += zs[i * r + q] * a[q * d + p];
    return [at, sum];
  });
  const da = samples(r * d).map((at) => {
    const q = Math.floor(at / d);
    const p = at % d;
    let sum = 0;
    for (let i = 0; i < n; i++) sum += zs[i * r + q] * x[i * d + p];
    return [at, sum];
  });
  const db = samples(k * r).map((at) => {
    const j = Math.floor(at / r);
    const q = at % r;
    let sum = 0;
    for (let i = 0; i < n; i++) sum += dy[i * k + j] * hs[i * r + q];
    return [at, sum];
  });
  const dw = () =>
    samples(k * d).map((at) => {
      const j = Math.floor(at / d);
      const p = at % d;
      let sum = 0;
      for (let i = 0; i < n; i++) sum += dy[i * k + j] * x[i * d + p];
      return [at, sum];
    });
  return { loss, dx, gradients: r === 0 ? [dw()] : [da, db] };
}

/** What stepError compares with. */
export function stepReference(problem) {
  const magnitudes = Object.fromEntries(
    Object.entries(problem).map(([name, value]) => [name, value.length ? value.map(Math.abs) : value]),
  );
  const { n, d, k, r } = problem;
  const longest = d + k + n + r;
  return {
    exact: stepInDouble(problem),
    size: stepInDouble(magnitudes),
    bound: gamma(longest),
    lossBound: gamma(n * k + longest),
  };
}

/** Largest error of a step's loss and gradients in units of the bound; more than 1: wrong. */
export function stepError({ exact, size, bound, lossBound }, { loss, dx, gradients }) {
  let worst = larger(0, Math.abs(loss - exact.loss) / (lossBound * size.loss));
  const compare = (actual, expected, sizes) =>
    expected.forEach(([at, value], i) => {
      worst = larger(worst, Math.abs(actual[at] - value) / (bound * sizes[i][1]));
    });
  compare(dx, exact.dx, size.dx);
  gradients.forEach((g, i) => compare(g, exact.gradients[i], size.gradients[i]));
  return worst;
}

/** Largest difference of losses and factors, relative to the largest change that the step made. */
export function updateError(ours, theirs, before) {
  let worst = Math.abs(ours.loss - theirs.loss) / Math.abs(ours.loss);
  ours.factors.forEach((values, f) => {
    let change = 0;
    let difference = 0;
    values.forEach((value, i) => {
      change = Math.max(change, Math.abs(value - before[f][i]));
      difference = Math.max(difference, Math.abs(value - theirs.factors[f][i]));
    });
    worst = Math.max(worst, difference / change);
  });
  return worst;
}

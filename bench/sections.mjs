/**
 * The benchmark's questions, each a function (options, progress) => plain data. They run alike in Node and in browsers.
 * options.quick: shorter bursts and fewer rounds; options.threads: how many a contestant on several has.
 * progress(done, of, what) is called before each step.
 */
import {
  ENGINES,
  enginesOnThreads,
  FULL_STEP,
  FUSED,
  isOurs,
  JAX,
  ONNX,
  onThreads,
  OURS,
  TFJS,
  TFJS_BEST,
  TFJS_WRITTEN,
} from "./engines.mjs";
import { READS, LAYERS, PRODUCTS, fullFlops, kindOf, productFlops, stepFlops } from "./shapes.mjs";
import { median, ratio } from "./median.mjs";
import { FULL, QUICK, bursts, race } from "./race.mjs";
import { productError, stepError, stepReference, updateError, values } from "./reference.mjs";
import { hasFma, openWall } from "./wall.mjs";

const KERNELS = "its kernels";
const GEMMS = "their products";
const WALL = "wall";
const FMA_WALL = "fma wall";
const READ = "read";

const effort = ({ quick }) => (quick ? QUICK : FULL);
const rate = (flops, times) => flops / median(times) / 1e6;

/** A wall's: whatever disturbs a round can only slow it down, and a wall is what nothing exceeds. */
const fastest = (amount, times) => amount / Math.min(...times) / 1e6;

/** Both at their fastest. */
const ofWall = (flops, times, wall, wallTimes) => flops / Math.min(...times) / (wall.flops / Math.min(...wallTimes));

/** Those that load, and ours on several threads; the others' reasons. */
async function openEngines(names, { threads = 1 }) {
  const engines = {};
  const missing = {};
  const wanted = { ...Object.fromEntries(names.map((name) => [name, ENGINES[name]])), ...enginesOnThreads(threads) };
  for (const [name, load] of Object.entries(wanted)) {
    try {
      engines[name] = await (await load()).open();
    } catch (error) {
      missing[name] = String(error.message ?? error).split("\n")[0];
    }
  }
  if (engines[OURS] === undefined) throw new Error(`the library does not load: ${missing[OURS]}`);
  const close = () => {
    for (const engine of Object.values(engines)) engine.close?.();
  };
  return { engines, missing, close };
}

/** How many times as fast as on one thread ours are on several, by arithmetic. */
const speedups = (times, { threads = 1 }) =>
  Object.fromEntries(
    [OURS, FUSED]
      .filter((name) => threads > 1 && times[name] && times[onThreads(name, threads)])
      .map((name) => [name, ratio(times[name], times[onThreads(name, threads)])]),
  );

/** How many times as much fused multiply-adds do here as products and sums. */
const fusingGains = (wall, fmaWall) => (fmaWall ? fmaWall.rate / wall.rate : undefined);

/** The faster chain of the wall as a contestant. */
async function fastestChain(kind, options) {
  const { chains } = openWall(kind);
  for (const { run } of chains) for (let i = 0; i < 20; i++) run();
  const times = await race(chains, effort(options));
  return chains
    .map((chain) => ({ ...chain, rate: fastest(chain.flops, times[chain.name]) }))
    .reduce((best, chain) => (chain.rate > best.rate ? chain : best));
}

/** The walls as contestants; that of the fused build where it runs. */
async function openWalls(engines, options) {
  const wall = { ...(await fastestChain("plain", options)), name: WALL };
  return { wall, fmaWall: engines[FUSED] && { ...(await fastestChain("fma", options)), name: FMA_WALL } };
}

/** Contestants whose result is right, opened; what is wrong or fails becomes a reason. */
async function admit(candidates, errorOf) {
  const admitted = [];
  const refused = {};
  const open = [];
  for (const [name, prepare] of candidates) {
    try {
      const contestant = await prepare();
      open.push(contestant);
      const error = errorOf(name, await contestant.result());
      if (error <= 1) admitted.push({ name, run: contestant.run });
      else refused[name] = `wrong result: ${error} times the error bound`;
    } catch (error) {
      refused[name] = String(error.message ?? error).split("\n")[0];
    }
  }
  if (refused[OURS]) throw new Error(`${OURS}: ${refused[OURS]}`);
  return {
    admitted,
    refused,
    free: async () => {
      for (const contestant of open) await contestant.free();
    },
  };
}

async function machine(options, progress) {
  const result = { gflops: {}, read: [] };
  for (const [at, kind] of (hasFma() ? ["plain", "fma"] : ["plain"]).entries()) {
    progress(at, 2 + READS.length, `${kind} multiply-adds`);
    const chain = await fastestChain(kind, options);
    const times = await race([{ ...chain, name: WALL }], effort(options));
    result.gflops[kind] = { fastest: fastest(chain.flops, times[WALL]), chain: chain.name };
  }
  const { read } = openWall();
  for (const [at, bytes] of READS.entries()) {
    progress(2 + at, 2 + READS.length, `reading ${bytes} bytes`);
    const times = await race([{ name: READ, run: read(bytes) }], effort(options));
    result.read.push({ bytes, gigabytesPerSecond: fastest(bytes, times[READ]) });
  }
  return result;
}

async function sgemm(options, progress) {
  const { engines, missing, close } = await openEngines([OURS, FUSED, TFJS, ONNX, JAX], options);
  const { wall, fmaWall } = await openWalls(engines, options);
  const { read } = openWall();
  const rows = [];
  for (const [at, shape] of PRODUCTS.entries()) {
    progress(at, PRODUCTS.length, shape.join(" x "));
    const [m, n, k] = shape;
    const a = values(m * k, 1);
    const b = values(k * n, 2);
    const flops = productFlops(shape);
    const kind = kindOf(shape);
    const { admitted, refused, free } = await admit(
      Object.entries(engines).map(([name, { matmul }]) => [name, () => matmul(m, n, k, a, b)]),
      (_, result) => productError(result, m, n, k, a, b),
    );
    const fewRows = kind === "one row" || kind === "8 rows";
    const walls = fmaWall ? [wall, fmaWall] : [wall];
    const times = await race(
      [...admitted, ...walls, ...(fewRows ? [{ name: READ, run: read(4 * k * n) }] : [])],
      effort(options),
    );
    await free();
    const peers = admitted.map(({ name }) => name).filter((name) => !isOurs(name));
    const best = peers.reduce(
      (least, name) => (least === null || median(times[name]) < median(times[least]) ? name : least),
      null,
    );
    rows.push({
      shape,
      kind,
      gflops: Object.fromEntries(admitted.map(({ name }) => [name, rate(flops, times[name])])),
      refused,
      bestPeer: best,
      ofBestPeer: best && ratio(times[best], times[OURS]),
      ofWall: ofWall(flops, times[OURS], wall, times[WALL]),
      ...(times[FUSED] ? { ofFmaWall: ofWall(flops, times[FUSED], fmaWall, times[FMA_WALL]) } : {}),
      ...(fewRows ? { ofReading: ratio(times[READ], times[OURS]) } : {}),
      speedup: speedups(times, options),
    });
  }
  close();
  return { missing, rows, threads: options.threads, fusingGains: fusingGains(wall, fmaWall) };
}

async function lora(options, progress) {
  const { engines, missing, close } = await openEngines([OURS, FUSED, TFJS, JAX], options);
  const { wall, fmaWall } = await openWalls(engines, options);
  const rows = [];
  for (const [at, shape] of LAYERS.entries()) {
    progress(at, LAYERS.length, shape.join(", "));
    const [n, d, k, r] = shape;
    const s = 2;
    const problem = {
      n,
      d,
      k,
      r,
      s,
      x: values(n * d, 1),
      w: values(k * d, 2),
      a: values(r * d, 3),
      b: values(k * r, 4),
      dy: values(n * k, 5),
    };
    const reference = stepReference(problem);
    const full = stepReference({ ...problem, r: 0 });
    const { [OURS]: ours, [TFJS]: tf, [JAX]: jax } = engines;
    const { admitted, refused, free } = await admit(
      [
        ...Object.entries(engines)
          .filter(([name]) => isOurs(name))
          .map(([name, engine]) => [name, () => engine.loraStep(problem)]),
        [FULL_STEP, () => ours.fullStep(problem)],
        ...(jax ? [[JAX, () => jax.loraStep(problem)]] : []),
        ...(tf
          ? [
              [TFJS_BEST, () => tf.loraStepAtBest(problem)],
              [TFJS_WRITTEN, () => tf.loraStepAsWritten(problem)],
            ]
          : []),
      ],
      (name, result) => stepError(name === FULL_STEP ? full : reference, result),
    );
    const kernels = ours.loraKernels(problem);
    if (!sameBits(kernels.resultOf(kernels.run), kernels.resultOf(kernels.runProducts)))
      throw new Error(`${shape}: the kernels' bits are not their products'`);
    const times = await race(
      [
        ...admitted,
        { name: KERNELS, run: kernels.run },
        { name: GEMMS, run: kernels.runProducts },
        wall,
        ...(fmaWall ? [fmaWall] : []),
      ],
      effort(options),
    );
    kernels.free();
    await free();
    rows.push({
      shape,
      milliseconds: Object.fromEntries(
        Object.entries(times)
          .filter(([name]) => name !== WALL && name !== FMA_WALL)
          .map(([name, of]) => [name, median(of)]),
      ),
      refused,
      ratios: Object.fromEntries(
        [JAX, TFJS_BEST, TFJS_WRITTEN, FULL_STEP]
          .filter((name) => times[name])
          .map((name) => [name, ratio(times[name], times[OURS])]),
      ),
      ...(times[JAX] && times[FUSED] ? { fusedOfJax: ratio(times[JAX], times[FUSED]) } : {}),
      ofProducts: ratio(times[KERNELS], times[GEMMS]),
      ofWall: ofWall(stepFlops(shape), times[OURS], wall, times[WALL]),
      ...(times[FUSED] ? { ofFmaWall: ofWall(stepFlops(shape), times[FUSED], fmaWall, times[FMA_WALL]) } : {}),
      speedup: speedups(times, options),
      flops: { step: stepFlops(shape), full: fullFlops(shape) },
    });
  }
  close();
  return { missing, rows, threads: options.threads, fusingGains: fusingGains(wall, fmaWall) };
}

const sameBits = (these, those) =>
  these.every((values, i) => values.every((value, j) => Object.is(value, those[i][j])));

/** Tokens a second of a Llama's training step. */
async function llama(options, progress) {
  const { missing } = await openEngines([OURS, JAX], {});
  const { LLAMAS, openLlama } = await import("./llama.mjs");
  const rows = [];
  const wanted = Object.entries(LLAMAS).filter(([name]) => !options.quick || name === "base");
  for (const [at, [, model]] of wanted.entries()) {
    progress(at, wanted.length, model.title);
    const { ours, jax, tokens, initial } = await openLlama(model);
    const error = updateError(ours.result(), await jax.result(), initial);
    if (!(error < 1e-3)) throw new Error(`${model.title}: jax-js and this library differ by ${error}`);
    const times = await race(
      [
        { name: OURS, run: ours.run },
        { name: JAX, run: jax.run },
      ],
      effort(options),
    );
    ours.free();
    jax.free();
    rows.push({
      model: model.title,
      batch: model.batch,
      steps: model.steps,
      difference: error,
      tokensPerSecond: Object.fromEntries(
        Object.entries(times).map(([name, of]) => [name, (tokens / median(of)) * 1000]),
      ),
      ofJax: ratio(times[JAX], times[OURS]),
    });
  }
  return { missing, rows };
}

/** With what became of the races' bursts. */
const counted = (section) => async (options, progress) => {
  const before = { ...bursts };
  const result = await section(options, progress);
  return {
    ...result,
    bursts: Object.fromEntries(Object.entries(bursts).map(([what, count]) => [what, count - before[what]])),
  };
};

export const SECTIONS = {
  machine: counted(machine),
  sgemm: counted(sgemm),
  lora: counted(lora),
  llama: counted(llama),
};

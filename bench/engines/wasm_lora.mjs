/** This library, in either arithmetic, on one thread and on several. */
import { kernelBytes } from "#platform";
import { init, lora, nn, ops, scope, tensor } from "../../dist/src/index.js";
import { instantiate, withEngine } from "../../dist/src/runtime/engine.js";
import { sharing } from "../../dist/src/runtime/sharing.js";

export async function open() {
  return on(await init());
}

/** An engine of its own beside the first. @throws where fused arithmetic, or threads, are not to be had */
export async function openBeside(arithmetic, threads) {
  const bytes = kernelBytes[arithmetic];
  const module = await WebAssembly.compile(threads > 1 ? sharing(bytes) : bytes);
  const engine = instantiate(module, {}, threads);
  await engine.startThreads(module);
  if (engine.threads !== threads) throw new Error(`there are ${engine.threads} threads, not ${threads}`);
  return { ...on(engine), close: () => engine.close() };
}

function on(engine) {
  const { kernels, memory, scratch } = engine;

  /** Float32Arrays (or lengths) as blocks of linear memory. */
  const blocks = (...contents) =>
    contents.map((content) => {
      const length = content.length ?? content;
      const address = memory.alloc(4 * length);
      if (content.length) memory.f32(address, length).set(content);
      else memory.f32(address, length).fill(0);
      return address;
    });
  const release = (addresses) => addresses.forEach((address) => memory.free(address));
  const trained = (values, shape) => Object.assign(tensor(values, shape), { requiresGrad: true });

  /** A layer's step as users write it, through the public interface: loss = sum(y * dy). */
  function step(layer, { n, d, k, x, dy }, parameters) {
    const input = trained(x, [n, d]);
    const upstream = tensor(dy, [n, k]);
    const once = (collect) =>
      withEngine(engine, () =>
        scope(() => {
          const loss = ops.sum(ops.mul(layer.forward(input), upstream));
          loss.backward();
          const result = collect?.(loss);
          for (const t of [input, ...parameters]) {
            t.grad.dispose();
            t.grad = null;
          }
          return result;
        }),
      );
    return {
      run: () => once(),
      result: () =>
        once((loss) => ({
          loss: loss.item(),
          dx: input.grad.data.slice(),
          gradients: parameters.map((p) => p.grad.data.slice()),
        })),
      free: () =>
        withEngine(engine, () => {
          for (const owner of [layer, input, upstream]) owner.dispose();
        }),
    };
  }

  return {
    matmul(m, n, k, a, b) {
      const addresses = blocks(a, b, m * n);
      const [pa, pb, pc] = addresses;
      const run = () =>
        kernels.sgemmNN({ m, n, k, alpha: 1, a: pa, lda: k, b: pb, ldb: n, beta: 0, c: pc, ldc: n, scratch });
      return {
        run,
        result() {
          run();
          return memory.f32(pc, m * n).slice();
        },
        free: () => release(addresses),
      };
    },

    loraStep: (problem) =>
      withEngine(engine, () => {
        const { d, k, r, s, w, a, b } = problem;
        const layer = new lora.Linear(d, k, { r, loraAlpha: s * r, bias: false });
        for (const [p, values] of [
          [layer.weight, w],
          [layer.loraA, a],
          [layer.loraB, b],
        ])
          p.data.set(values);
        return step(layer, problem, [layer.loraA, layer.loraB]);
      }),

    /** Full fine-tuning of the same layer: dW instead of dA and dB. */
    fullStep: (problem) =>
      withEngine(engine, () => {
        const { d, k, w } = problem;
        const layer = new nn.Linear(d, k, { bias: false });
        layer.weight.data.set(w);
        return step(layer, problem, [layer.weight]);
      }),

    /** The LoRA step's kernels alone, and the products that they consist of, each as a call of sgemm. */
    loraKernels({ n, d, k, r, s, x, w, a, b, dy }) {
      const addresses = blocks(x, w, a, b, dy, n * k, n * d, r * d, k * r, n * r, n * r);
      const [px, pw, pa, pb, pdy, py, pdx, pda, pdb, phs, pzs] = addresses;
      const outputs = [
        [py, n * k],
        [pdx, n * d],
        [pda, r * d],
        [pdb, k * r],
      ];
      return {
        /** y, dx, dA and dB after `run` on zeroed buffers. */
        resultOf(run) {
          for (const [address, length] of outputs) memory.f32(address, length).fill(0);
          run();
          return outputs.map(([address, length]) => memory.f32(address, length).slice());
        },
        run() {
          kernels.loraLinearForward({
            n,
            d,
            k,
            r,
            s,
            x: px,
            xDropped: px,
            weight: pw,
            fanInFanOut: false,
            format: 0,
            bias: 0,
            a: pa,
            b: pb,
            hs: phs,
            y: py,
            scratch,
          });
          kernels.loraLinearBackward({
            n,
            d,
            k,
            r,
            s,
            x: px,
            xDropped: px,
            weight: pw,
            fanInFanOut: false,
            format: 0,
            a: pa,
            b: pb,
            hs: phs,
            zs: pzs,
            dy: pdy,
            dx: pdx,
            dxDropped: 0,
            dWeight: 0,
            dBias: 0,
            da: pda,
            db: pdb,
            scratch,
          });
        },
        runProducts() {
          kernels.sgemmNT({
            m: n,
            n: r,
            k: d,
            alpha: s,
            a: px,
            lda: d,
            b: pa,
            ldb: d,
            beta: 0,
            c: phs,
            ldc: r,
            scratch,
          });
          kernels.sgemmNT({
            m: n,
            n: k,
            k: d,
            alpha: 1,
            a: px,
            lda: d,
            b: pw,
            ldb: d,
            beta: 0,
            c: py,
            ldc: k,
            scratch,
          });
          kernels.sgemmNT({
            m: n,
            n: k,
            k: r,
            alpha: 1,
            a: phs,
            lda: r,
            b: pb,
            ldb: r,
            beta: 1,
            c: py,
            ldc: k,
            scratch,
          });
          kernels.sgemmNN({ m: n, n: r, k, alpha: s, a: pdy, lda: k, b: pb, ldb: r, beta: 0, c: pzs, ldc: r, scratch });
          kernels.sgemmTN({
            m: r,
            n: d,
            k: n,
            alpha: 1,
            a: pzs,
            lda: r,
            b: px,
            ldb: d,
            beta: 1,
            c: pda,
            ldc: d,
            scratch,
          });
          kernels.sgemmTN({
            m: k,
            n: r,
            k: n,
            alpha: 1,
            a: pdy,
            lda: k,
            b: phs,
            ldb: r,
            beta: 1,
            c: pdb,
            ldc: r,
            scratch,
          });
          kernels.sgemmNN({ m: n, n: d, k, alpha: 1, a: pdy, lda: k, b: pw, ldb: d, beta: 1, c: pdx, ldc: d, scratch });
          kernels.sgemmNN({
            m: n,
            n: d,
            k: r,
            alpha: 1,
            a: pzs,
            lda: r,
            b: pa,
            ldb: d,
            beta: 1,
            c: pdx,
            ldc: d,
            scratch,
          });
        },
        free: () => release(addresses),
      };
    },
  };
}

/** This library, and its relaxed build. */
import { relaxedBytes } from "#platform";
import { init, lora, nn, ops, scope, tensor } from "../../dist/src/index.js";
import { instantiate, withEngine } from "../../dist/src/runtime/engine.js";

export async function open() {
  return on(await init());
}

/** An engine of its own beside the first. @throws where the relaxed build does not validate */
export async function openRelaxed() {
  return on(instantiate(await WebAssembly.compile(relaxedBytes())));
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
      const run = () => kernels.sgemmNN(m, n, k, 1, pa, k, pb, n, 0, pc, n, scratch);
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
          kernels.loraLinearForward(n, d, k, r, s, px, px, pw, false, 0, pa, pb, phs, py, scratch);
          kernels.loraLinearBackward(
            n,
            d,
            k,
            r,
            s,
            px,
            px,
            pw,
            false,
            pa,
            pb,
            phs,
            pzs,
            pdy,
            pdx,
            0,
            0,
            0,
            pda,
            pdb,
            scratch,
          );
        },
        runProducts() {
          kernels.sgemmNT(n, r, d, s, px, d, pa, d, 0, phs, r, scratch);
          kernels.sgemmNT(n, k, d, 1, px, d, pw, d, 0, py, k, scratch);
          kernels.sgemmNT(n, k, r, 1, phs, r, pb, r, 1, py, k, scratch);
          kernels.sgemmNN(n, r, k, s, pdy, k, pb, r, 0, pzs, r, scratch);
          kernels.sgemmTN(r, d, n, 1, pzs, r, px, d, 1, pda, d, scratch);
          kernels.sgemmTN(k, r, n, 1, pdy, k, phs, r, 1, pdb, r, scratch);
          kernels.sgemmNN(n, d, k, 1, pdy, k, pw, d, 1, pdx, d, scratch);
          kernels.sgemmNN(n, d, r, 1, pzs, r, pa, d, 1, pdx, d, scratch);
        },
        free: () => release(addresses),
      };
    },
  };
}

/** jax-js on its wasm device. A call consumes a reference to each argument; `ref` adds one. */
import { blockUntilReady, defaultDevice, init, jit, numpy as np, valueAndGrad } from "@jax-js/jax";

export const array = (values, shape) => np.array(values).reshape(shape);

/** Computes everything in a tree of arrays, then drops it. */
export async function finish(arrays) {
  await blockUntilReady(arrays.map((a) => a.ref));
  for (const a of arrays) a.dispose();
}

export async function open() {
  await init("wasm");
  defaultDevice("wasm");
  const product = jit((x, y) => np.matmul(x, y));
  return {
    async matmul(m, n, k, a, b) {
      const ja = array(a, [m, k]);
      const jb = array(b, [k, n]);
      await blockUntilReady([ja.ref, jb.ref]);
      return {
        run: () => finish([product(ja.ref, jb.ref)]),
        result: () => product(ja.ref, jb.ref).data(),
        free() {
          ja.dispose();
          jb.dispose();
        },
      };
    },

    /**
     * jit(valueAndGrad) of sum(y * dy); the value is returned and waited for, so the base product cannot be dropped.
     */
    async loraStep({ n, d, k, r, s, x, w, a, b, dy }) {
      const given = [array(x, [n, d]), array(a, [r, d]), array(b, [k, r]), array(w, [k, d]), array(dy, [n, k])];
      await blockUntilReady(given.map((t) => t.ref));
      const loss = (x, a, b, w, dy) => {
        const low = np.matmul(np.matmul(x.ref, a.transpose()), b.transpose()).mul(s);
        return np.sum(np.matmul(x, w.transpose()).add(low).mul(dy));
      };
      const step = jit(valueAndGrad(loss, { argnums: [0, 1, 2] }));
      const call = () => {
        const [value, gradients] = step(...given.map((t) => t.ref));
        return [value, ...gradients];
      };
      return {
        run: () => finish(call()),
        async result() {
          const [value, dx, ...others] = call();
          return {
            loss: (await value.data())[0],
            dx: await dx.data(),
            gradients: await Promise.all(others.map((g) => g.data())),
          };
        },
        free() {
          given.forEach((t) => t.dispose());
          step.dispose();
        },
      };
    },
  };
}

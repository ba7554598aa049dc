/** TensorFlow.js on its WebAssembly backend (XNNPACK), one thread. */
import { loadTensorFlow } from "#platform";

export async function open() {
  const { tf, wasm } = await loadTensorFlow();
  wasm.setThreadsCount(1);
  if (!(await tf.setBackend("wasm"))) throw new Error("the wasm backend did not start");
  await tf.ready();

  function step(loss, { n, d, r, k, x, a, b, dy }) {
    const inputs = [tf.tensor2d(x, [n, d]), tf.tensor2d(a, [r, d]), tf.tensor2d(b, [k, r])];
    const upstream = tf.tensor2d(dy, [n, k]);
    const gradients = tf.valueAndGrads(loss);
    return {
      run() {
        const { value, grads } = gradients(inputs, upstream);
        tf.dispose([value, grads]);
      },
      result: () =>
        tf.tidy(() => {
          const { value, grads } = gradients(inputs, upstream);
          const [dx, ...others] = grads.map((g) => g.dataSync().slice());
          return { loss: tf.sum(tf.mul(value, upstream)).dataSync()[0], dx, gradients: others };
        }),
      free: () => tf.dispose([inputs, upstream]),
    };
  }

  return {
    matmul(m, n, k, a, b) {
      const ta = tf.tensor2d(a, [m, k]);
      const tb = tf.tensor2d(b, [k, n]);
      return {
        run: () => tf.matMul(ta, tb).dispose(),
        result: () => tf.tidy(() => tf.matMul(ta, tb).dataSync().slice()),
        free: () => tf.dispose([ta, tb]),
      };
    },

    /** As users write it. The gradient of a product multiplies with transposed operands, a scalar loop. */
    loraStepAsWritten(problem) {
      const { d, k, s } = problem;
      const w = tf.tensor2d(problem.w, [k, d]);
      const made = step(
        (x, a, b) =>
          tf.add(tf.matMul(x, w, false, true), tf.mul(tf.matMul(tf.matMul(x, a, false, true), b, false, true), s)),
        problem,
      );
      return {
        ...made,
        free() {
          made.free();
          w.dispose();
        },
      };
    },

    /**
     * At its best: both layouts of W are kept, small operands transposed by hand, and no product is a transposed one.
     */
    loraStepAtBest(problem) {
      const { d, k, s } = problem;
      const w = tf.tensor2d(problem.w, [k, d]);
      const wt = tf.transpose(w);
      const made = step(
        tf.customGrad((x, a, b, save) => {
          const hs = tf.mul(tf.matMul(x, tf.transpose(a)), s);
          save([x, a, b, hs]);
          return {
            value: tf.add(tf.matMul(x, wt), tf.matMul(hs, tf.transpose(b))),
            gradFunc(dy, [x, a, b, hs]) {
              const zs = tf.mul(tf.matMul(dy, b), s);
              return [
                tf.add(tf.matMul(dy, w), tf.matMul(zs, a)),
                tf.matMul(tf.transpose(zs), x),
                tf.transpose(tf.matMul(tf.transpose(hs), dy)),
              ];
            },
          };
        }),
        problem,
      );
      return {
        ...made,
        free() {
          made.free();
          tf.dispose([w, wt]);
        },
      };
    },
  };
}

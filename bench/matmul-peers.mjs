/**
 * The contestants of gemm.mjs. Each is opened once; matmul(m, n, k, a, b) prepares C = A B for
 * row-major f32 A [m, k] and B [k, n] and returns { run, result, free }: run() is what is timed,
 * result() computes C as a Float32Array, free() releases everything. One thread each.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const versionAt = (directory) => JSON.parse(readFileSync(new URL(`${directory}/package.json`, import.meta.url), "utf8")).version;
const versionOf = (name) => versionAt(`node_modules/${name}`);

async function openWasmLora() {
  const { init } = await import("../dist/src/index.js");
  const { kernels, memory, scratch } = await init();
  return {
    version: versionAt(".."),
    matmul(m, n, k, a, b) {
      const [pa, pb, pc] = [m * k, k * n, m * n].map((length) => memory.alloc(4 * length));
      memory.f32(pa, a.length).set(a);
      memory.f32(pb, b.length).set(b);
      const run = () => kernels.sgemmNN(m, n, k, 1, pa, k, pb, n, 0, pc, n, scratch);
      return {
        run,
        result() {
          run();
          return memory.f32(pc, m * n).slice();
        },
        free: () => [pa, pb, pc].forEach((address) => memory.free(address)),
      };
    },
  };
}

async function openTensorFlow() {
  const tf = require("@tensorflow/tfjs-core");
  require("@tensorflow/tfjs-backend-wasm").setThreadsCount(1);
  await tf.setBackend("wasm");
  await tf.ready();
  return {
    version: versionOf("@tensorflow/tfjs-backend-wasm"),
    matmul(m, n, k, a, b) {
      const ta = tf.tensor2d(a, [m, k]), tb = tf.tensor2d(b, [k, n]);
      return {
        run: () => tf.matMul(ta, tb).dispose(),
        result: () => tf.tidy(() => tf.matMul(ta, tb).dataSync().slice()),
        free: () => tf.dispose([ta, tb]),
      };
    },
  };
}

async function openOnnxRuntime() {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  return {
    version: versionOf("onnxruntime-web"),
    async matmul(m, n, k, a, b) {
      const session = await ort.InferenceSession.create(matmulModel(m, n, k, b), { executionProviders: ["wasm"] });
      // It defines Worker globally under Node. With one thread it needs none, and jax-js, seeing it,
      // would want shared memory and threads.
      delete globalThis.Worker;
      const feeds = { a: new ort.Tensor("float32", a, [m, k]) };
      return {
        run: () => session.run(feeds),
        result: async () => (await session.run(feeds)).y.data.slice(),
        free: () => session.release(),
      };
    },
  };
}

/** In jax-js a call consumes a reference to each argument; `ref` adds one. */
async function openJax() {
  const { blockUntilReady, defaultDevice, init, jit, numpy: np } = await import("@jax-js/jax");
  await init("wasm");
  defaultDevice("wasm");
  const product = jit((x, y) => np.matmul(x, y));
  return {
    version: versionOf("@jax-js/jax"),
    async matmul(m, n, k, a, b) {
      const ja = np.array(a).reshape([m, k]), jb = np.array(b).reshape([k, n]);
      await blockUntilReady([ja.ref, jb.ref]);
      return {
        async run() {
          const y = product(ja.ref, jb.ref);
          await blockUntilReady(y.ref);
          y.dispose();
        },
        result: () => product(ja.ref, jb.ref).data(),
        free() { ja.dispose(); jb.dispose(); },
      };
    },
  };
}

export const PEERS = [
  { name: "wasm-lora", open: openWasmLora },
  { name: "tfjs-wasm", open: openTensorFlow },
  { name: "onnxruntime-web", open: openOnnxRuntime },
  { name: "jax-js", open: openJax },
];

/**
 * An ONNX model y = MatMul(a, b) as protobuf bytes; field numbers from onnx.proto (IR 8, opset 13).
 * b is a constant of the graph: the runtime packs it once, its best case.
 */
function matmulModel(m, n, k, b) {
  const varint = (value) => {
    const bytes = [];
    for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
    return Buffer.from([...bytes, value]);
  };
  const integer = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
  const bytes = (field, ...parts) => {
    const content = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)));
    return Buffer.concat([varint(field * 8 + 2), varint(content.length), content]);
  };
  const FLOAT = 1;
  const value = (field, name, dims) => {
    const shape = bytes(2, ...dims.map((dim) => bytes(1, integer(1, dim))));
    return bytes(field, bytes(1, name), bytes(2, bytes(1, integer(1, FLOAT), shape)));
  };
  const node = bytes(1, bytes(1, "a"), bytes(1, "b"), bytes(2, "y"), bytes(4, "MatMul"));
  const raw = Buffer.from(b.buffer, b.byteOffset, b.byteLength);
  const constant = bytes(5, integer(1, k), integer(1, n), integer(2, FLOAT), bytes(8, "b"), bytes(9, raw));
  const graph = bytes(7, node, bytes(2, "matmul"), constant, value(11, "a", [m, k]), value(12, "y", [m, n]));
  return new Uint8Array(Buffer.concat([integer(1, 8), graph, bytes(8, integer(2, 13))]));
}

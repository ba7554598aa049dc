/** onnxruntime-web (MLAS), one thread. It has no training: products only. */
import { loadOnnxRuntime } from "#platform";

export async function open() {
  const ort = await loadOnnxRuntime();
  ort.env.wasm.numThreads = 1;
  return {
    /** B is a constant of the graph, which the runtime packs once: its best case. */
    async matmul(m, n, k, a, b) {
      const session = await ort.InferenceSession.create(matmulModel(m, n, k, b), { executionProviders: ["wasm"] });
      // It defines Worker globally under Node. With one thread it needs none, and jax-js, seeing it, would use threads.
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

/** An ONNX model y = MatMul(a, b) as protobuf bytes; field numbers from onnx.proto (IR 8, opset 13). */
function matmulModel(m, n, k, b) {
  const varint = (value) => {
    const bytes = [];
    for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
    return Uint8Array.from([...bytes, value]);
  };
  const join = (parts) => {
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  };
  const integer = (field, value) => join([varint(field * 8), varint(value)]);
  const bytes = (field, ...parts) => {
    const content = join(parts.map((part) => (typeof part === "string" ? new TextEncoder().encode(part) : part)));
    return join([varint(field * 8 + 2), varint(content.length), content]);
  };
  const FLOAT = 1;
  const value = (field, name, dims) =>
    bytes(
      field,
      bytes(1, name),
      bytes(2, bytes(1, integer(1, FLOAT), bytes(2, ...dims.map((dim) => bytes(1, integer(1, dim)))))),
    );
  const node = bytes(1, bytes(1, "a"), bytes(1, "b"), bytes(2, "y"), bytes(4, "MatMul"));
  const constant = bytes(
    5,
    integer(1, k),
    integer(1, n),
    integer(2, FLOAT),
    bytes(8, "b"),
    bytes(9, new Uint8Array(b.buffer, b.byteOffset, b.byteLength)),
  );
  const graph = bytes(7, node, bytes(2, "matmul"), constant, value(11, "a", [m, k]), value(12, "y", [m, n]));
  return join([integer(1, 8), graph, bytes(8, integer(2, 13))]);
}

/** A GGUF file whose matrices are float32, with them as Q4_0: 32 values as one scale and 32 numbers of 4 bits. */
import { GGML_TYPES } from "../../dist/src/io/gguf/types.js";
import { readGgufHeader } from "../../dist/src/io/gguf/header.js";
import { serializeGguf } from "../../dist/src/io/gguf/writer.js";
import { toFloat16 } from "../../dist/src/io/narrow.js";

export function asQ4(file) {
  const { metadata, tensors } = readGgufHeader({
    path: "f32.gguf",
    size: file.length,
    read: (at, into) => into.set(file.subarray(at, at + into.length)),
    close: () => {},
  });
  const written = Array.from(tensors.values(), ({ name, shape, begin, length }) => {
    const bytes = file.slice(begin, begin + length);
    return shape.length < 2
      ? { name, dtype: "float32", shape, bytes }
      : { name, dtype: "q4_0", shape, bytes: quantised(new Float32Array(bytes.buffer)) };
  });
  const type = ["general.file_type", { type: "uint32", value: GGML_TYPES.q4_0.code }];
  return serializeGguf(new Map([...metadata, type]), written);
}

function quantised(values) {
  const out = new Uint8Array((values.length / 32) * 18);
  for (let block = 0; block < values.length / 32; block++) {
    const x = values.subarray(32 * block, 32 * block + 32);
    const largest = x.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
    const d = largest / -8;
    out.set(toFloat16(Float32Array.of(d)), 18 * block);
    const number = (value) => Math.min(15, Math.floor((d === 0 ? 0 : value / d) + 8.5));
    for (let i = 0; i < 16; i++) out[18 * block + 2 + i] = number(x[i]) | (number(x[16 + i]) << 4);
  }
  return out;
}

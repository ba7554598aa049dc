/** Values that come as bfloat16: the upper halves of float32. */
import { engine } from "../runtime/engine.js";
import { ShapeError } from "../runtime/errors.js";
import { checkTensor } from "./check.js";
import type { Tensor } from "./tensor.js";

/**
 * Overwrites a float32 tensor's values with bfloat16 ones, little-endian as files have them. They are copied into the
 * second half of its memory and widened from there, so each page is touched once and nothing else is allocated.
 * @throws ShapeError if the bytes are not those of as many values; DTypeError for an int32 tensor; DisposedError
 * @internal
 */
export function setBfloat16(t: Tensor, bytes: Uint8Array): void {
  const { kernels, memory } = engine();
  checkTensor("setBfloat16", "t", t);
  if (bytes.length !== 2 * t.size)
    throw new ShapeError(`setBfloat16: ${bytes.length} bytes for shape [${t.shape}]; expected ${2 * t.size}.`);
  const half = t.address + 2 * t.size;
  memory.u8(half, bytes.length).set(bytes);
  kernels.bfloat16Widen(t.address, half, t.size);
}

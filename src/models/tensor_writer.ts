/** A file's bytes become a tensor's values while they come: nothing waits for the rest of the tensor. */
import { copyFloat32 } from "../io/safetensors.js";
import type { PlacedTensor, StoredDtype } from "../io/huggingface.js";
import type { SafetensorsDtype } from "../io/safetensors_header.js";
import { engine } from "../runtime/engine.js";
import { formatOf, type HalfType } from "../tensor/dtype.js";
import type { Tensor } from "../tensor/tensor.js";

/** What may stay as it is stored. @internal */
export const HALVES: Readonly<Partial<Record<StoredDtype, HalfType>>> = { BF16: "bfloat16", F16: "float16" };
/** What is written of a tensor, and how its values lie in the file. */
type Stored = Pick<PlacedTensor, "name" | "dtype" | "shape" | "length" | "arrangement">;
/** Bytes of an F64. */
const DOUBLE = 8;

/**
 * Writes a tensor from a file's F32, F16, BF16 or F64 in parts of any length: a half one as it is stored, any other as
 * float32. Halves that become that are copied into the second half of the tensor's memory and widened from there when
 * all have come, so each page is touched once and nothing else is allocated.
 * @internal
 */
export class TensorWriter {
  readonly #tensor: Tensor;
  readonly #stored: Stored;
  /** Bytes so far. */
  #done = 0;
  /** The beginning of an F64 whose end has not come. */
  readonly #rest = new Uint8Array(DOUBLE);

  /** Which row of the tensor each row of the file is; null: the same. */
  readonly #rows: Int32Array | null;

  /** @param stored of the tensor's size */
  constructor(tensor: Tensor, stored: Stored) {
    this.#tensor = tensor;
    this.#stored = stored;
    this.#rows = stored.arrangement?.rows() ?? null;
  }

  /**
   * The next bytes of the file.
   * @throws FormatError for an F64 beyond float32; DisposedError
   */
  write(bytes: Uint8Array): void {
    if (this.#stored.dtype === "F64") this.#round(bytes);
    else {
      // Taken anew each time: memory may have grown meanwhile.
      const all = this.#tensor.bytes;
      const to = all.subarray(all.length - this.#stored.length);
      if (this.#rows) this.#putRows(bytes, to, this.#rows);
      else if (this.#stored.arrangement?.transposed) this.#putColumns(bytes, to);
      else to.set(bytes, this.#done);
      this.#done += bytes.length;
    }
    if (this.#done === this.#stored.length) this.#finish();
  }

  /** Each row, or part of one, to its place. */
  #putRows(bytes: Uint8Array, to: Uint8Array, rows: Int32Array): void {
    const rowBytes = this.#stored.length / rows.length;
    for (let from = 0; from < bytes.length; ) {
      const at = this.#done + from;
      const row = Math.floor(at / rowBytes);
      const within = at - row * rowBytes;
      const part = bytes.subarray(from, from + rowBytes - within);
      to.set(part, rows[row]! * rowBytes + within);
      from += part.length;
    }
  }

  /** Each byte to its place: parts of a stream may end within a value. */
  #putColumns(bytes: Uint8Array, to: Uint8Array): void {
    const [rows, columns] = this.#tensor.shape as [number, number];
    const valueBytes = this.#stored.length / (rows * columns);
    const value = Math.floor(this.#done / valueBytes);
    let byte = this.#done - value * valueBytes;
    let column = Math.floor(value / rows);
    let row = value - column * rows;
    for (let from = 0; from < bytes.length; from++) {
      to[(row * columns + column) * valueBytes + byte] = bytes[from]!;
      if (++byte < valueBytes) continue;
      byte = 0;
      if (++row < rows) continue;
      row = 0;
      column++;
    }
  }

  #finish(): void {
    this.#widen();
    if (this.#stored.arrangement?.offset !== 1) return;
    const { data } = this.#tensor;
    for (let i = 0; i < data.length; i++) data[i]! -= 1;
  }

  #widen(): void {
    const { address, size } = this.#tensor;
    const { kernels } = engine();
    const dtype = HALVES[this.#stored.dtype];
    // Ascending: each is read before its place, or one behind it, is written.
    if (dtype && this.#tensor.dtype === "float32") kernels.widen(address, address + 2 * size, size, formatOf(dtype));
  }

  #round(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; ) {
      const held = this.#done % DOUBLE;
      const whole = Math.floor((bytes.length - from) / DOUBLE) * DOUBLE;
      if (held === 0 && whole > 0) {
        this.#roundWhole(bytes.subarray(from, from + whole));
        from += whole;
        continue;
      }
      const part = bytes.subarray(from, from + DOUBLE - held);
      this.#rest.set(part, held);
      from += part.length;
      if (held + part.length === DOUBLE) {
        this.#done -= held;
        this.#roundWhole(this.#rest);
      } else this.#done += part.length;
    }
  }

  #roundWhole(bytes: Uint8Array): void {
    const first = this.#done / DOUBLE;
    copyFloat32(
      { ...(this.#stored as Stored & { dtype: SafetensorsDtype }), bytes },
      this.#tensor.data.subarray(first, first + bytes.length / DOUBLE),
      first,
    );
    this.#done += bytes.length;
  }
}

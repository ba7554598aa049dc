/** A file's bytes become a tensor's values while they come: nothing waits for the rest of the tensor. */
import type { PlacedTensor } from "../io/huggingface.js";
import { show } from "../io/json.js";
import { copyFloat32 } from "../io/safetensors.js";
import { engine } from "../runtime/engine.js";
import { FormatError } from "../runtime/errors.js";
import { formatOf, isBlocks, isHalf, storedBytes } from "../tensor/dtype.js";
import type { Tensor } from "../tensor/tensor.js";
import { fileDType, type FileDType } from "./parts/stored.js";

/** What is written of a tensor, and how its values lie in the file. */
type Stored = Pick<PlacedTensor, "name" | "dtype" | "length" | "arrangement">;

/** Values that are converted at a time: whole blocks of any format, and 128 KB of float32. */
const PIECE = 32768;
/** Where the float32 values of a piece go in the kernels' working space, behind the stored ones. */
const WIDE = 4 * PIECE;

/**
 * Writes a tensor from a file's values in parts of any length: as they are stored where the tensor is of that dtype,
 * widened where it is float32, quantised where it is of blocks. Halves that become float32 are copied into the second
 * half of the tensor's memory and widened from there when all have come, so each page is touched once and nothing else
 * is allocated; other values are converted through the kernels' working space.
 * @internal
 */
export class TensorWriter {
  readonly #tensor: Tensor;
  readonly #stored: Stored;
  readonly #dtype: FileDType;
  /** Bytes so far. */
  #done = 0;
  /** Which row of the tensor each row of the file is; null: the same. */
  readonly #rows: Int32Array | null;
  /** The beginning of what is converted at a time, whose end has not come; null: nothing is converted on the way. */
  readonly #piece: Uint8Array | null;

  /** @param stored of the tensor's size, and of a dtype that weights have */
  constructor(tensor: Tensor, stored: Stored) {
    this.#tensor = tensor;
    this.#stored = stored;
    this.#rows = stored.arrangement?.rows() ?? null;
    const dtype = (this.#dtype = fileDType(stored.dtype)!);
    const isAsItIs = dtype === tensor.dtype || (dtype !== "float64" && isHalf(dtype) && tensor.dtype === "float32");
    // Where rows change their order, a row at a time.
    const length = this.#rows ? stored.length / this.#rows.length : Math.min(stored.length, this.#bytesOf(PIECE));
    this.#piece = isAsItIs ? null : new Uint8Array(length);
  }

  /**
   * The next bytes of the file.
   * @throws FormatError for a value beyond float32, or beyond the blocks that it is to be part of; DisposedError
   */
  write(bytes: Uint8Array): void {
    if (this.#piece) this.#convert(this.#piece, bytes);
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
    const { address, size, dtype } = this.#tensor;
    if (this.#piece || this.#dtype === dtype) return;
    // Ascending: each is read before its place, or one behind it, is written.
    engine().kernels.widen(address, address + 2 * size, size, formatOf(this.#dtype as "float16"));
  }

  /** Bytes of so many of the file's values. */
  #bytesOf(values: number): number {
    return this.#dtype === "float64" ? 8 * values : storedBytes(values, this.#dtype);
  }

  /** As many values as so many bytes of the file. */
  #valuesOf(bytes: number): number {
    return Math.round((bytes / this.#bytesOf(PIECE)) * PIECE);
  }

  #convert(piece: Uint8Array, bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; ) {
      const held = this.#done % piece.length;
      const part = bytes.subarray(from, from + piece.length - held);
      piece.set(part, held);
      from += part.length;
      this.#done += part.length;
      const whole = held + part.length;
      if (whole === piece.length || this.#done === this.#stored.length) this.#putPiece(piece.subarray(0, whole));
    }
  }

  /** What has just become whole, some values after another. */
  #putPiece(bytes: Uint8Array): void {
    const begin = this.#done - bytes.length;
    const most = this.#bytesOf(PIECE);
    for (let from = 0; from < bytes.length; from += most)
      this.#put(bytes.subarray(from, from + most), this.#valuesOf(begin + from));
  }

  /** @param first the number of the first value, in the file */
  #put(bytes: Uint8Array, first: number): void {
    const { kernels, memory, scratch } = engine();
    const { address, dtype, shape } = this.#tensor;
    const count = this.#valuesOf(bytes.length);
    const transposed = this.#stored.arrangement?.transposed ?? false;
    const place = this.#placeOf(first);
    const isInPlace = dtype === "float32" && !transposed;
    const wide = isInPlace ? address + 4 * place : scratch + WIDE;
    if (this.#dtype === "float64")
      copyFloat32({ name: this.#stored.name, dtype: "F64", shape: [count], bytes }, memory.f32(wide, count), first);
    else if (this.#dtype === "float32") memory.u8(wide, bytes.length).set(bytes);
    else {
      memory.u8(scratch, bytes.length).set(bytes);
      kernels.widen(wide, scratch, count, formatOf(this.#dtype));
    }
    if (isInPlace) return;
    if (!isBlocks(dtype)) {
      const [rows, columns] = shape as [number, number];
      const { data } = this.#tensor;
      memory.f32(wide, count).forEach((value, i) => {
        const column = Math.floor((first + i) / rows);
        data[(first + i - column * rows) * columns + column] = value;
      });
    } else if (!kernels.quantise(address + storedBytes(place, dtype), wide, count, formatOf(dtype))) {
      throw new FormatError(
        `tensor ${show(this.#stored.name)} cannot be ${dtype}: one of its elements ${first} to ${first + count - 1} ` +
          `is not finite, or too large for it; load it without quantize.`,
      );
    }
  }

  /** The number that a value has in the tensor; of a matrix that is transposed it does not count. */
  #placeOf(value: number): number {
    if (!this.#rows) return value;
    const length = this.#tensor.size / this.#rows.length;
    const row = Math.floor(value / length);
    return this.#rows[row]! * length + (value - row * length);
  }
}

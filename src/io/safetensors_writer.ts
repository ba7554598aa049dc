/** A safetensors file that is written tensor by tensor: all of them together may be more than memory holds. */
import { StateError } from "../runtime/errors.js";
import type { NewFile } from "./open_file.js";
import type { SafetensorsDtype } from "./safetensors_header.js";

/** Where a tensor lies in the data. */
export interface Place {
  begin: number;
  end: number;
}

/** A tensor that was written, with what the header says of it. */
export interface PlacedEntry extends Place {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
}

/** Room that a header keeps for each tensor beside its name, and for itself. */
const ENTRY_BYTES = 256;
const HEADER_ALIGNMENT = 8;

/**
 * Writes the data first, in the order in which they come, and then the header into the room that was left for it; what
 * it does not need is spaces. The names need not be known before.
 */
export class SafetensorsWriter {
  readonly #file: NewFile;
  readonly #headerBytes: number;
  #end = 0;

  /** @param names of at least as many characters, and as many, as the tensors will have */
  constructor(file: NewFile, names: Iterable<string>) {
    this.#file = file;
    let bytes = ENTRY_BYTES;
    // A character is up to six bytes of JSON.
    for (const name of names) bytes += ENTRY_BYTES + 6 * name.length;
    this.#headerBytes = Math.ceil(bytes / HEADER_ALIGNMENT) * HEADER_ALIGNMENT;
  }

  /** A tensor's bytes, in parts. @throws FileError */
  append(parts: Iterable<Uint8Array>): Place {
    const begin = this.#end;
    for (const part of parts) {
      this.#file.write(8 + this.#headerBytes + this.#end, part);
      this.#end += part.length;
    }
    return { begin, end: this.#end };
  }

  /**
   * Writes the header; whoever made the file closes it.
   * @param entries all that was appended
   * @throws FileError; StateError for names that are longer than those that were told
   */
  finish(entries: readonly PlacedEntry[], metadata: Readonly<Record<string, string>>): void {
    const header = [["__metadata__", metadata] as const].concat(
      entries.map(
        ({ name, dtype, shape, begin, end }) => [name, { dtype, shape, data_offsets: [begin, end] }] as never,
      ),
    );
    const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
    if (text.length > this.#headerBytes)
      throw new StateError(`SafetensorsWriter: the header takes ${text.length} bytes of ${this.#headerBytes}.`);
    const start = new Uint8Array(8 + this.#headerBytes).fill(0x20);
    new DataView(start.buffer).setBigUint64(0, BigInt(this.#headerBytes), true);
    start.set(text, 8);
    this.#file.write(0, start);
  }
}

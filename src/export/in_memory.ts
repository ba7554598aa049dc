/** A file that is made in memory. */
import type { NewFile } from "../io/open_file.js";

/** Grows as it is written; its bytes are whole when it is closed. */
export class FileInMemory implements NewFile {
  #bytes = new Uint8Array(1 << 16);
  #size = 0;

  write(at: number, bytes: Uint8Array): void {
    const end = at + bytes.length;
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(end, 2 * this.#bytes.length));
      grown.set(this.#bytes.subarray(0, this.#size));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, at);
    this.#size = Math.max(this.#size, end);
  }

  close(): void {}

  get bytes(): Uint8Array {
    return this.#bytes.slice(0, this.#size);
  }
}

/** Bytes as Node's Buffer has them, in any runtime: slice() is a view of the same memory. */
export class BufferLike extends Uint8Array<ArrayBuffer> {
  override slice(start?: number, end?: number): Uint8Array<ArrayBuffer> {
    return this.subarray(start, end);
  }
}

/** Memory that is nearly full: for engines made with a small maximumBytes. */
import assert from "node:assert/strict";
import { OutOfMemoryError, type Tensor, zeros } from "../../src/index.js";

/** Fills memory but for `room` bytes in one piece; returns how to free it again. */
export function fillBut(room: number): () => void {
  const hole = zeros([room / 4]);
  const hogs: Tensor[] = [];
  for (const size of [65536, 4096, 256, 16]) {
    try {
      for (;;) hogs.push(zeros([size]));
    } catch (e) {
      assert(e instanceof OutOfMemoryError);
    }
  }
  hole.dispose();
  return () => {
    for (const t of hogs) t.dispose();
  };
}

/** A tensor's place in the graph that `backward` walks; what makes nodes is the tape (autograd/tape.ts). */

/** How a tensor was computed. */
export interface GraphNode<T> {
  /** Ascends in the order of creation: no node has a lower number than one that it depends on. */
  readonly id: number;
  /** The tensors that it was computed from. */
  readonly inputs: readonly T[];
  /** The tensors whose values `run` reads, but for those that the node itself saved. */
  readonly reads: readonly T[];
  /** Adds to the gradient of each input that wants one, from the gradient of the result. */
  run(dy: T): void;
  /** Frees what only `run` needs. */
  releaseSaved(): void;
}

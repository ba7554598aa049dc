/** What LoRA ops share: their low-rank terms, as given and as checked, and dropout on what a term reads. */
import type { DropoutMask } from "../../random/seed.js";
import { engine } from "../../runtime/engine.js";
import { ArgumentError } from "../../runtime/errors.js";
import { checkFloat, checkInteger, checkNumber, checkTensor, shown } from "../../tensor/check.js";
import type { Tensor } from "../../tensor/tensor.js";
import { dropoutKernels } from "./dropout.js";

/** A low-rank term as a caller gives it. */
export interface Branch {
  loraA: Tensor;
  loraB: Tensor;
  scaling: number;
  mask?: DropoutMask | null | undefined;
  from?: number | undefined;
  to?: number | undefined;
}

/** What a branch must fit. */
export interface Place {
  /** Shape of loraA behind its rank. */
  inputs: readonly number[];
  /** Shape of loraB, by the rank. @throws ShapeError for a rank that the op cannot have */
  shapeB(r: number): readonly number[];
  /** What `from` and `to` count. */
  parts: number;
  /** Items of each part: rows of a matrix, images or ids. */
  items: number;
}

/** A checked branch, for items `first` .. `first + count - 1`. */
export interface Term {
  r: number;
  s: number;
  a: Tensor | null;
  b: Tensor | null;
  mask: DropoutMask | null;
  first: number;
  count: number;
}

/** No term at all: rank 0, for `count` items. */
export const noTerm = (count: number): Term => ({ r: 0, s: 0, a: null, b: null, mask: null, first: 0, count });

/** The terms of an op's branches. @throws ArgumentError, ShapeError, DTypeError, DisposedError */
export function termsOf(where: string, branches: readonly Branch[], place: Place): Term[] {
  if (!Array.isArray(branches) || branches.some((b) => typeof b !== "object" || b === null)) {
    throw new ArgumentError(
      `${where}: branches must be an array of objects with loraA, loraB and scaling; got ${shown(branches)}.`,
    );
  }
  return branches.map((branch) => term(where, branch, place));
}

function term(where: string, { loraA: a, loraB: b, scaling: s, mask, from = 0, to }: Branch, place: Place): Term {
  checkTensor(where, "loraA", a, "float32", [null, ...place.inputs]);
  const r = a.shape[0]!;
  checkTensor(where, "loraB", b, "float32", place.shapeB(r));
  checkFloat(where, "scaling", s);
  checkMask(where, mask);
  const end = to ?? place.parts;
  checkInteger(where, "from", from, 0, place.parts);
  checkInteger(where, "to", end, from, place.parts);
  return { r, s, a, b, mask: mask ?? null, first: from * place.items, count: (end - from) * place.items };
}

/** A mask of `newMask`, or none. @throws ArgumentError */
export function checkMask(where: string, mask: DropoutMask | null | undefined): void {
  if (mask === null || mask === undefined) return;
  checkNumber(where, "mask.p", mask.p, 0, 1);
  checkInteger(where, "mask.seed", mask.seed, 0);
  checkInteger(where, "mask.stream", mask.stream, 0);
}

/** What kernels take for a tensor, or for none. */
export const addressOf = (t: Tensor | null): number => t?.address ?? 0;

/** Bytes that dropout of a term's items takes, each of `width` values. */
export function droppedBytes({ mask, count }: Term, width: number): number {
  return mask ? count * width * 4 : 0;
}

/** The address of dropout of a term's items, which are at x: made in `block`, or x if there is no mask. */
export function dropped({ mask, count }: Term, x: number, width: number, block: number): number {
  if (!mask) return x;
  dropoutKernels.forward(block, x, count * width, mask);
  return block;
}

/**
 * Runs a term's backward kernel with the places of its inputs and of their gradient: what the kernel leaves in
 * dxDropped is masked and added to dx.
 * @param width values of an item
 * @param x address of the term's items; 0 if the kernel does not read them
 * @param dx address of their gradient, or 0 if it is not wanted
 */
export function withDropped(
  t: Term,
  width: number,
  x: number,
  dx: number,
  run: (xDropped: number, dxDropped: number) => void,
): void {
  const { mask, count } = t;
  const bytes = droppedBytes(t, width);
  engine().memory.withBlocks([x && bytes, dx && bytes], (block, dblock) => {
    const dxDropped = mask && dx ? dblock : 0;
    run(x && dropped(t, x, width, block), dxDropped);
    if (dxDropped) dropoutKernels.backward(dx, dxDropped, count * width, mask!);
  });
}

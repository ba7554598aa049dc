/** Checks of what the LoRA ops share. */
import type { DropoutMask } from "../../random/seed.js";
import { ArgumentError } from "../../runtime/errors.js";
import { checkInteger, checkNumber, shown } from "../../tensor/check.js";

/** An array of objects, whose members the op checks. */
export function checkBranches(where: string, branches: readonly unknown[]): void {
  if (!Array.isArray(branches) || branches.some((b) => typeof b !== "object" || b === null)) {
    throw new ArgumentError(
      `${where}: branches must be an array of objects with loraA, loraB and scaling; got ${shown(branches)}.`,
    );
  }
}

/** A mask of `newMask`, or none. */
export function checkMask(where: string, mask: DropoutMask | null | undefined): void {
  if (mask === null || mask === undefined) return;
  checkNumber(where, "mask.p", mask.p, 0, 1);
  checkInteger(where, "mask.seed", mask.seed, 0);
  checkInteger(where, "mask.stream", mask.stream, 0);
}

/** What matching may cost: patterns come from files of strangers. */

/** Throws the caller's error; the message says what is wrong. */
export type Fail = (message: string) => never;

/**
 * Steps that are left, so that many patterns on many names end, too; and instructions, so that they do not fill memory.
 */
export interface Budget {
  left: number;
  room: number;
  fail: Fail;
}

/** Half a second's (measured). 100 patterns on 1,000 names take a fifth of it. */
const STEPS = 20_000_000;
/** What it takes to begin. */
export const COST_OF_A_RUN = 20;
/** Some 10 MB. */
export const INSTRUCTIONS = 200_000;

export function newBudget(fail: Fail): Budget {
  return { left: STEPS, room: INSTRUCTIONS, fail };
}

export function spend(budget: Budget, steps: number): void {
  budget.left -= steps;
  if (budget.left < 0)
    budget.fail(
      `its patterns take more than ${STEPS} steps on these names; write names instead of patterns, or fewer of both`,
    );
}

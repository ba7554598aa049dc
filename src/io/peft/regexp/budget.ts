/** What matching may cost: patterns come from files of strangers. */

/** Throws the caller's error; the message says what is wrong. */
export type Fail = (message: string) => never;

/** What the patterns of one config may still take, so that many of them on many names end, too, and fit into memory. */
export interface Budget {
  /** Steps. */
  left: number;
  /** Instructions. */
  room: number;
  fail: Fail;
}

/** Half a second's (measured). 100 patterns on 1,000 names take a fifth of it. */
const STEPS = 20_000_000;
/** Steps that a run counts before its first. */
export const COST_OF_A_RUN = 20;
/** Of all patterns of a config together: some 10 MB. */
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

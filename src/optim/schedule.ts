/** Learning-rate schedules: a factor for each step, from 0 on. cos comes from our kernels, so all engines agree. */
import { engine } from "../runtime/engine.js";
import { checkInteger, checkNumber } from "../tensor/check.js";

/** Maps the number of steps already taken to a factor on the base learning rate. */
export type Schedule = (step: number) => number;

/** 1 always. */
export function constantSchedule(): Schedule { return () => 1; }

function warmUp(step: number, warmupSteps: number): number { return Math.min(1, (step + 1) / (warmupSteps + 1)); }

/** Rises linearly over warmupSteps, then falls linearly to 0 at totalSteps (Hugging Face "linear"). @throws ArgumentError */
export function linearSchedule(totalSteps: number, warmupSteps = 0): Schedule {
  checkInteger("linearSchedule", "totalSteps", totalSteps, 1);
  checkInteger("linearSchedule", "warmupSteps", warmupSteps, 0, totalSteps);
  return (step) => step < warmupSteps ? warmUp(step, warmupSteps)
    : Math.max(0, (totalSteps - step) / Math.max(1, totalSteps - warmupSteps));
}

/**
 * Rises linearly over warmupSteps, then half a cosine down to `minimum` at totalSteps
 * (Loshchilov & Hutter 2017; Hugging Face "cosine"). @throws ArgumentError
 */
export function cosineSchedule(totalSteps: number, warmupSteps = 0, minimum = 0): Schedule {
  checkInteger("cosineSchedule", "totalSteps", totalSteps, 1);
  checkInteger("cosineSchedule", "warmupSteps", warmupSteps, 0, totalSteps);
  checkNumber("cosineSchedule", "minimum", minimum, 0, 1);
  return (step) => {
    if (step < warmupSteps) return warmUp(step, warmupSteps);
    const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
    return minimum + (1 - minimum) * engine().kernels.cosineDecay(progress);
  };
}

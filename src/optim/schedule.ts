/** Learning-rate schedules: a factor for each step, from 0 on. cos comes from our kernels, so all engines agree. */
import { engine } from "../runtime/engine.js";
import { checkInteger, checkNumber } from "../tensor/check.js";

/**
 * Maps the number of steps already taken to a factor on the base learning rate (torch's LambdaLR). Those made here
 * throw ArgumentError for a step that is no integer of at least 0.
 */
export type Schedule = (step: number) => number;

/**
 * Rises linearly over warmupSteps (default 0), then stays 1.
 *
 * Source: Hugging Face get_constant_schedule_with_warmup; here the first warm step is not 0.
 * @throws ArgumentError unless warmupSteps is an integer of at least 0
 *
 * @example
 * const factor = optim.constantSchedule(1);
 * console.log(factor(0), factor(1), factor(99)); // 0.5 1 1
 */
export function constantSchedule(warmupSteps = 0): Schedule {
  checkInteger("constantSchedule", "warmupSteps", warmupSteps, 0);
  return checked("constantSchedule", (step) => warmUp(step, warmupSteps));
}

function checked(where: string, schedule: Schedule): Schedule {
  return (step) => {
    checkInteger(where, "step", step, 0);
    return schedule(step);
  };
}

function warmUp(step: number, warmupSteps: number): number {
  return Math.min(1, (step + 1) / (warmupSteps + 1));
}

/**
 * Rises linearly over warmupSteps (default 0), then falls linearly to 0 at totalSteps.
 *
 * Source: Hugging Face get_linear_schedule_with_warmup; here the first warm step is not 0.
 * @throws ArgumentError unless totalSteps is a positive integer and warmupSteps one in 0 .. totalSteps
 *
 * @example
 * const factor = optim.linearSchedule(10, 1);
 * console.log(factor(0), factor(1), factor(10)); // 0.5 1 0
 */
export function linearSchedule(totalSteps: number, warmupSteps = 0): Schedule {
  checkInteger("linearSchedule", "totalSteps", totalSteps, 1);
  checkInteger("linearSchedule", "warmupSteps", warmupSteps, 0, totalSteps);
  return checked("linearSchedule", (step) =>
    step < warmupSteps
      ? warmUp(step, warmupSteps)
      : Math.max(0, (totalSteps - step) / Math.max(1, totalSteps - warmupSteps)),
  );
}

/**
 * Rises linearly over warmupSteps (default 0), then half a cosine down to `minimum` (default 0) at totalSteps.
 *
 * Source: Loshchilov & Hutter 2017; Hugging Face get_cosine_schedule_with_warmup; here the first warm step is not 0.
 * @param minimum factor at the end, 0 .. 1
 * @throws ArgumentError as `linearSchedule`, and for a minimum out of range
 *
 * @example
 * const weight = new nn.Parameter([1]).set([1]), optimizer = new optim.SGD([weight], { lr: 0.1 });
 * const factor = optim.cosineSchedule(100);
 * optimizer.paramGroups[0].lr = 0.1 * factor(optimizer.steps); // before each step
 * console.log(factor(0), factor(50).toFixed(3), factor(100)); // 1 0.500 0
 */
export function cosineSchedule(totalSteps: number, warmupSteps = 0, minimum = 0): Schedule {
  checkInteger("cosineSchedule", "totalSteps", totalSteps, 1);
  checkInteger("cosineSchedule", "warmupSteps", warmupSteps, 0, totalSteps);
  checkNumber("cosineSchedule", "minimum", minimum, 0, 1);
  return checked("cosineSchedule", (step) => {
    if (step < warmupSteps) return warmUp(step, warmupSteps);
    const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
    return minimum + (1 - minimum) * engine().kernels.cosineDecay(progress);
  });
}

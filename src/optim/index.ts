/**
 * Optimisers with torch's names and defaults, clipping and schedules.
 * @module
 */
export {
  Adam,
  AdamW,
  SGD,
  type AdamOptions,
  type Optimizer,
  type OptimizerOptions,
  type ParamGroup,
  type Params,
  type SGDOptions,
} from "./optimizer.js";
export { clipGradNorm_ } from "./clip.js";
export { constantSchedule, cosineSchedule, linearSchedule, type Schedule } from "./schedule.js";
export { loraPlusGroups, type LoraPlusGroup, type LoraPlusOptions } from "./lora_plus.js";
export { LoraFA, type LoraFAOptions } from "./lora_fa.js";

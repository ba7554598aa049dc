export { Adam, AdamW, SGD, type AdamOptions, type SGDOptions } from "./optimizer.js";
export { clipGradNorm_ } from "./clip.js";
export { constantSchedule, cosineSchedule, linearSchedule, type Schedule } from "./schedule.js";

/**
 * Fine-tuning as a whole: a run's steps, its state as bytes, and the memory that training takes, told beforehand.
 * @module
 */
export { Finetuning, type FinetuningState } from "./finetuning.js";
export type { Hash } from "../io/digest.js";
export type { FinetuningSettings } from "./settings.js";
export { exactMatch, type ExactMatch, type ExactMatchOptions, type GivenAnswer } from "./exact_match.js";
export { decodeCheckpoint, encodeCheckpoint, type Checkpoint } from "./checkpoint.js";
export { planTraining, type TrainingPlan, type TrainingPlanOptions } from "./plan.js";

/**
 * Fine-tuning as a whole: a run's steps, its state as bytes, and the memory that training takes, told beforehand.
 * @module
 */
export { Finetuning } from "./finetuning.js";
export type { Hash } from "../io/digest.js";
export type { RowData } from "./batches.js";
export { heldOutRows } from "./row_batches.js";
export type { Evaluation } from "./evaluations.js";
export type { FinetuningSettings } from "./settings.js";
export { evaluateRows, type EvaluateRowsOptions, type RowsEvaluation } from "./evaluate_rows.js";
export { exactMatch, type ExactMatch, type ExactMatchOptions, type GivenAnswer } from "./exact_match.js";
export type { Shard } from "./shards.js";
export type { FinetuningState, StepMetrics } from "./state.js";
export { decodeCheckpoint, encodeCheckpoint, type Checkpoint } from "./checkpoint.js";
export {
  planRows,
  planTraining,
  type PlannedGeneration,
  type RowPlanOptions,
  type TrainingPlanOptions,
} from "./plan.js";
export type { TrainingPlan } from "./rehearsed_run.js";

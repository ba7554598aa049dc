/**
 * Training of language models, told before it starts.
 * @module
 */
export { planTraining, type TrainingPlan, type TrainingPlanOptions } from "./plan.js";

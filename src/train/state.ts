/** All that a run's next step depends on, beside the model, the data and the settings. */
import type { Parameter, StateDict } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import type { Arithmetic } from "../runtime/fused.js";
import { shown } from "../runtime/shown.js";
import { isStateEntry } from "../runtime/state_entry.js";
import type { Evaluation } from "./evaluations.js";

/** What is known of a step that was taken. */
export interface StepMetrics {
  /** Its number, from 1 on: steps taken after it. */
  step: number;
  /** Epochs after it, with their fraction; null of a text, whose windows are drawn. */
  epoch: number | null;
  /** Mean loss of its scored tokens, before its update. */
  loss: number;
  /** The gradients' joint norm, before they were clipped. */
  gradNorm: number;
  /** That of its update; with LoRA+, that of A. */
  learningRate: number;
  /** Tokens that went through the model. */
  tokens: number;
  /** Targets that were scored. */
  scored: number;
}

/** What `Finetuning.state` gives and `Finetuning.restore` takes. */
export interface FinetuningState {
  /** In which the run computes: `Engine.arithmetic`. */
  arithmetic: Arithmetic;
  /** Of each step so far. */
  metrics: StepMetrics[];
  /** What was measured so far. */
  evaluations: Evaluation[];
  /** What is trained, by its state-dict key. */
  factors: StateDict;
  /** The same at the best evaluation; null: there is none. */
  bestFactors: StateDict | null;
  /** The optimiser's moments. */
  optimizer: StateDict;
}

/** Names of `StepMetrics`, in the order of checkpoints' columns. */
export const METRICS = [
  "step",
  "epoch",
  "loss",
  "gradNorm",
  "learningRate",
  "tokens",
  "scored",
] as const satisfies readonly (keyof StepMetrics)[];

/** @throws ArgumentError unless it is of the form that `Finetuning.state` gives */
export function checkState(where: string, state: unknown): asserts state is FinetuningState {
  const { arithmetic, metrics, evaluations, factors, bestFactors, optimizer } = (state ??
    {}) as Partial<FinetuningState>;
  const isState = (value: unknown): boolean => value instanceof Map && [...value.values()].every(isStateEntry);
  const isNumber = (value: unknown): boolean => typeof value === "number";
  if (
    (arithmetic === "separate" || arithmetic === "fused") &&
    Array.isArray(metrics) &&
    metrics.every((m) => METRICS.every((name) => isNumber(m?.[name]) || (name === "epoch" && m?.epoch === null))) &&
    Array.isArray(evaluations) &&
    evaluations.every((e) => isNumber(e?.step) && isNumber(e?.loss)) &&
    isState(factors) &&
    (bestFactors === null || isState(bestFactors)) &&
    isState(optimizer)
  )
    return;
  throw new ArgumentError(
    `${where}: state must be what Finetuning.state() or decodeCheckpoint() gives; got ${shown(state)}.`,
  );
}

/**
 * Whether the arithmetic, steps, factors and moments of a state are those of a run.
 * @param steps that the run has
 * @param trained what it trains, by its state-dict key
 * @param fail is told what is not
 */
export function checkFit(
  { arithmetic, metrics, factors, bestFactors, optimizer }: FinetuningState,
  own: Arithmetic,
  steps: number,
  trained: ReadonlyMap<string, Parameter>,
  fail: (message: string) => never,
): void {
  if (arithmetic !== own)
    fail(
      `it was computed in ${arithmetic} arithmetic, and this engine computes in ${own}: go on ` +
        `${arithmetic === "fused" ? "with init({ fused: true })" : "without fused"}, or start anew`,
    );
  const taken = metrics.length;
  if (taken > steps) fail(`it is of step ${taken}; the run has ${steps}`);
  const gap = metrics.findIndex(({ step }, i) => step !== i + 1);
  if (gap >= 0) fail(`its metrics have step ${metrics[gap]!.step} at place ${gap}; expected step ${gap + 1}`);
  for (const [what, dict] of [
    ["factor", factors],
    ["best factor", bestFactors ?? factors],
  ] as const)
    for (const [key, { shape, size }] of trained) {
      const entry = dict.get(key);
      if (!entry) return fail(`${what} ${key} is missing`);
      if (entry.shape.join() !== shape.join() || entry.data.length !== size)
        fail(`${what} ${key} has shape [${entry.shape}]; the run needs [${shape}]`);
    }
  const moments = [...optimizer.keys()].filter((key) => !key.endsWith(".step")).length;
  if (moments !== (taken === 0 ? 0 : 2 * trained.size))
    fail(`it holds ${moments} moments; expected 2 for each of ${trained.size} factors`);
}

/** What must not be kept, in words; undefined where all is finite. */
export function whereNotFinite({
  metrics,
  evaluations,
  factors,
  bestFactors,
  optimizer,
}: FinetuningState): string | undefined {
  for (const m of metrics)
    for (const name of METRICS)
      if (m[name] !== null && !Number.isFinite(m[name])) return `the ${name} of step ${m.step} is ${m[name]}`;
  for (const { step, loss } of evaluations)
    if (!Number.isFinite(loss)) return `the held-out loss after step ${step} is ${loss}`;
  const none: StateDict = new Map();
  for (const [what, dict] of [
    ["factor", factors],
    ["the best factor", bestFactors ?? none],
    ["the optimiser's state", optimizer],
  ] as const) {
    for (const [name, { data }] of dict) {
      const value = data.find((v) => !Number.isFinite(v));
      if (value !== undefined) return `${what} ${name} holds ${value}`;
    }
  }
  return undefined;
}

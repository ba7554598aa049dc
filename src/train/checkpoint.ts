/**
 * A run's state as one safetensors file, and back: the factors, the optimiser's moments and what is known of each step
 * as tensors, the rest in the metadata's entry "run", and a digest over it all in "digest". Of the arithmetic, fused is
 * written, and what is not written is the default. Where the bytes go is the
 * caller's affair: a disk, a page's IndexedDB, a Worker's storage.
 */
import { digestOfTensors } from "../io/digest.js";
import { asObject, show } from "../io/json.js";
import { parseSafetensors, serializeSafetensors, toFloat32, type TensorView } from "../io/safetensors.js";
import type { StateDict } from "../nn/module.js";
import { ArgumentError, DivergedError, FormatError } from "../runtime/errors.js";
import type { Arithmetic } from "../runtime/fused.js";
import { shown } from "../runtime/shown.js";
import type { Evaluation } from "./evaluations.js";
import { checkState, METRICS, whereNotFinite, type FinetuningState, type StepMetrics } from "./state.js";

const FORMAT = "wasm-lora-run";
/** In a column of numbers, what stands for null: an epoch is above 0. */
const NONE = -1;
const BYTES = 8;

/** A state read from a file. */
export interface Checkpoint {
  /** For `Finetuning.restore`. */
  state: FinetuningState;
  /** What was written beside it, as JSON has it. Whoever wrote it knows what it must be. */
  notes: Record<string, unknown>;
}

/**
 * A run's state as bytes, with a digest (SHA-256) that `decodeCheckpoint` compares.
 *
 * @param notes what is to be found beside the state, such as the settings: anything that JSON holds, by names other
 * than "arithmetic", "step", "evaluations" and "hasBest"
 * @throws DivergedError if a value is not finite; ArgumentError on what is no state, or notes that cannot be kept
 *
 * @example
 * const { model, tokenizer } = await models.loadBase();
 * const tokens = tokenizer.encode("Fresh bread comes out of the oven at seven. ".repeat(8));
 * const settings = { steps: 4, batch: 2, seq: 8 };
 * const run = new train.Finetuning(model, tokens, settings);
 * run.step();
 * const bytes = train.encodeCheckpoint(run.state(), { settings });
 * // later, perhaps elsewhere
 * const { state, notes } = train.decodeCheckpoint(bytes);
 * const again = new train.Finetuning((await models.loadBase()).model, tokens, notes.settings);
 * again.restore(state);
 * console.log(again.step() === run.step()); // true
 */
export function encodeCheckpoint(state: FinetuningState, notes: Readonly<Record<string, unknown>> = {}): Uint8Array {
  const where = "encodeCheckpoint";
  checkState(where, state);
  const { arithmetic, metrics, evaluations, factors, bestFactors, optimizer } = state;
  const run = runOf(where, notes, {
    arithmetic: arithmetic === "fused" ? arithmetic : undefined,
    step: metrics.length,
    evaluations,
    hasBest: bestFactors !== null,
  });
  const reason = whereNotFinite(state);
  if (reason) throw new DivergedError(`${where}: ${reason}: the run diverged, and must not go on from here.`, reason);
  const entries = (prefix: string, dict: StateDict) =>
    [...dict].map(([name, { shape, data }]) => ({ name: `${prefix}.${name}`, dtype: "F32" as const, shape, data }));
  const shape = [metrics.length, METRICS.length];
  const tensors = [
    { name: "metrics", dtype: "F64" as const, shape, data: columnsOf(metrics) },
    ...entries("factors", factors),
    ...entries("best", bestFactors ?? new Map()),
    ...entries("optimizer", optimizer),
  ];
  const metadata = { format: FORMAT, run };
  const digest = digestOfTensors(
    tensors.map((t) => ({ ...t, bytes: t.data })),
    metadata,
  );
  return serializeSafetensors(tensors, { ...metadata, digest });
}

/**
 * What `encodeCheckpoint` wrote.
 * @param name of the file, for errors
 * @throws FormatError if it is not a run's checkpoint, or is damaged, or its run had diverged
 *
 * @example
 * const none = { metrics: [], evaluations: [], factors: new Map(), bestFactors: null, optimizer: new Map() };
 * const bytes = train.encodeCheckpoint({ arithmetic: "separate", ...none }, { prompt: "We" });
 * console.log(train.decodeCheckpoint(bytes).notes); // { prompt: 'We' }
 */
export function decodeCheckpoint(bytes: Uint8Array, name = "checkpoint"): Checkpoint {
  const fail = (message: string): never => {
    throw new FormatError(`${name}: ${message}.`);
  };
  const { metadata, tensors } = parseSafetensors(bytes, { name });
  const columns = tensors.get("metrics");
  if (metadata["format"] !== FORMAT || !columns)
    return fail(`not the checkpoint of a run (its metadata's format is ${metadata["format"] ?? "absent"})`);
  if (metadata["digest"] !== digestOfTensors(tensors.values(), metadata))
    fail("it is damaged: its contents are not those that were written, by their digest");
  const pick = (prefix: string): StateDict =>
    new Map(
      [...tensors.values()]
        .filter((t) => t.name.startsWith(`${prefix}.`))
        .map((t) => [t.name.slice(prefix.length + 1), { shape: t.shape, data: toFloat32(t) }]),
    );
  const run = parseRun(metadata["run"] ?? "", fail);
  const { arithmetic = "separate", step, evaluations, hasBest, ...notes } = run;
  if (arithmetic !== "fused" && Object.hasOwn(run, "arithmetic"))
    fail(`its metadata's run has arithmetic ${show(arithmetic)}; expected "fused", or none`);
  if (!Number.isSafeInteger(step) || typeof hasBest !== "boolean" || !isEvaluations(evaluations))
    return fail(
      "its metadata's run lacks step, a count, hasBest, true or false, or evaluations, each of step and loss",
    );
  const metrics = metricsOf(columns, fail);
  if (step !== metrics.length) fail(`it holds ${metrics.length} steps' metrics; expected those of ${show(step)}`);
  const state = {
    arithmetic: arithmetic as Arithmetic,
    metrics,
    evaluations,
    factors: pick("factors"),
    bestFactors: hasBest ? pick("best") : null,
    optimizer: pick("optimizer"),
  };
  const reason = whereNotFinite(state);
  if (reason) fail(`${reason}: the run had diverged`);
  return { state, notes };
}

/** Metrics, step after step, each with its values in the order of METRICS, as float64. */
function columnsOf(metrics: readonly StepMetrics[]): Uint8Array {
  const data = new DataView(new ArrayBuffer(metrics.length * METRICS.length * BYTES));
  let at = 0;
  for (const m of metrics)
    for (const name of METRICS) {
      data.setFloat64(at, m[name] ?? NONE, true);
      at += BYTES;
    }
  return new Uint8Array(data.buffer);
}

function metricsOf({ bytes, dtype, shape }: TensorView, fail: (message: string) => never): StepMetrics[] {
  if (dtype !== "F64" || shape.length !== 2 || shape[1] !== METRICS.length)
    fail(`its metrics are ${dtype} of shape [${shape}]; expected F64 of ${METRICS.length} columns`);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: shape[0]! }, (_, i) => {
    const value = (name: (typeof METRICS)[number]): number =>
      data.getFloat64((i * METRICS.length + METRICS.indexOf(name)) * BYTES, true);
    const epoch = value("epoch");
    return {
      step: value("step"),
      epoch: epoch === NONE ? null : epoch,
      loss: value("loss"),
      gradNorm: value("gradNorm"),
      learningRate: value("learningRate"),
      tokens: value("tokens"),
      scored: value("scored"),
    };
  });
}

function isEvaluations(value: unknown): value is Evaluation[] {
  return (
    Array.isArray(value) &&
    value.every((e) => {
      const { step, loss } = asObject(e) ?? {};
      return Number.isSafeInteger(step) && typeof loss === "number";
    })
  );
}

/** The metadata's entry "run". */
function runOf(where: string, notes: unknown, own: Readonly<Record<string, unknown>>): string {
  if (!asObject(notes)) throw new ArgumentError(`${where}: notes must be an object; got ${shown(notes)}.`);
  const taken = Object.keys(own).find((name) => Object.hasOwn(notes as object, name));
  if (taken !== undefined) throw new ArgumentError(`${where}: notes must not have "${taken}": it is the state's own.`);
  try {
    return JSON.stringify({ ...(notes as object), ...own });
  } catch (cause) {
    throw new ArgumentError(`${where}: notes must be what JSON can hold: ${(cause as Error).message}.`);
  }
}

function parseRun(text: string, fail: (message: string) => never): Record<string, unknown> {
  let run: unknown;
  try {
    run = JSON.parse(text);
  } catch {
    fail("its metadata's run is not JSON");
  }
  return asObject(run) ?? fail("its metadata's run is no object");
}

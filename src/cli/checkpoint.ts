/**
 * A run's checkpoint: one safetensors file with the LoRA factors, the optimiser's moments and the
 * losses so far; settings and counters in its metadata. One file, replaced by rename: a kill leaves
 * the old one or the new one, whole.
 */
import { readBytes, writeAtomic } from "../io/files.js";
import { parseSafetensors, serializeSafetensors, toFloat32 } from "../io/safetensors.js";
import type { StateDict } from "../nn/module.js";
import { FormatError } from "../runtime/errors.js";

export interface Checkpoint<Settings> {
  settings: Settings;
  /** Digest of the frozen weights and the tokens: a run goes on only with the same. */
  inputs: string;
  step: number;
  /** Masks drawn so far (random/seed.ts). */
  dropoutStream: number;
  /** Held-out loss before training. */
  heldOutBefore: number;
  sampleBefore: string;
  losses: number[];
  factors: StateDict;
  optimizer: StateDict;
}

export function saveCheckpoint<S>(path: string, c: Checkpoint<S>): void {
  const entry = (prefix: string, state: StateDict) =>
    [...state].map(([name, e]) => ({ name: `${prefix}.${name}`, dtype: "F32" as const, shape: e.shape, data: e.data }));
  const losses = { name: "losses", dtype: "F32" as const, shape: [c.losses.length], data: Float32Array.from(c.losses) };
  const { settings, inputs, step, dropoutStream, heldOutBefore, sampleBefore } = c;
  const run = JSON.stringify({ settings, inputs, step, dropoutStream, heldOutBefore, sampleBefore });
  writeAtomic(path, serializeSafetensors([losses, ...entry("factors", c.factors), ...entry("optimizer", c.optimizer)], { format: "wasm-lora-run", run }));
}

/** @throws FileError, FormatError if it is not a checkpoint of a run */
export function loadCheckpointFile<S>(path: string): Checkpoint<S> {
  const { metadata, tensors } = parseSafetensors(readBytes(path), { name: path });
  if (metadata["format"] !== "wasm-lora-run" || !tensors.has("losses")) {
    throw new FormatError(`${path}: not the checkpoint of a run (its metadata's format is ${metadata["format"] ?? "absent"}).`);
  }
  const pick = (prefix: string): StateDict => new Map([...tensors.values()].filter((t) => t.name.startsWith(`${prefix}.`))
    .map((t) => [t.name.slice(prefix.length + 1), { shape: t.shape, data: toFloat32(t) }]));
  const losses = [...toFloat32(tensors.get("losses")!)];
  const run = parseRun<S>(path, metadata["run"] ?? "");
  if (run.step !== losses.length) throw new FormatError(`${path}: it holds ${losses.length} losses; expected one for each of ${run.step} steps.`);
  return { ...run, losses, factors: pick("factors"), optimizer: pick("optimizer") };
}

type RunState<S> = Omit<Checkpoint<S>, "losses" | "factors" | "optimizer">;

function parseRun<S>(path: string, text: string): RunState<S> {
  let run: Partial<RunState<S>> | null;
  try {
    run = JSON.parse(text) as Partial<RunState<S>> | null;
  } catch (cause) {
    throw new FormatError(`${path}: its metadata's run is not JSON.`, { cause });
  }
  const valid = run !== null && typeof run === "object" && typeof run.settings === "object" && run.settings !== null &&
    typeof run.inputs === "string" && Number.isSafeInteger(run.step) && Number.isSafeInteger(run.dropoutStream) && Number.isFinite(run.heldOutBefore) && typeof run.sampleBefore === "string";
  if (!valid) throw new FormatError(`${path}: its metadata's run lacks settings, inputs, step, dropoutStream, heldOutBefore or sampleBefore.`);
  return run as RunState<S>;
}

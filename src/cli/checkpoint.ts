/**
 * A run's checkpoint: one safetensors file with the LoRA factors, the optimiser's state and the losses so far; settings
 * and counters in its metadata, and a digest of it all. One file, replaced by rename: a kill leaves the old one or the
 * new one, whole. The one before it is kept beside it, for the day that the disk lies.
 */
import { digestOfTensors } from "../io/digest.js";
import { exists, readBytes, writeAtomic } from "../io/files.js";
import { parseSafetensors, serializeSafetensors, toFloat32 } from "../io/safetensors.js";
import type { StateDict } from "../nn/module.js";
import { ArgumentError, FileError, FormatError } from "../runtime/errors.js";
import { checkSettings, type FinetuneSettings } from "./settings.js";

const FORMAT = "wasm-lora-run";

export interface Checkpoint {
  settings: FinetuneSettings;
  /** Digest of the frozen weights and the tokens: a run goes on only with the same. */
  inputs: string;
  step: number;
  /** Masks that the run's dropout drew so far (random/seed.ts). */
  dropoutStream: number;
  /** Held-out loss before training. */
  heldOutBefore: number;
  sampleBefore: string;
  losses: number[];
  factors: StateDict;
  optimizer: StateDict;
}

/** In a run's folder. */
export function checkpointPath(out: string): string {
  return `${out}/checkpoint.safetensors`;
}
export function previousPath(out: string): string {
  return `${out}/checkpoint.previous.safetensors`;
}

/**
 * @param keep whether the file that is there is good, and so becomes the previous one
 * @throws ArgumentError, before anything is written, if a value is not finite; FileError
 */
export function saveCheckpoint(out: string, c: Checkpoint, keep: boolean): void {
  const notFinite = whereNotFinite(c);
  if (notFinite)
    throw new ArgumentError(
      `finetune: after step ${c.step} ${notFinite}; the run diverged, and nothing more is written. Lower the ` +
        `learning rate (--lr), in another --out.`,
    );
  const entry = (prefix: string, state: StateDict) =>
    [...state].map(([name, e]) => ({ name: `${prefix}.${name}`, dtype: "F32" as const, shape: e.shape, data: e.data }));
  const losses = { name: "losses", dtype: "F32" as const, shape: [c.losses.length], data: Float32Array.from(c.losses) };
  const { settings, inputs, step, dropoutStream, heldOutBefore, sampleBefore } = c;
  const tensors = [losses, ...entry("factors", c.factors), ...entry("optimizer", c.optimizer)];
  const metadata = {
    format: FORMAT,
    run: JSON.stringify({ settings, inputs, step, dropoutStream, heldOutBefore, sampleBefore }),
  };
  const digest = digestOfTensors(
    tensors.map((t) => ({ ...t, bytes: t.data })),
    metadata,
  );
  writeAtomic(
    checkpointPath(out),
    serializeSafetensors(tensors, { ...metadata, digest }),
    keep ? previousPath(out) : undefined,
  );
}

/** Whether a run has left a checkpoint. */
export function hasCheckpoint(out: string): boolean {
  return exists(checkpointPath(out)) || exists(previousPath(out));
}

/** The checkpoint to go on from, and, where the newest is damaged, what is the matter with it. */
export interface FoundCheckpoint {
  checkpoint: Checkpoint;
  damage?: FormatError | FileError | undefined;
}

/**
 * The newest checkpoint of a run, or the one before it where that is damaged: what is lost is computed again, to the
 * same bits.
 * @throws FileError, FormatError if there is no good one
 */
export function findCheckpoint(out: string): FoundCheckpoint {
  try {
    return { checkpoint: readCheckpoint(checkpointPath(out)) };
  } catch (damage) {
    if (!(damage instanceof FormatError || damage instanceof FileError) || !exists(previousPath(out))) throw damage;
    try {
      return { checkpoint: readCheckpoint(previousPath(out)), damage };
    } catch (second) {
      if (second instanceof FormatError)
        throw new FormatError(`${damage.message} The one before it is no better: ${second.message}`, { cause: damage });
      throw second;
    }
  }
}

/** @throws FileError, FormatError if it is not a checkpoint of a run, or is damaged, or its weights diverged */
export function readCheckpoint(path: string): Checkpoint {
  const fail = (message: string): never => {
    throw new FormatError(`${path}: ${message}.`);
  };
  const { metadata, tensors } = parseSafetensors(readBytes(path), { name: path });
  if (metadata["format"] !== FORMAT || !tensors.has("losses"))
    fail(`not the checkpoint of a run (its metadata's format is ${metadata["format"] ?? "absent"})`);
  // Files of before have none.
  if (metadata["digest"] !== undefined && metadata["digest"] !== digestOfTensors(tensors.values(), metadata)) {
    fail("it is damaged: its contents are not those that were written, by their digest");
  }
  const pick = (prefix: string): StateDict =>
    new Map(
      [...tensors.values()]
        .filter((t) => t.name.startsWith(`${prefix}.`))
        .map((t) => [t.name.slice(prefix.length + 1), { shape: t.shape, data: toFloat32(t) }]),
    );
  const run = parseRun(metadata["run"] ?? "", fail);
  const checkpoint = {
    ...run,
    losses: [...toFloat32(tensors.get("losses")!)],
    factors: pick("factors"),
    optimizer: pick("optimizer"),
  };
  if (run.step !== checkpoint.losses.length)
    fail(`it holds ${checkpoint.losses.length} losses; expected one for each of ${run.step} steps`);
  const notFinite = whereNotFinite(checkpoint);
  if (notFinite) fail(`${notFinite}: the run had diverged`);
  return checkpoint;
}

function parseRun(
  text: string,
  fail: (message: string) => never,
): Omit<Checkpoint, "losses" | "factors" | "optimizer"> {
  let run: Partial<Checkpoint> | null;
  try {
    run = JSON.parse(text) as Partial<Checkpoint> | null;
  } catch {
    fail("its metadata's run is not JSON");
  }
  const isCount = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
  const valid =
    run! !== null &&
    typeof run! === "object" &&
    typeof run!.inputs === "string" &&
    isCount(run!.step) &&
    isCount(run!.dropoutStream) &&
    Number.isFinite(run!.heldOutBefore) &&
    typeof run!.sampleBefore === "string";
  if (!valid) fail("its metadata's run lacks inputs, step, dropoutStream, heldOutBefore or sampleBefore");
  const { settings, inputs, step, dropoutStream, heldOutBefore, sampleBefore } = run as Checkpoint;
  checkSettings(settings, fail);
  if (step > settings.steps) fail(`it is of step ${step}, but the run has ${settings.steps}`);
  return { settings, inputs, step, dropoutStream, heldOutBefore, sampleBefore };
}

/** What must not be written, in words; undefined where all is finite. */
function whereNotFinite({ losses, factors, optimizer }: Checkpoint): string | undefined {
  const bad = losses.findIndex((loss) => !Number.isFinite(loss));
  if (bad >= 0) return `the loss of step ${bad + 1} is ${losses[bad]}`;
  for (const [what, state] of [
    ["factor", factors],
    ["the optimiser's state", optimizer],
  ] as const) {
    for (const [name, { data }] of state) {
      const value = data.find((v) => !Number.isFinite(v));
      if (value !== undefined) return `${what} ${name} holds ${value}`;
    }
  }
  return undefined;
}

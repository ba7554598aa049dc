/**
 * A run's checkpoint on the disk, as train/checkpoint.ts writes it. One file, replaced by rename: a kill leaves the old
 * one or the new one, whole. The one before it is kept beside it, for the day that the disk lies.
 */
import { exists, readBytes, writeAtomic } from "../io/files.js";
import { isCommit } from "../io/hub_name.js";
import { show } from "../io/json.js";
import { FileError, FormatError } from "../runtime/errors.js";
import { decodeCheckpoint, encodeCheckpoint } from "../train/checkpoint.js";
import type { FinetuningState } from "../train/state.js";
import { checkSettings, type FinetuneSettings } from "./settings.js";

export interface Checkpoint extends FinetuningState {
  settings: FinetuneSettings;
  /** Of a model of the hub, what it was. */
  modelCommit?: string | undefined;
  /** Digest of the frozen weights and the tokens: a run goes on only with the same. */
  inputs: string;
  /** What the model wrote before training. */
  samplesBefore: readonly string[];
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
 * @throws DivergedError, before anything is written, if a value is not finite; FileError
 */
export function saveCheckpoint(out: string, checkpoint: Checkpoint, keep: boolean): void {
  const { settings, modelCommit, inputs, samplesBefore, ...state } = checkpoint;
  const bytes = encodeCheckpoint(state, { settings, modelCommit, inputs, samplesBefore });
  writeAtomic(checkpointPath(out), bytes, keep ? previousPath(out) : undefined);
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
  const { state, notes } = decodeCheckpoint(readBytes(path), path);
  const { inputs, samplesBefore, modelCommit } = notes;
  if (typeof inputs !== "string" || !areTexts(samplesBefore))
    return fail("its metadata's run lacks inputs or samplesBefore");
  if (modelCommit !== undefined && !isCommit(modelCommit))
    return fail(`its run's modelCommit is ${show(modelCommit)}; expected the 40 digits of a commit`);
  const settings = checkSettings(notes["settings"], fail);
  const step = state.metrics.length;
  if (settings.steps !== undefined && step > settings.steps)
    fail(`it is of step ${step}, but the run has ${settings.steps}`);
  return {
    ...state,
    settings,
    ...(modelCommit === undefined ? {} : { modelCommit }),
    inputs,
    samplesBefore,
  };
}

function areTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}

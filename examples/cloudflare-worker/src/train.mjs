/**
 * Some steps of one user's training, from saved bytes to saved bytes: between two slices a training takes no
 * memory, and cut into other slices, or by a restart, it gives the same bits.
 */
import { DivergedError, io, train } from "wasm-lora";

/** The recipe of `wasm-lora finetune`; of a user's few rows nothing is held out. */
const SETTINGS = { adapter: { baseModelNameOrPath: "models/base" }, batch: 4, testSize: 0 };
const NAME = "in-training";
const FOLDER = "memory:in-training";

/** Nothing learned yet. */
export const UNTRAINED = { steps: 0, losses: [], files: {}, checkpoint: null };

/** A training that must not go on: what was saved before it is kept. */
export class TrainingError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = "TrainingError";
  }
}

/**
 * @param rows as `data.tokenizeExamples` gives them
 * @param state what the slice before returned, or UNTRAINED
 * @param target steps that are asked for in all: the learning rate ends with the last of them
 * @param count steps of this slice
 * @returns { steps, losses, files: the adapter as PEFT's, checkpoint: all that the next slice goes on from }
 * @throws TrainingError if the checkpoint is not what was saved, or if a loss, a gradient or a weight is not finite;
 * the library's errors
 */
export function trainSlice(base, rows, state, target, count = target - state.steps) {
  const { adapted } = base;
  const run = new train.Finetuning(adapted, { train: rows }, { ...SETTINGS, steps: target }, NAME);
  try {
    if (state.steps > 0) run.restore(savedState(state));
    for (let i = 0; i < count; i++) run.step();
    const { losses } = run;
    return { steps: losses.length, losses, files: filesOf(adapted), checkpoint: train.encodeCheckpoint(run.state()) };
  } catch (error) {
    if (!(error instanceof DivergedError)) throw error;
    throw new TrainingError(
      `training diverged at step ${run.losses.length + 1}: ${error.reason}. The adapter stays as it was; ` +
        "send other rows, or DELETE the user and train fewer steps.",
      { cause: error },
    );
  } finally {
    run.dispose();
    adapted.deleteAdapter(NAME);
  }
}

function savedState({ steps, checkpoint }) {
  try {
    return train.decodeCheckpoint(checkpoint).state;
  } catch (cause) {
    throw new TrainingError(
      `the training saved at step ${steps} is damaged: its digest is another. DELETE the user and train anew.`,
      { cause },
    );
  }
}

function filesOf(adapted) {
  adapted.savePretrained(FOLDER, NAME);
  const files = {};
  for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
    files[name] = io.memoryFiles.get(`${FOLDER}/${name}`);
    io.memoryFiles.delete(`${FOLDER}/${name}`);
  }
  return files;
}

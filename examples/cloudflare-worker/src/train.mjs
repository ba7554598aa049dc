/**
 * Some steps of one user's training, from saved bytes to saved bytes: between two slices a training takes no
 * memory, and cut into other slices, or by a restart, it gives the same bits.
 */
import { data, io, manualSeed, optim, scope, tensor } from "wasm-lora";
import { withFiles } from "./base.mjs";

const ADAPTER = { r: 8, loraAlpha: 16, targetModules: "all-linear", taskType: "CAUSAL_LM" };
const ROWS = 4;
const WINDOW = 64;
const LEARNING_RATE = 3e-3;
const NAME = "in-training";
const FOLDER = "memory:in-training";
const MOMENTS = "moments.safetensors";

/** Nothing learned yet. */
export const UNTRAINED = { steps: 0, losses: [], files: {}, moments: null, digest: null };

/** A training that must not go on: what was saved before it is kept. */
export class TrainingError extends Error {
  constructor(message) {
    super(message);
    this.name = "TrainingError";
  }
}

/**
 * @param tokens of all examples, each after a begin-of-text
 * @param state what the slice before returned, or UNTRAINED
 * @returns { steps, losses, files: the adapter as PEFT's, moments: the optimiser's, as safetensors, digest: of all of
 * it }
 * @throws TrainingError if the state is not what was saved, or if a loss is not finite; the library's errors, which
 * refuse to make or to save weights and moments that are not
 */
export function trainSlice(base, tokens, state, count) {
  if (state.digest && digestOf(state) !== state.digest) {
    throw new TrainingError(
      `the training saved at step ${state.steps} is damaged: its digest is another. DELETE the user and train anew.`,
    );
  }
  const { adapted } = base;
  startAdapter(adapted, state);
  try {
    adapted.setAdapter(NAME);
    const trained = adapted.parameters().filter((p) => p.requiresGrad);
    const optimizer = new optim.AdamW(trained, { lr: LEARNING_RATE, weightDecay: 0 });
    try {
      if (state.moments) {
        withFiles(FOLDER, { [MOMENTS]: state.moments }, (folder) =>
          optimizer.loadStateDict(io.loadStateDict(`${folder}/${MOMENTS}`), state.steps),
        );
      }
      const losses = [...state.losses];
      const steps = state.steps + count;
      while (losses.length < steps) losses.push(trainStep(adapted.model, optimizer, trained, tokens, losses.length));
      adapted.savePretrained(FOLDER, NAME);
      io.saveStateDict(`${FOLDER}/${MOMENTS}`, optimizer.stateDict());
      const { [MOMENTS]: moments, ...files } = takeFiles("adapter_config.json", "adapter_model.safetensors", MOMENTS);
      const after = { steps, losses, files, moments };
      return { ...after, digest: digestOf(after) };
    } finally {
      optimizer.zeroGrad();
      optimizer.dispose();
    }
  } finally {
    adapted.deleteAdapter(NAME);
  }
}

function startAdapter(adapted, { steps, files }) {
  if (steps > 0) return withFiles(FOLDER, files, (folder) => adapted.loadAdapter(folder, NAME, { isTrainable: true }));
  manualSeed(0);
  adapted.addAdapter(NAME, ADAPTER);
}

function trainStep(model, optimizer, trained, tokens, step) {
  return scope(() => {
    const loss = model.loss(...batchAt(tokens, step));
    const value = loss.item();
    if (!Number.isFinite(value)) {
      throw new TrainingError(
        `training diverged at step ${step + 1}: the loss is ${value}. The adapter stays as it was; ` +
          "send other examples, or DELETE the user and train fewer steps.",
      );
    }
    loss.backward();
    optim.clipGradNorm_(trained, 1);
    optimizer.step();
    optimizer.zeroGrad();
    return value;
  });
}

/** One digest of what must belong together. */
function digestOf({ steps, losses, files, moments }) {
  const part = (name, bytes) => ({ name, dtype: "U8", shape: [bytes.length], bytes });
  const parts = [...Object.entries(files), ["moments", moments]].map(([name, bytes]) => part(name, bytes));
  return io.digestOfTensors(parts, { steps: `${steps}`, losses: JSON.stringify(losses) });
}

/** A step's windows are the same in every slice. */
function batchAt(tokens, step) {
  const seq = Math.min(WINDOW, tokens.length - 1);
  const { ids, targets } = data.randomWindows(tokens, step, { batch: ROWS, seq, seed: 0 });
  return [tensor(ids, [ROWS, seq]), tensor(targets, [ROWS, seq])];
}

function takeFiles(...names) {
  const files = {};
  for (const name of names) {
    files[name] = io.memoryFiles.get(`${FOLDER}/${name}`);
    io.memoryFiles.delete(`${FOLDER}/${name}`);
  }
  return files;
}

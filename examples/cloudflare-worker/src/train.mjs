/**
 * Some steps of one user's training, from saved bytes to saved bytes: between two slices a training takes no
 * memory, and cut into other slices, or by a restart, it gives the same bits.
 */
import { io, manualSeed, models, optim, scope, tensor } from "wasm-lora";
import { withFiles } from "./base.mjs";

const ADAPTER = { r: 8, loraAlpha: 16, targetModules: "all-linear", taskType: "CAUSAL_LM" };
const ROWS = 4, WINDOW = 64, LEARNING_RATE = 3e-3;
const NAME = "in-training", FOLDER = "memory:in-training";

/** Nothing learned yet. */
export const UNTRAINED = { steps: 0, losses: [], files: {}, moments: null };

/**
 * @param tokens of all examples, each after a begin-of-text
 * @param state what the slice before returned, or UNTRAINED
 * @returns { steps, losses, files: the adapter as PEFT's, moments: the optimiser's, as safetensors }
 */
export function trainSlice(base, tokens, state, count) {
  const { adapted } = base;
  startAdapter(adapted, state);
  try {
    adapted.setAdapter(NAME);
    const trained = adapted.parameters().filter((p) => p.requiresGrad);
    const optimizer = new optim.AdamW(trained, { lr: LEARNING_RATE, weightDecay: 0 });
    try {
      if (state.moments) optimizer.loadStateDict(readTensors(state.moments), state.steps);
      const losses = [];
      for (let i = 0; i < count; i++) losses.push(trainStep(adapted.model, optimizer, trained, tokens, state.steps + i));
      adapted.savePretrained(FOLDER, NAME);
      return { steps: state.steps + count, losses: [...state.losses, ...losses], files: takeFiles(), moments: writeTensors(optimizer.stateDict()) };
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
    loss.backward();
    optim.clipGradNorm_(trained, 1);
    optimizer.step();
    optimizer.zeroGrad();
    return loss.item();
  });
}

/** A step's windows are the same in every slice. */
function batchAt(tokens, step) {
  const seq = Math.min(WINDOW, tokens.length - 1), { ids, targets } = models.randomWindows(tokens, step, { batch: ROWS, seq, seed: 0 });
  return [tensor(ids, [ROWS, seq]), tensor(targets, [ROWS, seq])];
}

function takeFiles() {
  const files = {};
  for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
    files[name] = io.memoryFiles.get(`${FOLDER}/${name}`);
    io.memoryFiles.delete(`${FOLDER}/${name}`);
  }
  return files;
}

function writeTensors(state) {
  return io.serializeSafetensors([...state].map(([name, { shape, data }]) => ({ name, dtype: "F32", shape, data })));
}

function readTensors(bytes) {
  return new Map([...io.parseSafetensors(bytes).tensors].map(([name, t]) => [name, { shape: t.shape, data: io.toFloat32(t) }]));
}

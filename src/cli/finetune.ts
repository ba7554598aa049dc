/** wasm-lora finetune: LoRA training of a language model on one text. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { SingleBar } from "cli-progress";
import { ensureWritableDirectory, writeAtomic } from "../io/files.js";
import type { LoraConfig } from "../io/peft.js";
import * as lora from "../lora/index.js";
import { evenWindows, generate, loadModel, planTraining, randomWindows, type CausalLM, type Gpt2Config, type LlamaConfig } from "../models/index.js";
import { getLoraModel, type LoraModel } from "../peft/index.js";
import { AdamW, clipGradNorm_, cosineSchedule, type Schedule } from "../optim/index.js";
import { manualSeed, maskNumber, setMaskNumber } from "../random/seed.js";
import { engine, init, memoryStats } from "../runtime/engine.js";
import { ArgumentError, FileError, FormatError } from "../runtime/errors.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import { noGrad } from "../autograd/tape.js";
import { loadCheckpointFile, saveCheckpoint, type Checkpoint } from "./checkpoint.js";
import { lossCurveSvg, lossCurveText } from "./plot.js";
import { encodeFile, loadTokenizer, promptIds, type TextCodec } from "./text.js";

/** What decides a run's bits; a resumed run takes them from its checkpoint. */
export interface FinetuneSettings {
  model: string;
  data: string;
  r: number;
  alpha: number;
  dropout: number;
  targetModules: string[] | "all-linear";
  steps: number;
  batch: number;
  seq: number;
  lr: number;
  seed: number;
  prompt: string;
  checkpointEvery: number;
}
export type FinetuneCommand = FinetuneSettings & {
  out: string;
  resume?: boolean;
  /** Decides no bits: a resumed run may change it. */
  gradientCheckpointing?: boolean;
};

export const FINETUNE_DEFAULTS = {
  r: 8, alpha: 16, dropout: 0, targetModules: "all-linear" as const, steps: 400, batch: 8, seq: 128, lr: 5e-3, seed: 0,
  prompt: "The whale", checkpointEvery: 50,
};

const SAMPLE_TOKENS = 100;
/** Held-out windows at most: enough for three digits of perplexity, and a few seconds. */
const HELD_OUT_WINDOWS = 128;

interface Run {
  settings: FinetuneSettings;
  model: CausalLM;
  /** The model with its adapter. */
  adapted: LoraModel<CausalLM>;
  config: LlamaConfig | Gpt2Config;
  codec: TextCodec;
  train: Int32Array;
  heldOut: Int32Array;
  /** Digest of the frozen weights and the tokens. */
  inputs: string;
  optimizer: AdamW;
  schedule: Schedule;
}

/** @param explicit names of the options that the user gave: with resume they must agree with the checkpoint */
export async function finetune(command: FinetuneCommand, explicit: ReadonlySet<string>): Promise<void> {
  await init();
  const { out, resume, gradientCheckpointing = false, ...given } = command;
  const checkpointPath = `${out}/checkpoint.safetensors`;
  const saved = resume ? loadCheckpointFile<FinetuneSettings>(checkpointPath) : null;
  if (!resume && existsSync(checkpointPath)) {
    throw new FileError(`finetune: ${checkpointPath} is there already. Add --resume to go on from it, or choose another --out.`);
  }
  if (saved) checkSame(given, saved.settings, explicit);
  const settings = saved?.settings ?? given;
  ensureWritableDirectory(out);
  const run = prepare(settings);
  if (saved && saved.inputs !== run.inputs) {
    throw new ArgumentError(`finetune: ${settings.data} or ${settings.model} has changed since ${checkpointPath} was written; start anew in another --out.`);
  }
  const { adapted } = run;
  run.model.gradientCheckpointing = gradientCheckpointing;
  describe(run, saved?.step ?? 0);

  adapted.eval();
  const heldOutBefore = saved?.heldOutBefore ?? heldOutLoss(run, "held-out loss before");
  const sampleBefore = saved?.sampleBefore ?? sample(run);
  console.log(`Held-out perplexity before: ${perplexity(heldOutBefore)}`);
  console.log(`Sample before: ${quote(sampleBefore)}\n`);
  adapted.train();

  if (saved) {
    const factors = [...lora.loraStateDict(adapted).keys()], lost = factors.find((key) => !saved.factors.has(key));
    if (lost) throw new FormatError(`${checkpointPath}: factor ${lost} is missing.`);
    if (saved.optimizer.size !== 2 * factors.length) {
      throw new FormatError(`${checkpointPath}: it holds ${saved.optimizer.size} moments; expected 2 for each of ${factors.length} factors.`);
    }
    adapted.loadStateDict(saved.factors, false);
    run.optimizer.loadStateDict(saved.optimizer, saved.step);
    setMaskNumber(adapted, saved.dropoutStream);
  }
  const losses = saved?.losses ?? [];
  const save = (): void => saveCheckpoint<FinetuneSettings>(checkpointPath, {
    settings, inputs: run.inputs, step: losses.length, dropoutStream: maskNumber(adapted), heldOutBefore, sampleBefore, losses,
    factors: lora.loraStateDict(adapted), optimizer: run.optimizer.stateDict(),
  } satisfies Checkpoint<FinetuneSettings>);
  if (!await trainSteps(run, losses, save)) {
    console.error(`\nStopped after step ${losses.length}; go on with: wasm-lora finetune --data ${word(settings.data)} --out ${word(out)} --resume` +
      (gradientCheckpointing ? " --gradient-checkpointing" : ""));
    process.exitCode = 130;
    return;
  }

  adapted.eval();
  const heldOutAfter = heldOutLoss(run, "held-out loss after");
  const change = 1 - exp(heldOutAfter) / exp(heldOutBefore);
  console.log(`\nHeld-out perplexity after: ${perplexity(heldOutAfter)} (before: ${perplexity(heldOutBefore)}; ` +
    `${change >= 0 ? "down" : "up"} ${(Math.abs(change) * 100).toFixed(1)} %)`);
  console.log(`Sample after: ${quote(sample(run))}\n`);
  console.log(`${lossCurveText(losses)}\n`);
  adapted.savePretrained(`${out}/adapter`);
  const title = `LoRA r = ${settings.r} on ${settings.data}: perplexity ${perplexity(heldOutBefore)} to ${perplexity(heldOutAfter)}`;
  writeAtomic(`${out}/loss.svg`, lossCurveSvg(losses, { title, heldOutBefore, heldOutAfter }));
  writeAtomic(`${out}/result.json`, `${JSON.stringify({ settings, heldOutBefore, heldOutAfter, losses }, null, 2)}\n`);
  console.log(`Wrote ${out}/adapter (PEFT), ${out}/loss.svg, ${out}/result.json`);
  console.log(`Try it: wasm-lora generate --model ${word(settings.model)} --adapter ${word(`${out}/adapter`)} --prompt ${word(settings.prompt)}`);
}

function checkSame(given: FinetuneSettings, saved: FinetuneSettings, explicit: ReadonlySet<string>): void {
  for (const key of Object.keys(saved) as (keyof FinetuneSettings)[]) {
    if (explicit.has(key) && JSON.stringify(given[key]) !== JSON.stringify(saved[key])) {
      throw new ArgumentError(`finetune: --resume goes on with ${key} = ${JSON.stringify(saved[key])}; got ${JSON.stringify(given[key])}. ` +
        "Leave it out, or start anew in another --out.");
    }
  }
}

function prepare(settings: FinetuneSettings): Run {
  manualSeed(settings.seed);
  const { model, config } = loadModel(settings.model);
  const adapted = getLoraModel(model, adapterConfig(settings));
  if (settings.seq > config.maxPositionEmbeddings) {
    throw new ArgumentError(`finetune: seq = ${settings.seq} is longer than the model's ${config.maxPositionEmbeddings} positions.`);
  }
  const codec = loadTokenizer(settings.model);
  console.log(`Encoding ${settings.data} ...`);
  const ids = encodeFile(settings.data, codec, config);
  const cut = Math.floor(ids.length * 0.9);
  const train = ids.subarray(0, cut), heldOut = ids.subarray(cut);
  if (heldOut.length < settings.seq + 1) {
    throw new ArgumentError(`finetune: ${settings.data} has ${ids.length} tokens; at least ${10 * (settings.seq + 1)} are needed for seq = ${settings.seq}.`);
  }
  const digest = createHash("sha256");
  for (const p of adapted.parameters()) if (!p.requiresGrad) digest.update(p.data);
  const inputs = digest.update(ids).digest("hex");
  const optimizer = new AdamW(adapted.parameters().filter((p) => p.requiresGrad), { lr: settings.lr, weightDecay: 0 });
  return { settings, model, adapted, config, codec, train, heldOut, inputs, optimizer, schedule: cosineSchedule(settings.steps, Math.ceil(settings.steps / 20)) };
}

function adapterConfig({ model, r, alpha, dropout, targetModules }: FinetuneSettings): Partial<LoraConfig> {
  return { r, loraAlpha: alpha, loraDropout: dropout, targetModules, baseModelNameOrPath: model, taskType: "CAUSAL_LM" };
}

function describe({ adapted, settings, train, heldOut, config, model }: Run, step: number): void {
  const [trainable, all] = adapted.getNbTrainableParameters();
  const n = (x: number): string => x.toLocaleString("en-US");
  console.log(`Model ${settings.model}: ${n(all - trainable)} weights frozen, ${n(trainable)} trained (${(100 * trainable / all).toFixed(2)} %), r = ${settings.r}`);
  console.log(`Data ${settings.data}: ${n(train.length)} tokens to train on, ${n(heldOut.length)} held out`);
  const { batch, seq } = settings, { gradientCheckpointing } = model;
  const plan = planTraining(config, { batch, seq, gradientCheckpointing, adapter: adapterConfig(settings) });
  console.log(`Memory: ${megabytes(plan.peak)} MB at the peak, as planned (weights ${megabytes(plan.weights)}, adapter ${megabytes(plan.adapters)}, ` +
    `optimiser ${megabytes(plan.optimiser)}, activations ${megabytes(plan.activations)}${gradientCheckpointing ? " between checkpoints" : ""})`);
  if (step > 0) console.log(`Resuming after step ${step} of ${settings.steps}`);
}

/** Trains from step losses.length on. Returns false if the user stopped it; either way the state is saved. */
async function trainSteps(run: Run, losses: number[], save: () => void): Promise<boolean> {
  const { settings, adapted, schedule } = run;
  const bar = new SingleBar({
    format: "{bar} {value}/{total} | loss {loss} | {rate} tokens/s | {eta_formatted} left | peak {memory} MB", etaBuffer: 50,
    barsize: 24, hideCursor: true, noTTYOutput: true, notTTYSchedule: 5000,
  });
  let stopped = false;
  const stop = (): void => { stopped = true; };
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  const trained = adapted.parameters().filter((p) => p.requiresGrad);
  engine().memory.resetPeak();
  bar.start(settings.steps, losses.length, { loss: "-", rate: "-", memory: "-" });
  try {
    let mark = performance.now();
    while (losses.length < settings.steps && !stopped) {
      const step = losses.length;
      losses.push(trainStep(run, step, trained, schedule(step)));
      const now = performance.now();
      bar.update(losses.length, {
        loss: losses[step]!.toFixed(3), rate: Math.round(settings.batch * settings.seq / (now - mark) * 1000),
        memory: megabytes(memoryStats().peakBytes),
      });
      mark = now;
      if (losses.length % settings.checkpointEvery === 0 && losses.length < settings.steps) save();
      // Lets signals and the terminal in.
      await new Promise((resolve) => setImmediate(resolve));
    }
    save();
  } finally {
    bar.stop();
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
  return !stopped;
}

function trainStep(run: Run, step: number, trained: ReturnType<CausalLM["parameters"]>, factor: number): number {
  const { settings: { batch, seq, lr, seed }, train, model, optimizer } = run;
  const { ids, targets } = randomWindows(train, step, { batch, seq, seed });
  return scope(() => {
    const loss = model.loss(tensor(ids, [batch, seq]), tensor(targets, [batch, seq]));
    loss.backward();
    clipGradNorm_(trained, 1);
    for (const g of optimizer.paramGroups) g.lr = lr * factor;
    optimizer.step();
    optimizer.zeroGrad();
    return loss.item();
  });
}

/** Mean loss over evenly spread windows of the held-out tokens. */
function heldOutLoss({ model, heldOut, settings: { seq } }: Run, label: string): number {
  const windows = evenWindows(heldOut, seq, HELD_OUT_WINDOWS);
  const bar = new SingleBar({ format: `${label} {bar} {value}/{total} | {eta_formatted} left`, barsize: 24, hideCursor: true, clearOnComplete: true });
  bar.start(windows.length, 0);
  let total = 0;
  for (const { ids, targets } of windows) {
    total += noGrad(() => scope(() => model.loss(tensor(ids, [1, seq]), tensor(targets, [1, seq])).item()));
    bar.increment();
  }
  bar.stop();
  return total / windows.length;
}

function sample({ model, codec, config, settings: { prompt, seed } }: Run): string {
  const ids = promptIds(codec, config, prompt);
  const stopToken = config.eosTokenId ?? undefined;
  return codec.decode([...ids, ...generate(model, ids, { maxNewTokens: SAMPLE_TOKENS, seed, stopToken })]);
}

function megabytes(bytes: number): string { return (bytes / 1048576).toFixed(1); }
function exp(x: number): number { return engine().kernels.exp64(x); }
function perplexity(loss: number): string { return exp(loss).toFixed(2); }
function quote(text: string): string { return `"${text.replace(/\s+/g, " ").trim()}"`; }
/** A shell's word: quoted where it must be. */
function word(text: string): string { return /^[\w./-]+$/.test(text) ? text : JSON.stringify(text); }

/**
 * A fine-tuning run without its files and its talk: what it is made of, its steps, its held-out loss and its samples.
 */
import { createHash } from "node:crypto";
import { noGrad } from "../autograd/tape.js";
import type { LoraConfig } from "../io/peft/config.js";
import * as lora from "../lora/index.js";
import { evenWindows, randomWindows, type TextWindows } from "../data/windows.js";
import { generate, loadModel, type CausalLM, type Gpt2Config, type LlamaConfig } from "../models/index.js";
import type { Parameter } from "../nn/module.js";
import { AdamW, clipGradNorm_, cosineSchedule, type Schedule } from "../optim/index.js";
import { getLoraModel, type LoraModel } from "../peft/index.js";
import { manualSeed, maskNumber, setMaskNumber } from "../random/seed.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, FormatError, OutOfMemoryError } from "../runtime/errors.js";
import type { Options } from "../runtime/options.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import type { Checkpoint } from "./checkpoint.js";
import { megabytes } from "./format.js";
import type { FinetuneSettings } from "./settings.js";
import { planTraining, type TrainingPlan } from "../train/plan.js";
import { decode, encodeFile, loadCodec, promptIds, type Began, type TextCodec } from "./text.js";

const SAMPLE_TOKENS = 100;
/** Held-out windows at most: enough for three digits of perplexity, and a few seconds. */
const HELD_OUT_WINDOWS = 128;

export interface Run {
  settings: FinetuneSettings;
  model: CausalLM;
  /** The model with its adapter. */
  adapted: LoraModel<CausalLM>;
  /** Its parameters. */
  trained: Parameter[];
  config: LlamaConfig | Gpt2Config;
  codec: TextCodec;
  train: Int32Array;
  heldOut: TextWindows[];
  heldOutTokens: number;
  prompt: number[];
  /** Digest of the frozen weights and the tokens. */
  inputs: string;
  plan: TrainingPlan;
  optimizer: AdamW;
  schedule: Schedule;
}

/** Where a run's model and text are now: in its settings they stand as they were named first. */
export interface Places {
  model: string;
  data: string;
}

/**
 * Loads, checks and plans; nothing is trained yet.
 * @param encoding is told the size of the text, before it is encoded
 * @throws what reading, or an adapter's making, throws; ArgumentError for what the model cannot do, a text too short, a
 * plan above the memory there is
 */
export function prepareRun(
  settings: FinetuneSettings,
  { model: folder, data }: Places,
  gradientCheckpointing: boolean,
  encoding: Began,
): Run {
  manualSeed(settings.seed);
  const { model, config } = loadModel(folder);
  model.gradientCheckpointing = gradientCheckpointing;
  if (settings.seq > config.maxPositionEmbeddings) {
    throw new ArgumentError(
      `finetune: seq = ${settings.seq} is longer than the model's ${config.maxPositionEmbeddings} positions; ` +
        `lower --seq.`,
    );
  }
  const codec = loadCodec(folder, config);
  const prompt = promptIds("finetune", codec, settings.prompt);
  if (prompt.length > config.maxPositionEmbeddings) {
    throw new ArgumentError(
      `finetune: the prompt has ${prompt.length} tokens, more than the model's ${config.maxPositionEmbeddings} ` +
        `positions; shorten --prompt.`,
    );
  }
  const plan = planRun(settings, config, gradientCheckpointing, prompt.length);
  const adapted = getLoraModel(model, adapterConfig(settings));
  const ids = encodeFile(data, codec, encoding);
  const cut = Math.floor(ids.length * 0.9);
  const train = ids.subarray(0, cut);
  const heldOut = ids.subarray(cut);
  if (heldOut.length < settings.seq + 1)
    throw new ArgumentError(`finetune: ${data} has ${ids.length} tokens; ${tooShort(heldOut.length, settings.seq)}`);
  const digest = createHash("sha256");
  for (const p of adapted.parameters()) if (!p.requiresGrad) digest.update(p.data);
  const inputs = digest.update(ids).digest("hex");
  const trained = adapted.parameters().filter((p) => p.requiresGrad);
  return {
    settings,
    model,
    adapted,
    trained,
    config,
    codec,
    train,
    heldOut: evenWindows(heldOut, settings.seq, HELD_OUT_WINDOWS),
    heldOutTokens: heldOut.length,
    prompt,
    inputs,
    plan,
    optimizer: new AdamW(trained, { lr: settings.lr, weightDecay: 0 }),
    schedule: cosineSchedule(settings.steps, Math.ceil(settings.steps / 20)),
  };
}

function tooShort(heldOut: number, seq: number): string {
  const needed = (of: number): number => 10 * of + 1;
  const longest = heldOut - 1;
  return (
    `seq = ${seq} needs at least ${needed(seq)}, since the last tenth is held out. ` +
    (longest >= 2
      ? `Use --seq ${longest} or less, or a longer text.`
      : `Use a longer text: with --seq 16 --batch 4, at least ${needed(16)} tokens.`)
  );
}

function adapterConfig({ model, r, alpha, dropout, targetModules }: FinetuneSettings): Options<LoraConfig> {
  return {
    r,
    loraAlpha: alpha,
    loraDropout: dropout,
    targetModules,
    baseModelNameOrPath: model,
    taskType: "CAUSAL_LM",
  };
}

/**
 * Of all that a run does: steps, held-out windows, samples.
 * @throws ArgumentError if it will not fit in memory, telling what to lower
 */
function planRun(
  settings: FinetuneSettings,
  config: LlamaConfig | Gpt2Config,
  gradientCheckpointing: boolean,
  prompt: number,
): TrainingPlan {
  const { batch, seq, r } = settings;
  const { limit } = engine().memory;
  const refuse = (peak: string): never => {
    throw new ArgumentError(
      `finetune: the run would take ${peak} MB at the peak, and there are ${megabytes(limit)} MB at most. Lower ` +
        `--batch (${batch}), --seq (${seq}) or --r (${r})` +
        `${gradientCheckpointing ? "" : ", or add --gradient-checkpointing"}.`,
    );
  };
  try {
    const plan = planTraining(config, {
      batch,
      seq,
      gradientCheckpointing,
      adapter: adapterConfig(settings),
      evaluation: { batch: 1, seq },
      generation: { prompt, maxNewTokens: SAMPLE_TOKENS },
    });
    return plan.peak > limit ? refuse(megabytes(plan.peak)) : plan;
  } catch (error) {
    // More than a double counts.
    if (error instanceof OutOfMemoryError) refuse(`more than ${megabytes(2 * limit)}`);
    throw error;
  }
}

/** Brings a fresh run to where a checkpoint was taken. @throws FormatError if it does not fit, naming `source` */
export function restoreRun({ adapted, optimizer }: Run, saved: Checkpoint, source: string): void {
  const factors = [...lora.loraStateDict(adapted).keys()];
  const lost = factors.find((key) => !saved.factors.has(key));
  if (lost) throw new FormatError(`${source}: factor ${lost} is missing.`);
  const moments = [...saved.optimizer.keys()].filter((key) => !key.endsWith(".step")).length;
  if (moments !== 2 * factors.length) {
    throw new FormatError(`${source}: it holds ${moments} moments; expected 2 for each of ${factors.length} factors.`);
  }
  adapted.loadStateDict(saved.factors, false);
  optimizer.loadStateDict(saved.optimizer, saved.step);
  setMaskNumber(adapted, saved.dropoutStream);
}

/** What a checkpoint keeps of a run. */
export function runState({
  settings,
  inputs,
  adapted,
  optimizer,
}: Run): Pick<Checkpoint, "settings" | "inputs" | "dropoutStream" | "factors" | "optimizer"> {
  return {
    settings,
    inputs,
    dropoutStream: maskNumber(adapted),
    factors: lora.loraStateDict(adapted),
    optimizer: optimizer.stateDict(),
  };
}

/**
 * One optimiser step, the first being 0.
 * @returns the batch's loss before it
 * @throws ArgumentError if that, a gradient or what would be made of a weight is not finite; then nothing was updated
 */
export function trainStep(run: Run, step: number): number {
  const {
    settings: { batch, seq, lr, seed },
    train,
    trained,
    model,
    optimizer,
    schedule,
  } = run;
  const { ids, targets } = randomWindows(train, step, { batch, seq, seed });
  return scope(() => {
    const loss = model.loss(tensor(ids, [batch, seq]), tensor(targets, [batch, seq]));
    const value = finite(loss.item(), `the loss of step ${step + 1}`, run);
    loss.backward();
    for (const g of optimizer.paramGroups) g.lr = lr * schedule(step);
    try {
      clipGradNorm_(trained, 1);
      optimizer.step();
    } catch (cause) {
      if (!(cause instanceof ArgumentError)) throw cause;
      throw new ArgumentError(
        `finetune: the run diverged in step ${step + 1}, and nothing more is written: ${cause.message} The ` +
          `learning rate is --lr, ${lr} here; lower it, in another --out.`,
      );
    }
    optimizer.zeroGrad();
    return value;
  });
}

/** A held-out window's loss, without dropout. */
export function windowLoss({ model, settings: { seq } }: Run, { ids, targets }: TextWindows): number {
  return noGrad(() => scope(() => model.loss(tensor(ids, [1, seq]), tensor(targets, [1, seq])).item()));
}

/**
 * Weights may be finite and the next loss not: looked at before they take a good checkpoint's place.
 * @throws ArgumentError
 */
export function checkSound(run: Run, step: number): void {
  run.adapted.eval();
  finite(windowLoss(run, run.heldOut[0]!), `a held-out loss after step ${step}`, run);
  run.adapted.train();
}

/** @throws ArgumentError if the value is not finite, naming what it is */
export function finite(value: number, what: string, { settings: { lr } }: Run): number {
  if (Number.isFinite(value)) return value;
  throw new ArgumentError(
    `finetune: ${what} is ${value}, not a finite number: the run diverged, and nothing more is written. Lower the ` +
      `learning rate (--lr, ${lr} here), in another --out.`,
  );
}

export function sample({ model, codec, prompt, settings: { seed } }: Run): string {
  return decode(codec, [
    ...prompt,
    ...generate(model, prompt, { maxNewTokens: SAMPLE_TOKENS, seed, stopToken: codec.stopToken }),
  ]);
}

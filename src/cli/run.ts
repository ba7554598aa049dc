/** What the command finetune trains: a model, a text and their run, from where they lie. */
import { createHash } from "node:crypto";
import { trainTestSplit } from "../data/windows.js";
import { generate, loadModel, type AnyLoadedModel, type CausalLM, type ModelConfig } from "../models/index.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, OutOfMemoryError } from "../runtime/errors.js";
import { Finetuning } from "../train/finetuning.js";
import { rehearseTraining, type TrainingPlan, type TrainingWork } from "../train/plan.js";
import { megabytes } from "./format.js";
import { loadingProgress, passProgress } from "./progress.js";
import { finetuningSettings, type FinetuneSettings } from "./settings.js";
import { decode, encodeFile, loadCodec, promptIds, type EncodingWatch, type TextCodec } from "./text.js";

const SAMPLE_TOKENS = 100;

export interface Run {
  settings: FinetuneSettings;
  training: Finetuning;
  codec: TextCodec;
  prompt: number[];
  plan: TrainingPlan;
  work: TrainingWork;
  /** Digest of the frozen weights and the tokens. */
  inputs: string;
}

/** Where a run's model and text are now: in its settings they stand as they were named first. */
export interface Places {
  model: string;
  data: string;
}

/**
 * Loads, checks and plans; nothing is trained yet.
 * @param encoding is told how the text comes along that is encoded
 * @throws what reading, or an adapter's making, throws; ArgumentError for what the model cannot do, a text too short, a
 * plan above the memory there is
 */
export function prepareRun(
  settings: FinetuneSettings,
  { model: folder, data }: Places,
  gradientCheckpointing: boolean,
  encoding: EncodingWatch,
): Run {
  const loaded = loadWatched(folder);
  const { config } = loaded;
  const model: CausalLM = loaded.model;
  model.gradientCheckpointing = gradientCheckpointing;
  const { seq } = settings;
  if (seq > config.maxPositionEmbeddings) {
    throw new ArgumentError(
      `finetune: seq = ${seq} is longer than the model's ${config.maxPositionEmbeddings} positions; lower --seq.`,
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
  const { plan, work } = planRun(settings, config, gradientCheckpointing, prompt.length);
  const ids = encodeFile(data, codec, encoding);
  const heldOut = trainTestSplit(ids).test.length;
  if (heldOut <= seq) throw new ArgumentError(`finetune: ${data} has ${ids.length} tokens; ${tooShort(heldOut, seq)}`);
  const training = new Finetuning(model, ids, finetuningSettings(settings));
  return { settings, training, codec, prompt, plan, work, inputs: training.digest(createHash("sha256")) };
}

/** Whatever ends the loading, its bar ends, too: one that goes on keeps a process alive. */
function loadWatched(folder: string): AnyLoadedModel {
  const { onProgress, stop } = loadingProgress();
  try {
    return loadModel(folder, { head: "causal-lm", onProgress });
  } finally {
    stop();
  }
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

/**
 * Of all that a run does: steps, held-out windows, samples.
 * @throws ArgumentError if it will not fit in memory, telling what to lower
 */
function planRun(
  settings: FinetuneSettings,
  config: ModelConfig,
  gradientCheckpointing: boolean,
  prompt: number,
): ReturnType<typeof rehearseTraining> {
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
    const rehearsed = rehearseTraining(config, {
      batch,
      seq,
      gradientCheckpointing,
      adapter: finetuningSettings(settings).adapter,
      evaluation: { batch: 1, seq },
      generation: { prompt, maxNewTokens: SAMPLE_TOKENS },
    });
    const { peak } = rehearsed.plan;
    return peak > limit ? refuse(megabytes(peak)) : rehearsed;
  } catch (error) {
    // More than a double counts.
    if (error instanceof OutOfMemoryError) refuse(`more than ${megabytes(2 * limit)}`);
    throw error;
  }
}

/** What the model writes after the prompt, in evaluation mode. */
export function sample({ training, codec, prompt, settings: { seed } }: Run, label: string): string {
  const options = { maxNewTokens: SAMPLE_TOKENS, seed, stopToken: codec.stopToken };
  const ids = [...prompt];
  const progress = passProgress(label, SAMPLE_TOKENS);
  try {
    for (const id of generate(training.adapted.eval(), prompt, options)) {
      ids.push(id);
      progress.at(ids.length - prompt.length);
    }
  } finally {
    progress.stop();
  }
  return decode(codec, ids);
}

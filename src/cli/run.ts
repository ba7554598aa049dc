/** What the command finetune trains: a model, its data and their run, from where they lie. */
import { createHash } from "node:crypto";
import { summarize, type TokenizedData, type TrainingRow } from "../data/index.js";
import { trainTestSplit } from "../data/windows.js";
import type { CausalLM, ModelConfig } from "../models/index.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, OutOfMemoryError } from "../runtime/errors.js";
import { Finetuning } from "../train/finetuning.js";
import { rehearseRows, rehearseTraining } from "../train/plan.js";
import type { TrainingPlan, TrainingWork } from "../train/rehearsed_run.js";
import { loadRows, type RowsWatch } from "./data.js";
import { readingSettings, templateSettings } from "./data_options.js";
import { count, megabytes } from "./format.js";
import { loadWatched } from "./load_watched.js";
import { answers, continuation, SAMPLE_TOKENS, type Sample } from "./samples.js";
import {
  adapterSettings,
  areOfText,
  finetuningSettings,
  type FinetuneSettings,
  type SettingsOfRows,
  type SettingsOfText,
} from "./settings.js";
import { encodeFile, loadCodec, promptIds, type EncodingWatch, type TextCodec } from "./text.js";

export interface Run {
  settings: FinetuneSettings;
  training: Finetuning;
  codec: TextCodec;
  /** What the model is asked before and after. */
  samples: readonly Sample[];
  /** Of the data, as names and values. */
  counts: readonly (readonly [name: string, value: string])[];
  plan: TrainingPlan;
  work: TrainingWork;
  /** Digest of the frozen weights and the tokens. */
  inputs: string;
}

/** Where a run's model and data are now: in its settings they stand as they were named first. */
export interface Places {
  model: string;
  data: string;
  evalData?: string | undefined;
  template?: string | undefined;
}

/** Told how the data come along. */
export interface RunWatch {
  /** Of a text. */
  encoding: EncodingWatch;
  /** Rows are about to be read. */
  reading(path: string): void;
  /** Of rows. */
  rows: RowsWatch;
}

/** What a run is made of, beside its settings and its data. */
interface Loaded {
  model: CausalLM;
  config: ModelConfig;
  codec: TextCodec;
}

/**
 * Loads, checks and plans; nothing is trained yet.
 * @throws what reading, or an adapter's making, throws; ArgumentError for what the model cannot do, too little data, a
 * plan above the memory there is
 */
export async function prepareRun(
  settings: FinetuneSettings,
  places: Places,
  gradientCheckpointing: boolean,
  { encoding, rows, reading }: RunWatch,
): Promise<Run> {
  const { model, config } = loadWatched(places.model, settings.quantize);
  model.gradientCheckpointing = gradientCheckpointing;
  const { template } = places;
  const asChat = areOfText(settings) ? undefined : { ...templateSettings(settings), template };
  const loaded = { model, config, codec: loadCodec(places.model, config, asChat) };
  return areOfText(settings)
    ? runOnText(settings, places, loaded, encoding)
    : runOnRows(settings, places, loaded, { rows, reading });
}

function runOnText(
  settings: SettingsOfText,
  { data, model: path }: Places,
  loaded: Loaded,
  encoding: EncodingWatch,
): Run {
  const { model, config, codec } = loaded;
  const { seq } = settings;
  if (seq > config.maxPositionEmbeddings) {
    throw new ArgumentError(
      `finetune: seq = ${seq} is longer than the model's ${config.maxPositionEmbeddings} positions; lower --seq.`,
    );
  }
  const prompt = promptIds("finetune", codec, settings.prompt);
  if (prompt.length > config.maxPositionEmbeddings) {
    throw new ArgumentError(
      `finetune: the prompt has ${prompt.length} tokens, more than the model's ${config.maxPositionEmbeddings} ` +
        `positions; shorten --prompt.`,
    );
  }
  const { batch, accumulation } = settings;
  const { gradientCheckpointing } = model;
  const { plan, work } = planRun(settings, gradientCheckpointing, () =>
    rehearseTraining(config, {
      batch,
      seq,
      accumulation,
      gradientCheckpointing,
      adapter: adapterSettings(settings, path),
      evaluation: { batch: 1, seq },
      generation: { prompt: prompt.length, maxNewTokens: SAMPLE_TOKENS },
    }),
  );
  const ids = encodeFile(data, codec, encoding);
  const heldOut = trainTestSplit(ids).test.length;
  if (heldOut <= seq) throw new ArgumentError(`finetune: ${data} has ${ids.length} tokens; ${tooShort(heldOut, seq)}`);
  const training = new Finetuning(model, ids, finetuningSettings(settings, path));
  const { train, test, evaluationBatches } = training;
  return {
    settings,
    training,
    codec,
    samples: [continuation(prompt)],
    counts: [
      ["Tokens to train on", count(train.length)],
      ["Tokens held out", count(test.length)],
      ["Windows measured on", count(evaluationBatches)],
    ],
    plan,
    work,
    inputs: training.digest(createHash("sha256")),
  };
}

async function runOnRows(
  settings: SettingsOfRows,
  { data, evalData, model: path }: Places,
  loaded: Loaded,
  watch: Pick<RunWatch, "rows" | "reading">,
): Promise<Run> {
  const { model, config, codec } = loaded;
  watch.reading(data);
  const reading = { ...readingSettings(settings), evalData };
  const { train, test, examples } = await loadRows("finetune", data, codec, reading, watch.rows);
  const given = { train: train.rows, ...(test === null ? {} : { test: test.rows }) };
  const ofRun = finetuningSettings(settings, path, { train: train.rows.length, test: test?.rows.length ?? null });
  const training = new Finetuning(model, given, ofRun);
  const heldOut = training.test as readonly TrainingRow[];
  const asked = heldOut.length > 0 ? heldOut : (training.train as readonly TrainingRow[]);
  const samples = answers(asked, examples, codec, config.maxPositionEmbeddings);
  const { gradientCheckpointing } = model;
  const { plan, work } = planRun(settings, gradientCheckpointing, () =>
    rehearseRows(config, given, ofRun, {
      gradientCheckpointing,
      generation: {
        prompt: Math.max(1, ...samples.map(({ prompt }) => prompt.length)),
        maxNewTokens: Math.max(0, ...samples.map(({ maxNewTokens }) => maxNewTokens)),
      },
    }),
  );
  return {
    settings,
    training,
    codec,
    samples,
    counts: countsOf(training, test === null ? [train] : [train, test]),
    plan,
    work,
    inputs: training.digest(createHash("sha256")),
  };
}

/** Of rows, as names and values; what is nothing to tell is left out. */
function countsOf(training: Finetuning, parts: readonly TokenizedData[]): [string, string][] {
  const all = parts.map(summarize);
  const sum = (key: "tokens" | "scored" | "truncated" | "skipped"): number => all.reduce((n, part) => n + part[key], 0);
  const split = parts.reduce((n, part) => n + part.split, 0);
  const counts: [string, number][] = [
    ["Rows to train on", training.train.length],
    ["Rows held out", training.test.length],
    ["Tokens of all rows", sum("tokens")],
    ["Tokens scored", sum("scored")],
    ["Tokens of the longest row", Math.max(...all.map(({ longest }) => longest))],
    ["Rows cut at their end", sum("truncated")],
    ["Rows left out", sum("skipped")],
    ["Dialogues made a row for each answer", split],
  ];
  return counts.filter(([, n], i) => i < 5 || n > 0).map(([name, n]) => [name, count(n)]);
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

/** The memory of all that a run does, and its work. */
type Rehearsed = ReturnType<typeof rehearseTraining>;

/**
 * @param rehearse of all that the run does: steps, evaluations, samples
 * @throws ArgumentError if it will not fit in memory, telling what to lower
 */
function planRun(settings: FinetuneSettings, gradientCheckpointing: boolean, rehearse: () => Rehearsed): Rehearsed {
  const { limit } = engine().memory;
  const { batch, r } = settings;
  const refuse = (peak: string): never => {
    const longest = areOfText(settings) ? `--seq (${settings.seq})` : `--max-length (${settings.maxLength})`;
    throw new ArgumentError(
      `finetune: the run would take ${peak} MB at the peak, and there are ${megabytes(limit)} MB at most. Lower ` +
        `--batch (${batch}), ${longest} or --r (${r})` +
        `${gradientCheckpointing ? "" : ", or add --gradient-checkpointing"}.`,
    );
  };
  try {
    const rehearsed = rehearse();
    const { peak } = rehearsed.plan;
    return peak > limit ? refuse(megabytes(peak)) : rehearsed;
  } catch (error) {
    // More than a double counts.
    if (error instanceof OutOfMemoryError) refuse(`more than ${megabytes(2 * limit)}`);
    throw error;
  }
}

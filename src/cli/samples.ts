/** What a run's model writes before and after: of a text the prompt's continuation, of rows its answers to a few. */
import { answersOf, type Answer, type ChatMessage, type Example, type TrainingRow } from "../data/index.js";
import { generate } from "../models/index.js";
import type { Finetuning } from "../train/finetuning.js";
import { passProgress } from "./progress.js";
import { cut } from "./format.js";
import type { ReportedSample } from "./report.js";
import { decode, type TextCodec } from "./text.js";

/** Tokens of a sample at most. */
export const SAMPLE_TOKENS = 100;
/** Rows whose answers are shown. */
const ROWS = 3;
/** Characters of what is asked that are shown, of each turn. */
const MOST_SHOWN = 2_000;
/** Tokens of a row that is one text: so many are given, and the rest is the reference. */
const START_TOKENS = 16;

export interface Sample {
  /** What the model is given. */
  prompt: readonly number[];
  /** The same for a reader. */
  shown: ReportedSample["prompt"];
  /** What stands there in the data; null: nothing. */
  reference: string | null;
  maxNewTokens: number;
  /** 0: the likeliest, which is compared with the reference. */
  temperature?: number | undefined;
  /** Whether the prompt is told with the answer. */
  isContinued: boolean;
}

/** Of a text: what goes on from a prompt. */
export function continuation(prompt: readonly number[]): Sample {
  return { prompt, shown: [], reference: null, maxNewTokens: SAMPLE_TOKENS, isContinued: true };
}

/**
 * Of rows: the answers to a few, spread evenly. A row's answer is what is scored of it last.
 * @param examples what the rows were made of, for what is shown
 * @param positions what the model has
 */
export function answers(
  rows: readonly TrainingRow[],
  examples: readonly Example[],
  codec: TextCodec,
  positions: number,
): Sample[] {
  const byPlace = new Map(examples.map((example) => [example.where, example]));
  const fitting = rows.map((row) => partsOf(row, codec)).filter(({ prompt }) => prompt.length < positions);
  return Array.from({ length: Math.min(ROWS, fitting.length) }, (_, i) => {
    const { where, prompt, reference } = fitting[Math.floor((i * fitting.length) / Math.min(ROWS, fitting.length))]!;
    return {
      prompt: [...prompt],
      shown: (asked(byPlace.get(where)) ?? [{ role: null, text: decode(codec, prompt) }]).map(({ role, text }) => ({
        role,
        text: cut(text, MOST_SHOWN),
      })),
      // As long as what is written beside it.
      reference:
        decode(codec, reference.subarray(0, SAMPLE_TOKENS)).trim() + (reference.length > SAMPLE_TOKENS ? " ..." : ""),
      maxNewTokens: Math.min(SAMPLE_TOKENS, 2 * reference.length + START_TOKENS),
      temperature: 0,
      isContinued: false,
    };
  });
}

/** A row's last answer and what stands before it; of a text, which has none, its start and the rest. */
function partsOf(row: TrainingRow, { stopToken }: TextCodec): Answer {
  const last = answersOf([row], stopToken).at(-1);
  if (last) return last;
  const { ids, where } = row;
  const start = Math.max(1, Math.min(START_TOKENS, ids.length >> 1));
  return { where, prompt: ids.subarray(0, start), reference: ids.subarray(start) };
}

/** What a row asks, as it was written. */
function asked(example: Example | undefined): ReportedSample["prompt"] | undefined {
  if (example?.kind === "completion") return [{ role: null, text: example.prompt }];
  if (example?.kind === "chatCompletion") return example.prompt.map(turn);
  if (example?.kind !== "messages") return undefined;
  const last = example.messages.map(({ role }) => role).lastIndexOf("assistant");
  return last < 0 ? undefined : example.messages.slice(0, last).map(turn);
}

function turn({ role, content }: ChatMessage): { role: string; text: string } {
  const text =
    typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? `[${part.type}]`).join("");
  return { role, text };
}

/** What the model as it is now writes, in evaluation mode: a text for each sample. */
export function write(training: Finetuning, samples: readonly Sample[], codec: TextCodec, label: string): string[] {
  const model = training.adapted.eval();
  const total = samples.reduce((n, { maxNewTokens }) => n + maxNewTokens, 0);
  const progress = passProgress(label, total);
  try {
    let before = 0;
    return samples.map(({ prompt, maxNewTokens, temperature, isContinued }) => {
      const ids: number[] = [];
      const { seed } = training.settings;
      for (const id of generate(model, prompt, { maxNewTokens, temperature, seed, stopToken: codec.stopToken })) {
        ids.push(id);
        progress.at(before + ids.length);
      }
      before += maxNewTokens;
      return isContinued ? decode(codec, [...prompt, ...ids]) : decode(codec, ids).trim();
    });
  } finally {
    progress.stop();
  }
}

/** For the report. */
export function reported(
  samples: readonly Sample[],
  before: readonly string[],
  after: readonly string[],
): ReportedSample[] {
  return samples.map(({ shown, reference }, i) => ({
    prompt: shown,
    before: before[i]!,
    after: after[i]!,
    reference,
  }));
}

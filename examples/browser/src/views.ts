/** What the page and the worker tell each other. */
import type { data } from "wasm-lora";

export interface Settings {
  rank: number;
  /** How long a text is trained on, and how long rows are. */
  steps: number;
  epochs: number;
  /** Evaluations without a better loss after which training ends; 0: never. */
  patience: number;
  /** What the samples begin with, or answer. */
  prompt: string;
}

/** The model that the next run begins with. */
export interface ModelView {
  name: string;
  isEmbedded: boolean;
  weights: number;
  /** Of an adapter, for each rank. */
  weightsOfRank: number;
  /** How many compute. */
  threads: number;
  /** Whether it has a template to chat by. */
  canChat: boolean;
  /** Whether the run that is here is one of it. */
  hasRun: boolean;
}

/** How far the loading of a model, or the reading of a file, is: in words, and as a share if that is known. */
export interface Loading {
  done: string;
  share: number | null;
}

/** What of the rows is scored; "answers" is what the library does where nothing is said. */
export type LossOn = "answers" | "last" | "all";

/** A row as the model will see it. */
export interface RowView {
  where: string;
  tokens: number;
  scored: number;
  parts: readonly { text: string; scored: boolean }[];
}

/** A file of rows, read. */
export interface RowsView {
  name: string;
  lossOn: LossOn;
  preview: readonly RowView[];
  summary: data.DataSummary;
  /** The first of those that are left out, and why. */
  skipped: readonly { where: string; reason: string }[];
  /** What one of the first rows asks: something to try the model with. */
  question: Question;
}

export interface Question {
  /** Whether it is asked through the model's template. */
  isChat: boolean;
  system: string;
  prompt: string;
}

export interface Evaluation {
  step: number;
  loss: number;
}

/** What the model does before or after training: the held-out loss, and a text. */
export interface Report {
  /** null: nothing is held out. */
  heldOutLoss: number | null;
  /** Of the adapter that it is about. */
  step: number;
  sample: Written;
}

export interface Written {
  text: string;
  /** Whether the model ended it itself. */
  isWhole: boolean;
}

/** The numbers of a run so far. */
export interface Course {
  losses: number[];
  /** Steps in all. */
  steps: number;
  evaluations: Evaluation[];
  best: Evaluation | null;
  /** Whether it ended because no evaluation was better for a while. */
  stoppedEarly: boolean;
}

export interface RunView extends Course {
  /** What it learns from: one of the two. */
  text: string | null;
  rows: RowsView | null;
  settings: Settings;
  before: Report;
  after: Report | null;
}

export interface Progress extends Course {
  tokensPerSecond: number;
  secondsLeft: number;
  memoryBytes: number;
  /** Why the run could not be saved, or null. */
  unkept: string | null;
  /** What the model writes by now, at some of the steps. */
  sample: string | null;
}

/** A saved run that does not open. It stays as it is until the visitor decides. */
export interface Trouble {
  sentence: string;
  /** Step of the run that was saved before it, if that one is whole. */
  before: number | null;
  /** Whether opening it again may succeed. */
  mayPass: boolean;
}

export interface Opened {
  model: ModelView;
  run: RunView | null;
  trouble: Trouble | null;
}

/** Which model writes: without an adapter, with the run's (of its best evaluation or its last step), with another's. */
export type Who = "base" | "best" | "last" | "uploaded";

/** What is said to it: a conversation, for the template, or a text to go on with. */
export type Said = { messages: readonly { role: string; content: string }[] } | { text: string };

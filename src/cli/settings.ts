/**
 * The settings of the command finetune, and the one judge of their values: options are checked by it, and what a
 * checkpoint says. Those that the run itself has are judged as train/settings.ts does.
 */
import { exists } from "../io/files.js";
import { isGgufFile } from "../io/gguf/files.js";
import { parseHubName, spellHubName } from "../io/hub_name.js";
import { baseOfGgufFile } from "../models/gguf_weights.js";
import { asObject, show } from "../io/json.js";
import { isAllLinear } from "../io/peft/match.js";
import { ArgumentError } from "../runtime/errors.js";
import type { Options } from "../runtime/options.js";
import type { QuantizedType } from "../tensor/blocks.js";
import { heldOutRows } from "../train/row_batches.js";
import {
  BOOLEAN,
  DEFAULT_EPOCHS,
  FINETUNING_DEFAULTS,
  FINETUNING_RULES,
  integerFrom,
  NUMBER_FROM_0,
  ROW_DEFAULTS,
  rule,
  SHARE,
  TEXT_DEFAULTS,
  type FinetuningSettings,
  type Rule,
} from "../train/settings.js";
import { DATA_DEFAULTS, DATA_RULES, type DataCommand } from "./data_options.js";
import { oneOf, optional, PATH, QUANTIZE } from "./option_values.js";

/** What decides a run's bits, whatever it trains on; a resumed run takes them from its checkpoint. */
interface SharedSettings {
  model: string;
  data: string;
  quantize?: QuantizedType | undefined;
  r: number;
  alpha: number;
  dropout: number;
  /** Names, a pattern, or "all-linear". */
  targetModules: string[] | string;
  init: (typeof INITS)[number];
  dora: boolean;
  rslora: boolean;
  loraPlus?: number | undefined;
  /** Left out: of a text 400, of rows what the epochs make. */
  steps?: number | undefined;
  batch: number;
  accumulation: number;
  lr: number | "auto";
  schedule: FinetuningSettings["schedule"];
  warmup: number;
  weightDecay: number;
  maxGradNorm: number;
  evalEvery: number | "auto";
  patience: number;
  minDelta: number;
  seed: number;
  checkpointEvery: number;
}

/** Of a run on a text alone. */
interface TextSettings {
  seq: number;
  testWindows: number | "auto";
  prompt: string;
}

/** Of a run on rows alone. */
interface RowsSettings extends DataCommand {
  evalData?: string | undefined;
  epochs?: number | undefined;
  packing: boolean;
  groupByLength: boolean;
}

export type SettingsOfText = SharedSettings & TextSettings;
export type SettingsOfRows = SharedSettings & RowsSettings;
export type FinetuneSettings = SettingsOfText | SettingsOfRows;
/** What a command says, of either kind. */
export type GivenSettings = SharedSettings & TextSettings & RowsSettings;

export function areOfText(settings: FinetuneSettings): settings is SettingsOfText {
  return "seq" in settings;
}

/** PEFT's, of which a saved adapter needs no more than the base to be read. */
export const INITS = ["default", "gaussian", "orthogonal", "pissa", "olora"] as const;

const { adapter, warmupRatio, loraplusLrRatio: _, testSize: __, ...ofRun } = FINETUNING_DEFAULTS;
const { steps: STEPS, ...ofText } = TEXT_DEFAULTS;

export const FINETUNE_DEFAULTS = {
  r: adapter.r,
  alpha: adapter.loraAlpha,
  dropout: adapter.loraDropout,
  targetModules: adapter.targetModules,
  init: "default",
  dora: false,
  rslora: false,
  ...ofRun,
  warmup: warmupRatio,
  evalEvery: "auto",
  checkpointEvery: 50,
  ...ofText,
  prompt: "The whale",
  ...ROW_DEFAULTS,
  ...DATA_DEFAULTS,
} satisfies Partial<GivenSettings>;

const TEXT: Rule<string> = rule("a text", (v) => typeof v === "string");

type Rules<T> = { readonly [K in keyof Required<T>]: Rule<T[K]> };

const SHARED: Rules<SharedSettings> = {
  model: PATH,
  data: PATH,
  quantize: QUANTIZE,
  r: integerFrom(1),
  alpha: NUMBER_FROM_0,
  dropout: SHARE,
  targetModules: rule(
    "a name or at least one of a list",
    (v) =>
      (v !== "" && TEXT.holds(v)) ||
      (Array.isArray(v) && v.length > 0 && v.every((name) => name !== "" && TEXT.holds(name))),
  ),
  init: oneOf(INITS),
  dora: BOOLEAN,
  rslora: BOOLEAN,
  loraPlus: optional(NUMBER_FROM_0),
  steps: optional(FINETUNING_RULES.steps),
  batch: FINETUNING_RULES.batch,
  accumulation: FINETUNING_RULES.accumulation,
  lr: FINETUNING_RULES.lr,
  schedule: FINETUNING_RULES.schedule,
  warmup: FINETUNING_RULES.warmupRatio,
  weightDecay: FINETUNING_RULES.weightDecay,
  maxGradNorm: FINETUNING_RULES.maxGradNorm,
  evalEvery: rule('"auto" or an integer of at least 0', (v) => v === "auto" || FINETUNING_RULES.evalEvery.holds(v)),
  patience: FINETUNING_RULES.patience,
  minDelta: FINETUNING_RULES.minDelta,
  seed: FINETUNING_RULES.seed,
  checkpointEvery: integerFrom(1),
};
const OF_TEXT: Rules<TextSettings> = {
  seq: integerFrom(2),
  testWindows: FINETUNING_RULES.testWindows,
  prompt: TEXT,
};
const OF_ROWS: Rules<RowsSettings> = {
  evalData: optional(PATH),
  epochs: optional(FINETUNING_RULES.epochs),
  packing: FINETUNING_RULES.packing,
  groupByLength: FINETUNING_RULES.groupByLength,
  ...DATA_RULES,
};

/** Every setting and its rule. */
export const SETTINGS: Rules<GivenSettings> = { ...SHARED, ...OF_TEXT, ...OF_ROWS };

/**
 * Of what a command says, that which its kind of data has.
 * @param explicit names of what the user gave
 * @throws ArgumentError for what belongs to the other kind
 */
export function settingsOf(
  given: GivenSettings,
  kind: "text" | "rows",
  explicit: ReadonlySet<string>,
): FinetuneSettings {
  const [own, other] = kind === "text" ? [OF_TEXT, OF_ROWS] : [OF_ROWS, OF_TEXT];
  const stray = Object.keys(other).find((key) => explicit.has(key));
  if (stray !== undefined) {
    throw new ArgumentError(
      `finetune: ${flag(stray)} is for ${kind === "text" ? "rows (JSON Lines, JSON, CSV, Parquet)" : "a text"}, and ` +
        `${given.data} is ${kind === "text" ? "read as a text" : "read as rows"}; leave it out.`,
    );
  }
  const settings = Object.fromEntries(
    Object.keys({ ...SHARED, ...own })
      .map((key) => [key, given[key as keyof GivenSettings]])
      .filter(([, value]) => value !== undefined),
  ) as unknown as FinetuneSettings;
  if (areOfText(settings)) {
    settings.steps ??= STEPS;
    if (settings.evalEvery === "auto") settings.evalEvery = 0;
  } else if (settings.steps === undefined) settings.epochs ??= DEFAULT_EPOCHS;
  return settings;
}

/** An option as it is typed. */
export function flag(key: string): string {
  if (key === "packing") return "--no-packing";
  return `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** Between two evaluations of rows there are at most so many steps, where the user does not say. */
const MOST_STEPS = 200;

/** How many rows there are to train on, and, unless they are to be drawn from these, to measure on. */
export interface RowCounts {
  train: number;
  test: number | null;
}

/**
 * Steps between evaluations of rows where the user leaves it open: an epoch, or fewer, but not so few that more rows
 * are measured than trained on.
 */
function evalEveryOf({ batch, accumulation }: SharedSettings, { train, test }: RowCounts): number {
  const heldOut = test ?? heldOutRows(train);
  if (heldOut === 0) return 0;
  const steps = (rows: number): number => Math.ceil(rows / (batch * accumulation));
  return Math.max(Math.min(steps(test === null ? train - heldOut : train), MOST_STEPS), steps(heldOut));
}

/** What the run's adapter is made by. @param path where the model is now */
export function adapterSettings(settings: FinetuneSettings, path: string): FinetuningSettings["adapter"] {
  const { model, r, alpha, dropout, targetModules, init, dora, rslora } = settings;
  return {
    r,
    loraAlpha: alpha,
    loraDropout: dropout,
    targetModules,
    initLoraWeights: init === "default" ? true : init,
    useDora: dora,
    useRslora: rslora,
    baseModelNameOrPath: baseName(model, path),
  };
}

/**
 * What the run itself is given.
 * @param path where the model is now
 * @param rows of a run on rows
 * @throws ArgumentError for a patience that nothing tries
 */
export function finetuningSettings(
  settings: FinetuneSettings,
  path: string,
  rows?: RowCounts,
): Options<FinetuningSettings> {
  const { steps, batch, accumulation, lr, schedule, warmup, weightDecay, maxGradNorm } = settings;
  const { loraPlus, patience, minDelta, seed } = settings;
  const evalEvery = settings.evalEvery === "auto" ? (rows ? evalEveryOf(settings, rows) : 0) : settings.evalEvery;
  if (patience > 0 && evalEvery === 0)
    throw new ArgumentError(
      `finetune: --patience ${patience} counts evaluations, and there are none; give --eval-every, and something to ` +
        `measure on.`,
    );
  const shared = {
    adapter: adapterSettings(settings, path),
    steps,
    batch,
    accumulation,
    lr,
    schedule,
    warmupRatio: warmup,
    weightDecay,
    maxGradNorm,
    loraplusLrRatio: loraPlus,
    evalEvery,
    patience,
    minDelta,
    seed,
  };
  if (areOfText(settings)) return { ...shared, seq: settings.seq, testWindows: settings.testWindows };
  const { epochs, packing, groupByLength } = settings;
  return { ...shared, epochs, packing, groupByLength };
}

/**
 * What PEFT finds the base by: a folder, or a name on the hub, which has no revision there; of a GGUF file the name of
 * the folder that it was made of, where it says that.
 * @param path where it is now
 */
function baseName(model: string, path: string): string {
  const own = isGgufFile(path) ? baseOfGgufFile(path) : undefined;
  const name = exists(model) ? undefined : parseHubName(model);
  return own ?? (name ? spellHubName({ ...name, revision: undefined }) : model);
}

/** @param fail throws the caller's error */
export function checkSettings(value: unknown, fail: (message: string) => never): FinetuneSettings {
  const settings = asObject(value) ?? fail(`settings are ${show(value)}; expected an object`);
  const rules: Record<string, Rule<unknown>> = { ...SHARED, ...("seq" in settings ? OF_TEXT : OF_ROWS) };
  for (const [key, { expected, holds }] of Object.entries(rules)) {
    if (!holds(settings[key])) fail(`setting ${key} is ${show(settings[key])}; expected ${expected}`);
  }
  const stray = Object.keys(settings).find((key) => !Object.hasOwn(rules, key));
  if (stray !== undefined) fail(`there is no setting ${show(stray)}`);
  return value as FinetuneSettings;
}

/**
 * Of --target-modules: "all-linear", a pattern as PEFT takes it (a Python regular expression), or names between commas.
 */
export function parseTargetModules(text: string): string[] | string {
  const whole = text.trim();
  // PEFT, too, reads this word in any case.
  if (isAllLinear(whole)) return "all-linear";
  if (/[*+?()|\\^$[\]{}]/.test(whole)) return whole;
  return whole
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}

/** wasm-lora eval: what a model makes of rows, without an adapter and with it. */
import { answersOf, summarize, type Answer, type TokenizedData, type TrainingRow } from "../data/index.js";
import type { CausalLM } from "../models/index.js";
import { LoraModel } from "../peft/index.js";
import { ArgumentError } from "../runtime/errors.js";
import type { QuantizedType } from "../tensor/blocks.js";
import { evaluateRows, exactMatch, type GivenAnswer } from "../train/index.js";
import { dataFiles, leadsToRows, loadFile } from "./data.js";
import { readingSettings, type DataCommand } from "./data_options.js";
import { startEngine, type EngineCommand } from "./engine_options.js";
import { evenly } from "./evenly.js";
import { count, exp, oneLine, perplexity, perplexityChange, quote } from "./format.js";
import { findFolder } from "./hub.js";
import { loadWatched } from "./load_watched.js";
import { modelFor } from "./places.js";
import { announce, passProgress, rowsProgress } from "./progress.js";
import { decode, loadCodec, type TextCodec } from "./text.js";

export interface EvalCommand extends DataCommand, EngineCommand {
  data: string;
  model?: string | undefined;
  adapter?: string | undefined;
  quantize?: QuantizedType | undefined;
  offline?: boolean | undefined;
  limit?: number | undefined;
  batch: number;
  json?: boolean | undefined;
}

/** What is measured of a model. */
interface Measures {
  loss: number;
  tokenAccuracy: number;
  /** How many answers are exact; null: the rows have none. */
  exact: number | null;
  given: readonly GivenAnswer[];
}

/** Answers that are shown. */
const SHOWN = 3;

/** @throws as `loadFile`; ArgumentError for a text, and for weights of which no loss comes */
export async function evaluate(options: EvalCommand): Promise<void> {
  const { data: path, batch, json = false } = options;
  if (!leadsToRows(path))
    throw new ArgumentError(
      `eval: ${path} holds no rows by its name; expected .jsonl, .json, .csv, .tsv, .parquet or a folder with such ` +
        "files. Of a text finetune measures the end, before training and after.",
    );
  await startEngine(options);
  const adapter = options.adapter && (await findFolder("eval", options.adapter, "adapter", options)).path;
  const folder = await modelFor("eval", { ...options, adapter });
  const { test, valid, train } = dataFiles("eval", path);
  const file = (test ?? valid ?? train)!;
  announce(`Loading ${oneLine(folder)} ...`);
  const { model, config } = loadWatched(folder, options.quantize);
  const settings = readingSettings(options);
  const codec = loadCodec(folder, config, settings);
  const { data } = await loadFile(file, codec, settings, rowsProgress());
  const rows = data.rows.slice(0, options.limit);
  const answers = answersOf(rows, codec.stopToken);
  const measure = (name: string): Measures => measured(model, name, rows, answers, codec, batch);
  const lora = adapter ? LoraModel.fromPretrained(model, adapter) : undefined;
  const found = new Map([["base", lora ? lora.disableAdapter(() => measure("base")) : measure("base")]]);
  if (lora) found.set("adapter", measure("adapter"));
  const names = { model: folder, adapter: adapter || null, data: file };
  const counts = countsOf(data, rows, answers);
  if (json) return console.log(JSON.stringify({ ...names, ...counts, ...inJson(found, counts) }));
  console.log(`${tableLines(names, counts, found).join("\n")}\n`);
  if (answers.length > 0) console.log(answerLines(answers, found, codec).join("\n"));
}

function measured(
  model: CausalLM,
  name: string,
  rows: readonly TrainingRow[],
  answers: readonly Answer[],
  { stopToken }: TextCodec,
  batch: number,
): Measures {
  const progress = passProgress(`Loss, ${name}`, Math.ceil(rows.length / batch));
  let loss: number;
  let tokenAccuracy: number;
  try {
    ({ loss, tokenAccuracy } = evaluateRows(model, rows, { batch, onBatch: (done) => progress.at(done) }));
  } finally {
    progress.stop();
  }
  if (!Number.isFinite(loss))
    throw new ArgumentError(
      `eval: the loss of the ${name} is ${loss}, not a finite number: its weights are damaged, or not this model's.`,
    );
  if (answers.length === 0) return { loss, tokenAccuracy, exact: null, given: [] };
  const all = answers.reduce((n, { reference }) => n + reference.length + 1, 0);
  const writing = passProgress(`Answers, ${name}`, all);
  try {
    return {
      loss,
      tokenAccuracy,
      ...exactMatch(model, answers, { eosTokenIds: stopToken, batch, onProgress: (done) => writing.at(done) }),
    };
  } finally {
    writing.stop();
  }
}

/** Of what is measured, as numbers. */
interface Counts {
  rows: number;
  ofRows: number;
  tokens: number;
  scored: number;
  answers: number;
  truncated: number;
  skipped: number;
}

function countsOf(data: TokenizedData, measured: TrainingRow[], answers: readonly Answer[]): Counts {
  const { rows, tokens, scored, truncated, skipped } = summarize({ ...data, rows: measured });
  return { rows, ofRows: data.rows.length, tokens, scored, answers: answers.length, truncated, skipped };
}

/** What of a measure is a number. */
function inJson(found: ReadonlyMap<string, Measures>, { answers }: Counts): Record<string, object> {
  return Object.fromEntries(
    Array.from(found, ([name, { loss, tokenAccuracy, exact }]) => [
      // "adapter" is its folder.
      name === "adapter" ? "adapted" : name,
      {
        loss,
        perplexity: exp(loss),
        tokenAccuracy,
        exact,
        exactMatch: exact === null ? null : exact / answers,
      },
    ]),
  );
}

function tableLines(
  { model, adapter, data: file }: { model: string; adapter: string | null; data: string },
  { rows, ofRows, tokens, scored, answers, truncated, skipped }: Counts,
  found: ReadonlyMap<string, Measures>,
): string[] {
  const part = rows < ofRows ? `the first ${count(rows)} of ` : "";
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  const [base, adapted] = [found.get("base")!, found.get("adapter")];
  const cells = ({ loss, tokenAccuracy, exact }: Measures): string[] => [
    loss.toFixed(4),
    perplexity(loss),
    percent(tokenAccuracy),
    exact === null ? "-" : percent(exact / answers),
    exact === null ? "-" : `${count(exact)} of ${count(answers)}`,
  ];
  const columns = [
    ["", "loss", "perplexity", "token accuracy", "exact match", "answers"],
    ["base", ...cells(base)],
  ];
  if (adapted) columns.push(["adapter", ...cells(adapted)]);
  const widths = columns.map((column) => column.reduce((width, cell) => Math.max(width, cell.length), 0));
  const lines = columns[0]!.map((_, line) =>
    columns
      .map((column, c) => (c === 0 ? column[line]!.padEnd(widths[c]!) : column[line]!.padStart(widths[c]! + 3)))
      .join(""),
  );
  if (adapted) lines[2] += `   ${perplexityChange(base.loss, adapted.loss)}`;
  const left = [
    truncated > 0
      ? `${count(truncated)} rows were longer than --max-length, or than the model's positions, and cut`
      : "",
    skipped > 0 ? `${count(skipped)} rows were skipped` : "",
    answers === 0 ? "no row asks for an answer, so there is no exact match" : "",
  ].filter(Boolean);
  return [
    `${oneLine(file)}: ${part}${count(ofRows)} rows, ${count(tokens)} tokens, ${count(scored)} scored`,
    `${oneLine(model)}${adapter === null ? "" : `, with and without ${oneLine(adapter)}`}`,
    ...left.map((line) => `(${line})`),
    "",
    ...lines,
  ];
}

/** A few answers, spread evenly, beside what they should be. */
function answerLines(answers: readonly Answer[], found: ReadonlyMap<string, Measures>, codec: TextCodec): string[] {
  return evenly(answers.length, SHOWN).map((i) => {
    const { where, prompt, reference } = answers[i]!;
    const asked = decode(codec, prompt).trim();
    const lines = [
      oneLine(where),
      `  asked     ${quote(asked.length > 200 ? `... ${asked.slice(-200)}` : asked)}`,
      `  expected  ${quote(decode(codec, reference))}`,
    ];
    for (const [name, { given }] of found) {
      const { ids, isExact } = given[i]!;
      const written = `${decode(codec, ids)}${ids.length > reference.length ? " ..." : ""}`;
      lines.push(`  ${name.padEnd(8)}  ${quote(written)} ${isExact ? "✓" : "✗"}`);
    }
    return `${lines.join("\n")}\n`;
  });
}

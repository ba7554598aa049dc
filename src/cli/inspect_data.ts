/** wasm-lora inspect --data: what a model will see of data, what of it is scored, and how much of all there is. */
import { previewRow, summarize, type TokenizedData, type TrainingRow } from "../data/index.js";
import { configPath } from "../io/gguf/files.js";
import { familyOfConfig, type ModelConfig } from "../models/families.js";
import { readConfig } from "../models/load.js";
import { FormatError } from "../runtime/errors.js";
import { dataFiles, leadsToRows, loadFile } from "./data.js";
import { readingSettings, type DataCommand } from "./data_options.js";
import { evenly } from "./evenly.js";
import { count, oneLine } from "./format.js";
import { modelFor } from "./places.js";
import { encodingProgress, rowsProgress } from "./progress.js";
import { histogramLines, marksFor, rowLines } from "./rows_shown.js";
import { encodeFile, loadCodec, type TextCodec } from "./text.js";

export interface InspectDataCommand extends DataCommand {
  data: string;
  model?: string | undefined;
  offline?: boolean | undefined;
}

/** Rows that are shown. */
const SHOWN = 3;
/** Tokens of a text that are shown at a place. */
const EXCERPT = 64;
/** Rows that were left out and are told. */
const MOST_SKIPPED = 10;

/** @throws as `loadFile` */
export async function inspectData(options: InspectDataCommand): Promise<void> {
  const { data: path } = options;
  const folder = await modelFor("inspect", options);
  const settings = readingSettings(options);
  const codec = loadCodec(folder, configOf(folder), settings);
  if (!leadsToRows(path)) return inspectText(path, codec);
  const files = Object.values(dataFiles("inspect", path)).filter((file) => file !== null);
  for (const [i, file] of files.entries()) {
    // Whoever looks wants to know of all that is wrong.
    const { data } = await loadFile(file, codec, { ...settings, skipUnusable: true }, rowsProgress());
    if (i === 0) {
      const rows = evenly(data.rows.length, SHOWN).map((row) => data.rows[row]!);
      showRows(rows, codec);
    }
    console.log(countLines(file, data, options).join("\n"));
  }
}

/** What config.json says of a language model; no weight is read. */
function configOf(folder: string): ModelConfig {
  const name = configPath(folder);
  const json = readConfig("inspect", folder);
  const family = familyOfConfig(json, name);
  if (!family.heads["causal-lm"])
    throw new FormatError(`${name}: model_type ${family.modelType} is no language model, which --data is for.`);
  return family.parseConfig(json, name) as ModelConfig;
}

function showRows(rows: readonly TrainingRow[], { tokenizer }: TextCodec): void {
  const marks = marksFor(process.stdout);
  console.log(`As the model sees them; ${marks.legend}:\n`);
  for (const row of rows) {
    const { tokens, scored } = summarize({ rows: [row], truncated: 0, skipped: [], split: 0 });
    console.log(`${oneLine(row.where)}  ${count(tokens)} tokens, ${count(scored)} scored`);
    console.log(`${rowLines(previewRow(row, tokenizer), marks).join("\n")}\n`);
  }
}

function countLines(file: string, data: TokenizedData, { maxLength, skipUnusable }: InspectDataCommand): string[] {
  const summary = summarize(data);
  const { rows, tokens, scored, truncated, skipped, shortest, longest } = summary;
  const told: [string, number, string][] = [
    ["rows", rows, ""],
    ["tokens", tokens, `${count(shortest)} to ${count(longest)} a row, ${(tokens / rows).toFixed(1)} on average`],
    ["scored", scored, `${((100 * scored) / tokens).toFixed(1)} % of them`],
    [
      "truncated",
      truncated,
      truncated > 0 ? `longer than --max-length ${maxLength}, or than the model's positions` : "",
    ],
    ["skipped", skipped, skipped > 0 && !skipUnusable ? "finetune refuses them, unless --skip-unusable is given" : ""],
  ];
  if (data.split > 0) told.push(["split", data.split, "dialogues that became a row for each answer"]);
  const width = told.reduce((a, [, n]) => Math.max(a, count(n).length), 0);
  const lines = [oneLine(file)];
  for (const [name, n, more] of told)
    lines.push(`  ${name.padEnd(9)}  ${count(n).padStart(width)}${more ? `  ${more}` : ""}`);
  for (const { where, reason } of data.skipped.slice(0, MOST_SKIPPED))
    lines.push(`    ${oneLine(`${where}: ${reason}`, 200)}`);
  if (skipped > MOST_SKIPPED) lines.push(`    ... and ${count(skipped - MOST_SKIPPED)} more`);
  return [...lines, "", "Rows by their tokens", ...histogramLines(summary), ""];
}

/** A text that is trained on in windows: all of it is scored. */
function inspectText(path: string, codec: TextCodec): void {
  const ids = encodeFile(path, codec, encodingProgress());
  const rows = evenly(Math.ceil(ids.length / EXCERPT), SHOWN).map((excerpt): TrainingRow => {
    const start = excerpt * EXCERPT;
    const part = ids.slice(start, start + EXCERPT);
    return { ids: part, labels: part, where: `token ${count(start)}` };
  });
  showRows(rows, codec);
  console.log(
    `${oneLine(path)}\n  a text of ${count(ids.length)} tokens, which is trained on in windows, and all scored: rows ` +
      "are .jsonl, .json, .csv, .tsv or .parquet",
  );
}

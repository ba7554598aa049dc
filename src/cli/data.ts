/** Rows that a command works on: a file, or a folder with files for training, validation and tests. */
import { readdirSync, statSync } from "node:fs";
import {
  isRowsFile,
  parseRows,
  readExamples,
  tokenizeExamples,
  type Example,
  type TokenizedData,
} from "../data/index.js";
import { readBytes } from "../io/files.js";
import { ArgumentError, FileError, FormatError } from "../runtime/errors.js";
import type { ReadingSettings } from "./data_options.js";
import { checkVocabulary, type TextCodec } from "./text.js";

/** Told how rows come along that are read. */
export interface RowsWatch {
  /** Told of each file, when its rows are about to become tokens. */
  began(file: string, rows: number): void;
  /** Told now and then how many of them are done. */
  progress(done: number, all: number): void;
  /** They are done, or could not be. */
  ended(): void;
}

/** A folder's files by what they are for; a file alone is for training. */
export interface DataFiles {
  train: string | null;
  valid: string | null;
  test: string | null;
}

/** The names, without their ends, that a folder's files have. */
const NAMES: Readonly<Record<keyof DataFiles, readonly string[]>> = {
  train: ["train"],
  valid: ["valid", "validation"],
  test: ["test"],
};

/** Whether a path leads to rows: a file that holds some by its name's end, or a folder. */
export function leadsToRows(path: string): boolean {
  return isRowsFile(path) || isFolder(path);
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    // Whoever reads it says what is the matter.
    return false;
  }
}

/**
 * The files of rows that a path leads to.
 * @param where the command, for errors
 * @throws FileError if a folder has none of them, or two for one purpose
 */
export function dataFiles(where: string, path: string): DataFiles {
  if (!isFolder(path)) return { train: path, valid: null, test: null };
  const files = readdirSync(path).filter(isRowsFile).sort();
  const fileFor = (purpose: keyof DataFiles): string | null => {
    const those = files.filter((file) => NAMES[purpose].includes(file.replace(/\.[^.]*$/, "")));
    if (those.length > 1) {
      throw new FileError(
        `${where}: ${path} holds ${those.join(" and ")}; expected one file for ${purpose}. Keep one of them there, ` +
          `or name a file instead of the folder.`,
      );
    }
    return those.length === 0 ? null : `${path.replace(/\/+$/, "")}/${those[0]!}`;
  };
  const found = { train: fileFor("train"), valid: fileFor("valid"), test: fileFor("test") };
  if (Object.values(found).every((file) => file === null)) {
    throw new FileError(
      `${where}: ${path} is a folder without rows; expected train.jsonl in it, and perhaps valid.jsonl and ` +
        `test.jsonl (or .json, .csv, .tsv, .parquet).`,
    );
  }
  return found;
}

/** A file's rows, as they were read and as tokens. */
export interface LoadedFile {
  examples: Example[];
  data: TokenizedData;
}

/**
 * @throws FileError; FormatError for what is no such file, and for a row that is none, that cannot be trained on or has
 * a token that the model has not; ArgumentError
 */
export async function loadFile(
  path: string,
  codec: TextCodec,
  { format, features, lossOn, maxLength, templateArgs, date, skipUnusable }: ReadingSettings,
  watch: RowsWatch,
): Promise<LoadedFile> {
  const rows = await parseRows(readBytes(path), path);
  const examples = readExamples(rows, { format, features });
  watch.began(path, examples.length);
  try {
    const data = tokenizeExamples(examples, codec.tokenizer, {
      eosTokenIds: codec.stopToken,
      lossOn,
      // A row's last token takes no position.
      maxLength: Math.min(maxLength, codec.positions + 1),
      date,
      chatTemplateKwargs: templateArgs,
      onUnusable: skipUnusable ? "skip" : "refuse",
      onProgress: watch.progress,
    });
    const [skipped] = data.skipped;
    if (data.rows.length === 0 && skipped !== undefined)
      throw new FormatError(`${path}: no row can be trained on; ${skipped.where}, for one: ${skipped.reason}.`);
    for (const row of data.rows) checkVocabulary(row.ids, codec, () => row.where);
    return { examples, data };
  } finally {
    watch.ended();
  }
}

/** What `loadRows` finds. */
export interface LoadedRows {
  /** To train on. */
  train: TokenizedData;
  /** To measure on: --eval-data, or the folder's; null: neither is there. */
  test: TokenizedData | null;
  /** The rows of both as they were read, those to train on first. */
  examples: Example[];
}

/**
 * The rows to train on and those to measure on, by a file or a folder.
 * @param where the command, for errors
 * @param options their `template` is the codec's already
 * @throws as `dataFiles` and `loadFile`
 */
export async function loadRows(
  where: string,
  path: string,
  codec: TextCodec,
  options: ReadingSettings & { evalData?: string | undefined },
  watch: RowsWatch,
): Promise<LoadedRows> {
  const { evalData, ...reading } = options;
  const { train, valid } = dataFiles(where, path);
  if (train === null)
    throw new FileError(
      `${where}: ${path} has no train.jsonl (or .json, .csv, .tsv, .parquet), and rows to train on are needed.`,
    );
  if (evalData !== undefined && !isRowsFile(evalData))
    throw new ArgumentError(`${where}: --eval-data is ${evalData}; expected a file of rows, as --data.`);
  const test = evalData ?? valid;
  const trained = await loadFile(train, codec, reading, watch);
  const tested = test === null ? null : await loadFile(test, codec, reading, watch);
  return {
    train: trained.data,
    test: tested?.data ?? null,
    examples: [...trained.examples, ...(tested?.examples ?? [])],
  };
}

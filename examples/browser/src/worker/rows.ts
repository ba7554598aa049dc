/** Rows of a file for a model: read, made tokens, shown, and kept as bytes. */
import { data, io } from "wasm-lora";
import { printable } from "../format";
import { Refusal } from "../refusal";
import type { LossOn, Question, RowsView } from "../views";
import type { Base } from "./base";

/** What a file of rows says, whichever model reads it. */
export interface RowsFile {
  name: string;
  examples: data.Example[];
}

/** Rows as one model sees them. */
export interface Rows {
  name: string;
  lossOn: LossOn;
  question: Question;
  tokenized: data.TokenizedData;
}

/** Tokens a row, at most, as the library has it by default; fewer where a model has fewer positions. */
const MAX_LENGTH = 1024;
/** Rows that are shown, and reasons. */
const SHOWN = 3;
const MOST_REASONS = 50;

/** @throws Refusal naming file, line and column */
export async function readRowsFile(bytes: Uint8Array, name: string): Promise<RowsFile> {
  try {
    return { name, examples: data.readExamples(await data.parseRows(bytes, name)) };
  } catch (error) {
    throw explained(error as Error);
  }
}

/** @throws Refusal saying which rows are of no use, and why */
export function tokenizeRows(
  base: Base,
  { name, examples }: RowsFile,
  lossOn: LossOn,
  onProgress: (done: number, all: number) => void,
): Rows {
  const chat = examples.find(({ kind }) => kind === "messages" || kind === "chatCompletion");
  if (chat && !base.tokenizer.chatTemplate)
    throw new Refusal(
      "file",
      `${printable(chat.where)} is a conversation, and ${printable(base.name)} has no template to write it by. Load ` +
        `a model that has one, or use rows of prompt and completion.`,
    );
  try {
    const tokenized = data.tokenizeExamples(examples, base.tokenizer, {
      eosTokenIds: base.eosTokenIds,
      lossOn: lossOn === "answers" ? undefined : lossOn,
      // A row's last token takes no position.
      maxLength: Math.min(MAX_LENGTH, base.positions + 1),
      onUnusable: "skip",
      onProgress,
    });
    const [reason] = tokenized.skipped;
    if (tokenized.rows.length === 0)
      throw new Refusal("file", `No row of ${name} can be used${reason ? `: ${reason.where}: ${reason.reason}` : ""}.`);
    return { name, lossOn, question: suggested(examples), tokenized };
  } catch (error) {
    throw explained(error as Error);
  }
}

export function viewRows({ name, lossOn, question, tokenized }: Rows, { tokenizer }: Base): RowsView {
  const preview = tokenized.rows.slice(0, SHOWN).map((row) => {
    const { tokens, scored } = data.summarize({ rows: [row], truncated: 0, skipped: [], split: 0 });
    return { where: row.where, tokens, scored, parts: data.previewRow(row, tokenizer) };
  });
  const skipped = tokenized.skipped.slice(0, MOST_REASONS);
  return { name, lossOn, question, preview, summary: data.summarize(tokenized), skipped };
}

/** What one of the first rows asks: one that fits in a field, if there is one. */
function suggested(examples: readonly data.Example[]): Question {
  const questions = examples.slice(0, 100).map(questionOf);
  return questions.find(({ prompt }) => prompt.trim() !== "" && prompt.length <= 300) ?? questions[0]!;
}

function questionOf(example: data.Example): Question {
  if (example.kind === "tokens") return { isChat: false, system: "", prompt: "" };
  if (example.kind === "text")
    return { isChat: false, system: "", prompt: example.text.trim().split(/\s+/).slice(0, 3).join(" ") };
  if (example.kind === "completion") return { isChat: false, system: "", prompt: example.prompt };
  const messages = example.kind === "messages" ? example.messages : example.prompt;
  const said = (role: string): string => contentOf(messages.find((message) => message.role === role)?.content ?? "");
  return { isChat: true, system: said("system"), prompt: said("user") };
}

function contentOf(content: NonNullable<data.ChatMessage["content"]>): string {
  return typeof content === "string" ? content : content.map(({ text }) => text ?? "").join("");
}

const [IDS, LABELS, ENDS, ABOUT, DIGEST] = ["ids", "labels", "ends", "about", "digest"];

/** As one file, with a digest. */
export function packRows({ tokenized, ...about }: Rows): { bytes: Uint8Array; digest: string } {
  const { rows, ...counts } = tokenized;
  const total = rows.reduce((n, { ids }) => n + ids.length, 0);
  const [ids, labels, ends] = [new Int32Array(total), new Int32Array(total), new Int32Array(rows.length)];
  let at = 0;
  for (const [i, row] of rows.entries()) {
    ids.set(row.ids, at);
    labels.set(row.labels, at);
    ends[i] = at += row.ids.length;
  }
  const metadata = { [ABOUT!]: JSON.stringify({ ...about, ...counts, places: rows.map(({ where }) => where) }) };
  const tensors = [
    { name: IDS!, data: ids },
    { name: LABELS!, data: labels },
    { name: ENDS!, data: ends },
  ].map((tensor) => ({ ...tensor, dtype: "I32" as const, shape: [tensor.data.length] }));
  const digest = io.digestOfTensors(
    tensors.map((tensor) => ({ ...tensor, bytes: tensor.data })),
    metadata,
  );
  return { bytes: io.serializeSafetensors(tensors, { ...metadata, [DIGEST!]: digest }), digest };
}

/** @throws Error unless they are those of that digest */
export function unpackRows(bytes: Uint8Array, digest: string): Rows {
  const { tensors, metadata } = io.parseSafetensors(bytes);
  if (io.digestOfTensors(tensors.values(), metadata) !== digest) throw new Error("the rows are damaged");
  const { name, lossOn, question, places, ...counts } = JSON.parse(metadata[ABOUT!]!);
  const [ids, labels, ends] = [IDS!, LABELS!, ENDS!].map((key) => io.toInt32(tensors.get(key)!));
  const rows = [...ends!].map((end, i) => {
    const start = i === 0 ? 0 : ends![i - 1]!;
    return { ids: ids!.slice(start, end), labels: labels!.slice(start, end), where: places[i] };
  });
  return { name, lossOn, question, tokenized: { rows, ...counts } };
}

function explained(error: Error): Error {
  if (!["FormatError", "ArgumentError"].includes(error.name)) return error;
  return new Refusal("file", printable(error.message));
}

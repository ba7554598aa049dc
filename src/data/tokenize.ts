/** A row of token ids with what of it is scored. */
export interface TrainingRow {
  /** The row's tokens. */
  ids: Int32Array;
  /** Of ids' length: the id where it is scored, -100 where it is not (Hugging Face's labels). */
  labels: Int32Array;
  /** The row's place, for errors: "chats.jsonl:12". */
  where: string;
}

/** Rows as tokens, and what became of those that are not there as they were. */
export interface TokenizedData {
  /** In the order of the file. */
  rows: TrainingRow[];
  /** Number of rows that were longer than maxLength and have lost their end. */
  truncated: number;
  /** Rows that were left out, each with its place and why. */
  skipped: { where: string; reason: string }[];
  /** Number of dialogues that became a row for each answer, since the template writes an earlier turn otherwise. */
  split: number;
}

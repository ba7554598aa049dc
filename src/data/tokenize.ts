/** A row of token ids with what of it is scored. */
export interface TrainingRow {
  /** The row's tokens. */
  ids: Int32Array;
  /** Of ids' length: the id where it is scored, -100 where it is not (Hugging Face's labels). */
  labels: Int32Array;
  /** The row's place, for errors: "chats.jsonl:12". */
  where: string;
}

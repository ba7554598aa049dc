/** What every target is given, and what it gives. */
import type { LoraConfig } from "../io/peft/config.js";
import type { Tokenizer } from "../data/tokenizer.js";
import type { ModelConfig } from "../models/families.js";
import type { FloatType } from "../tensor/dtype.js";
import type { Update } from "./source.js";

/** An adapter that is to be written for others. */
export interface Task {
  /** The caller, for errors. */
  where: string;
  config: LoraConfig;
  updates: readonly Update[];
  dtype: FloatType;
  /** Of the base; null: it is not known. */
  base: ModelConfig | null;
  tokenizer: Tokenizer | null;
  /** What Ollama's FROM names. */
  from: string;
}

/** What was made of it. */
export interface Written {
  files: Map<string, Uint8Array>;
  /** The updates that the files hold, in the order of the task's; they are read from the files' bytes. */
  readBack(): Update[];
  /** How many have their scaling in B. */
  folded: number;
  /** What should be known beside, in whole sentences. */
  notes: string[];
}

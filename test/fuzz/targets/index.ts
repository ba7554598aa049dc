/** Every target, in the order in which they run. */
import type { Target } from "../target.js";
import { adapter } from "./adapter.js";
import { commandLine } from "./arguments.js";
import { checkpoint } from "./checkpoint.js";
import { files } from "./files.js";
import { gguf } from "./gguf.js";
import { hostile } from "./hostile.js";
import { model } from "./model.js";
import { nf4 } from "./nf4.js";
import { pattern } from "./pattern.js";
import { op } from "./ops.js";
import { options } from "./options.js";
import { rows } from "./rows.js";
import { safetensors } from "./safetensors.js";
import { tokenizer } from "./tokenizer.js";

export const TARGETS: readonly Target[] = [
  hostile,
  safetensors,
  gguf,
  model,
  nf4,
  adapter,
  pattern,
  tokenizer,
  rows,
  checkpoint,
  files,
  commandLine,
  options,
  op,
];

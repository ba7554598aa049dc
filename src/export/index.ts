/** Adapters and models for other systems. What is written of an adapter is read back and compared with its source. */
import type { Tokenizer } from "../data/tokenizer.js";
import { loadTokenizer } from "../data/tokenizer.js";
import { exists } from "../io/files.js";
import { isGgufFile } from "../io/gguf/files.js";
import type { LoraModel } from "../peft/model.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { FLOAT_TYPES, type FloatType } from "../tensor/dtype.js";
import { configOfBase } from "./base.js";
import { compareUpdates, type Comparison } from "./compare.js";
import { writeGgufAdapter } from "./gguf.js";
import { FileInMemory } from "./in_memory.js";
import { writeMlxAdapter } from "./mlx.js";
import { configText, writeGgufModel, writeSafetensorsModel } from "./model.js";
import { writeOllama } from "./ollama.js";
import { writePortablePeft, writeWorkersAi } from "./peft.js";
import { readSource } from "./source.js";
import type { Task, Written } from "./target.js";
import { EXPORT_TARGETS, MODEL_DTYPES, type ExportTarget, type ModelDType } from "./targets.js";

export type { ExportTarget, ModelDType };

/** Options of `exportAdapter`. */
export interface ExportAdapterOptions {
  /**
   * "gguf": llama.cpp, node-llama-cpp, wllama; "ollama": the same with a Modelfile; "mlx": mlx-lm;
   * "workers-ai": Cloudflare's; "peft": a folder for servers that know lora_alpha / r alone.
   */
  to: ExportTarget;
  /** The base's folder or GGUF file, of which the config is read; of a LoraModel its own config by default. */
  base?: string | undefined;
  /** What factors are stored in. Default "float32"; the others round to nearest, ties to even. */
  dtype?: FloatType | undefined;
  /** The adapter of a LoraModel. Default "default". */
  adapterName?: string | undefined;
  /** For "ollama": whose chat template becomes the Modelfile's. Default: that of the base. */
  tokenizer?: Tokenizer | undefined;
  /** For "ollama": what FROM names. Default "./base.gguf". */
  from?: string | undefined;
}

/** What `exportAdapter` makes. */
export interface ExportedAdapter extends Comparison {
  /** The files' bytes, by name. */
  files: Map<string, Uint8Array>;
  /** Modules that have an update. */
  modules: number;
  /** Of these, how many have their own scaling in B, since the target knows one for all. */
  folded: number;
  /** What should be known beside. */
  notes: readonly string[];
}

const TARGETS: Readonly<Record<ExportTarget, { write(task: Task): Written; needsBase: boolean }>> = {
  gguf: { write: writeGgufAdapter, needsBase: true },
  mlx: { write: writeMlxAdapter, needsBase: false },
  "workers-ai": { write: writeWorkersAi, needsBase: true },
  ollama: { write: writeOllama, needsBase: true },
  peft: { write: writePortablePeft, needsBase: false },
};

/**
 * An adapter as files for another system. Where that knows one scaling for all modules (alpha / r), what differs
 * (rsLoRA, patterns) is folded into B: exactly if by a power of two, else with one rounding to float32. The files are
 * read back, and their updates compared with the source's.
 *
 * Source: llama.cpp, convert_lora_to_gguf.py; mlx-lm, tuner/lora.py; Ollama, template/template.go; PEFT.
 * @param adapter a PEFT folder, on disk or in memory, or a model with adapters
 * @throws ArgumentError naming what the target cannot be told (DoRA, modulesToSave, trained tokens, biases, embeddings,
 * convolutions) or does not take; FileError, FormatError
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * const adapted = peft.getLoraModel(model, { r: 4, loraAlpha: 8, targetModules: ["q_proj"] });
 * const { files, largestDifference } = exportAdapter(adapted, { to: "gguf" });
 * console.log([...files.keys()], largestDifference); // [ 'adapter.gguf' ] 0
 */
export function exportAdapter(adapter: string | LoraModel, options: ExportAdapterOptions): ExportedAdapter {
  const where = "exportAdapter";
  checkOptions(where, options, ["to", "base", "dtype", "adapterName", "tokenizer", "from"]);
  const { to, base, dtype = "float32", adapterName = "default", from = "./base.gguf" } = options;
  if (!Object.hasOwn(TARGETS, to))
    throw new ArgumentError(`${where}: to must be one of ${EXPORT_TARGETS.join(", ")}; got ${shown(to)}.`);
  if (!FLOAT_TYPES.includes(dtype))
    throw new ArgumentError(`${where}: dtype must be one of ${FLOAT_TYPES.join(", ")}; got ${shown(dtype)}.`);
  for (const key of ["tokenizer", "from"] as const)
    if (options[key] !== undefined && to !== "ollama")
      throw new ArgumentError(`${where}: ${key} is for Ollama's Modelfile, and to is ${shown(to)}; leave it out.`);
  const { write, needsBase } = TARGETS[to];
  const { config, updates } = readSource(where, adapter, adapterName);
  const knowsBase = needsBase || base !== undefined || typeof adapter !== "string";
  const written = write({
    where,
    config,
    updates,
    dtype,
    base: knowsBase ? configOfBase(where, adapter, base) : null,
    tokenizer: options.tokenizer ?? (to === "ollama" && base !== undefined ? tokenizerOf(base) : null),
    from,
  });
  const { files, folded, notes } = written;
  const comparison = compareUpdates(where, updates, written.readBack());
  if (!Number.isFinite(comparison.largestDifference))
    throw new ArgumentError(`${where}: a factor is beyond what ${dtype} holds; store it as float32.`);
  return { files, modules: updates.length, folded, notes, ...comparison };
}

/** The tokenizer of a base, where it has one. */
function tokenizerOf(base: string): Tokenizer | null {
  return isGgufFile(base) || exists(`${base}/tokenizer.json`) ? loadTokenizer(base) : null;
}

/** Options of `exportModel`. */
export interface ExportModelOptions {
  /** "gguf": one file for llama.cpp and all that is made of it; "safetensors": a folder's weights and config.json. */
  to: "gguf" | "safetensors";
  /** A PEFT folder, whose adapter is merged into the weights. Default: none is. */
  adapter?: string | undefined;
  /** What matrices are stored in; "q8_0" in GGUF alone. Default "float32". */
  dtype?: ModelDType | undefined;
}

/** What `exportModel` makes. */
export interface ExportedModel {
  /** The files' bytes, by name: model.gguf, or model.safetensors and config.json. */
  files: Map<string, Uint8Array>;
  /** How many tensors they have. */
  tensors: number;
  /** How far the farthest value moved that was rounded, to nearest, ties to even. */
  largestRounding: number;
  /** What should be known beside. */
  notes: readonly string[];
}

/**
 * A model's folder or GGUF file, with an adapter merged into it or as it is, as files in memory. (`wasm-lora merge`
 * writes to disk, a weight at a time.) In GGUF it has the model's tokenizer and chat template.
 *
 * Source: llama.cpp, convert_hf_to_gguf.py; PEFT, merge_and_unload.
 * @param model the folder or file, on disk or in memory
 * @throws ArgumentError for what the format cannot say; FileError, FormatError
 *
 * @example
 * const { files, tensors } = exportModel("models/base", { to: "gguf", dtype: "bfloat16" });
 * console.log([...files.keys()], tensors); // [ 'model.gguf' ] 38
 */
export function exportModel(model: string, options: ExportModelOptions): ExportedModel {
  const where = "exportModel";
  if (typeof model !== "string")
    throw new ArgumentError(`${where}: model must be the path of a folder or GGUF file; got ${shown(model)}.`);
  checkOptions(where, options, ["to", "adapter", "dtype"]);
  const { to, adapter, dtype = "float32" } = options;
  if (to !== "gguf" && to !== "safetensors")
    throw new ArgumentError(`${where}: to must be "gguf" or "safetensors"; got ${shown(to)}.`);
  if (!MODEL_DTYPES.includes(dtype))
    throw new ArgumentError(`${where}: dtype must be one of ${MODEL_DTYPES.join(", ")}; got ${shown(dtype)}.`);
  if (adapter !== undefined && typeof adapter !== "string")
    throw new ArgumentError(`${where}: adapter must be the path of a folder; got ${shown(adapter)}.`);
  const made = new Map<string, FileInMemory>();
  const create = (name: string): FileInMemory => {
    const file = new FileInMemory();
    made.set(name, file);
    return file;
  };
  const task = { where, model, adapter, dtype, create };
  const { tensors, rounding, notes, config } =
    to === "gguf" ? writeGgufModel(task, "model.gguf") : writeSafetensorsModel(task);
  const files = new Map(Array.from(made, ([name, file]) => [name, file.bytes] as const));
  if (to === "safetensors") files.set("config.json", new TextEncoder().encode(configText(model, config)));
  return { files, tensors, largestRounding: rounding.largest, notes };
}

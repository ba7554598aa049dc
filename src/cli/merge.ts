/** wasm-lora merge */
import { existsSync, readdirSync, realpathSync, renameSync, rmdirSync, rmSync, statSync } from "node:fs";
import { resolve } from "node:path";
import {
  configText,
  writeGgufModel,
  writeSafetensorsModel,
  type ModelTask,
  type WrittenModel,
} from "../export/model.js";
import { MODEL_DTYPE_NAMES } from "../export/targets.js";
import { createFile, ensureWritableDirectory, readBytes, writeAtomic } from "../io/files.js";
import { isGgufFile } from "../io/gguf/files.js";
import type { NewFile } from "../io/open_file.js";
import { ArgumentError, FileError, WasmLoraError } from "../runtime/errors.js";
import { startEngine, type EngineCommand } from "./engine_options.js";
import { ROUNDING } from "./export.js";
import { oneLine } from "./format.js";
import { findFolder } from "./hub.js";
import { LOCK_FILE, lockFolder, type FolderLock } from "./lock.js";
import { modelFor } from "./places.js";
import { announce, loadingProgress, passProgress } from "./progress.js";

interface MergeCommand extends EngineCommand {
  model?: string | undefined;
  adapter?: string | undefined;
  to?: "safetensors" | "gguf" | undefined;
  dtype?: string | undefined;
  out: string;
  offline?: boolean | undefined;
}

export async function merge(options: MergeCommand): Promise<void> {
  const { to = "safetensors", dtype = "f32" } = options;
  const isFile = to === "gguf";
  const adapter =
    options.adapter === undefined ? undefined : (await findFolder("merge", options.adapter, "adapter", options)).path;
  const model = await modelFor("merge", { ...options, adapter });
  if (isGgufFile(model) && !isFile)
    throw new ArgumentError(
      `merge: ${model} is a GGUF file, and a folder of safetensors needs the small files of a folder; write GGUF ` +
        `(--to gguf), or name the folder that it was made of with --model.`,
    );
  const out = options.out.replace(/(?<=.)\/+$/, "");
  if (isFile) refuseOtherFile(out);
  else refuseOccupied(model, adapter, out);
  await startEngine(options);
  // All is written beside the place, which gets its name when it is complete: nobody ever finds half of it.
  const target = existsSync(out) ? realpathSync(out) : resolve(out);
  const draft = `${target}.partial`;
  refuseForeignDraft(draft);
  const lock = takeDraft(draft);
  const what = adapter === undefined ? oneLine(model) : `${oneLine(adapter)} into ${oneLine(model)}`;
  announce(`${adapter === undefined ? "Writing" : "Merging"} ${what} ...`);
  const loading = loadingProgress();
  let writing: ReturnType<typeof passProgress> | undefined;
  const stopProgress = (): void => {
    loading.stop();
    writing?.stop();
  };
  try {
    // What a killed merge left.
    clear(draft);
    const create = (name: string): NewFile => createFile(`${draft}/${name}`);
    const task: ModelTask = {
      where: "merge",
      model,
      adapter,
      dtype: MODEL_DTYPE_NAMES[dtype]!,
      create,
      onProgress: loading.onProgress,
      onTensor: (done, total) => {
        if (!writing) {
          loading.stop();
          writing = passProgress("Weights", total);
        }
        writing.at(done);
      },
    };
    const written = isFile ? writeGgufModel(task, GGUF_FILE) : writeFolder(task, draft);
    stopProgress();
    if (isFile) {
      renameSync(`${draft}/${GGUF_FILE}`, target);
      clear(draft);
      rmSync(draft, { recursive: true });
    } else {
      if (existsSync(target)) rmdirSync(target);
      renameSync(draft, target);
      rmSync(`${target}/${LOCK_FILE}`, { force: true });
    }
    const { tensors, without, rounding, notes, files } = written;
    const type = dtype === "f32" ? "float32" : dtype;
    console.log(
      `${adapter === undefined ? "Wrote" : "Merged"} ${what}: ${oneLine(out)} (${tensors} tensors, ${type}` +
        `${files.length > 1 ? `, ${files.length} files` : ""}).`,
    );
    if (without) console.log(`It is a part of ${oneLine(model)}: ${without} is left out.`);
    if (rounding.magnitude > 0)
      console.log(
        `Weights are ${ROUNDING}: by at most ${rounding.largest.toExponential(1)}, where they are up to ` +
          `${rounding.magnitude.toExponential(1)}.`,
      );
    for (const note of notes) console.log(note);
  } catch (cause) {
    if (existsSync(draft)) {
      clear(draft);
      rmSync(draft, { recursive: true });
    }
    if (cause instanceof WasmLoraError || !(cause instanceof Error && "syscall" in cause)) throw cause;
    throw new FileError(
      `cannot write ${out}: ${cause.message}; name a ${isFile ? "file" : "folder"} that is not there yet.`,
      {
        cause,
      },
    );
  } finally {
    stopProgress();
    lock.release();
  }
}

/** The name of a GGUF file while it is a draft. */
const GGUF_FILE = "model.gguf";

/** A GGUF file is a new one. */
function refuseOtherFile(out: string): void {
  if (!/\.gguf$/i.test(out)) throw new FileError(`merge: --out ${out} is to be a GGUF file; end its name in .gguf.`);
  if (existsSync(out)) throw new FileError(`merge: --out ${out} is there already; name another, or remove it first.`);
}

/** All but the lock, which tells the rest from a stranger's files, to the last. */
function clear(draft: string): void {
  for (const name of readdirSync(draft)) if (name !== LOCK_FILE) rmSync(`${draft}/${name}`, { recursive: true });
}

/** Only a new or an empty folder is written. Links and other spellings of a path are seen through. */
function refuseOccupied(model: string, adapter: string | undefined, out: string): void {
  if (!existsSync(out)) return;
  const { isDirectory, id } = identify(out);
  if (!isDirectory)
    throw new FileError(
      `cannot write into ${out}: a file of that name is in the way; remove it or choose another path.`,
    );
  for (const [what, path] of [
    ["model", model],
    ["adapter", adapter],
  ] as const) {
    if (path !== undefined && existsSync(path) && identify(path).id === id)
      throw new FileError(
        `merge: --out ${out} is the folder of the ${what} itself, which would be lost; name another.`,
      );
  }
  const [first] = readdirSync(out);
  if (first !== undefined)
    throw new FileError(
      `merge: --out ${out} is not empty (it holds ${oneLine(first)}); name a new folder, or empty it first.`,
    );
}

function identify(path: string): { isDirectory: boolean; id: string } {
  const stat = statSync(path, { bigint: true });
  return { isDirectory: stat.isDirectory(), id: `${stat.dev}:${stat.ino}` };
}

function takeDraft(draft: string): FolderLock {
  ensureWritableDirectory(draft);
  try {
    return lockFolder("merge", draft);
  } catch (error) {
    try {
      rmdirSync(draft);
    } catch {
      // Another merge's: it is not empty.
    }
    throw error;
  }
}

/** A folder of the draft's name that no merge left. */
function refuseForeignDraft(draft: string): void {
  if (!existsSync(draft) || !identify(draft).isDirectory) return;
  // Before it had the lock, a killed one left a probe, or a draft of the lock.
  const names = readdirSync(draft);
  const isStrange = (name: string): boolean => !/^\.(wasm-lora\.lock|writable-)/.test(name);
  if (names.some(isStrange) && !names.includes(LOCK_FILE))
    throw new FileError(
      `merge: ${draft}, where the result would be made, is there already; remove it or choose another --out.`,
    );
}

/** What goes into the draft of a folder: the weights, config.json, and the small files beside them. */
function writeFolder(task: ModelTask, draft: string): WrittenModel {
  const written = writeSafetensorsModel(task);
  const files = companions(task.model);
  if (files.some((file) => file.startsWith(`${TEMPLATES}/`))) ensureWritableDirectory(`${draft}/${TEMPLATES}`);
  for (const file of files) writeAtomic(`${draft}/${file}`, readBytes(`${task.model}/${file}`));
  writeAtomic(`${draft}/config.json`, configText(task.model, written.config));
  return written;
}

/**
 * Weights in any format, what lists them, another adapter's files, drafts: what a merged folder has its own of, or
 * none.
 */
const NOT_COPIED =
  /\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|gguf|ggml|pkl|npz|ot|tflite|tmp)(\.|$)|^adapter_|^config\.json$|^\./i;
/** The one folder that belongs to a tokenizer (transformers 5). */
const TEMPLATES = "additional_chat_templates";
/** A tokenizer has some tens of MB. */
const MOST_BYTES = 128 * 1048576;

/** The files that make a model's folder usable: tokenizers, chat templates, generation defaults, cards and licences. */
function companions(folder: string): string[] {
  const templates = readdirSync(folder).includes(TEMPLATES)
    ? readdirSync(`${folder}/${TEMPLATES}`).map((name) => `${TEMPLATES}/${name}`)
    : [];
  return [...readdirSync(folder), ...templates].filter((name) => {
    if (NOT_COPIED.test(name)) return false;
    const stat = statSync(`${folder}/${name}`, { throwIfNoEntry: false });
    return stat?.isFile() === true && stat.size <= MOST_BYTES;
  });
}

/** wasm-lora merge */
import { existsSync, readdirSync, realpathSync, renameSync, rmdirSync, rmSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { createFile, ensureWritableDirectory, readBytes, readJson, writeAtomic } from "../io/files.js";
import { SafetensorsWriter, type Place } from "../io/safetensors_writer.js";
import { familyOf, fileNameOf } from "../models/families.js";
import { loadModel, type AnyLoadedModel } from "../models/index.js";
import type { Parameter } from "../nn/module.js";
import { LoraModel } from "../peft/index.js";
import { FileError, FormatError, StateError, WasmLoraError } from "../runtime/errors.js";
import { startEngine, type EngineCommand } from "./engine_options.js";
import { oneLine } from "./format.js";
import { isCompact, storedBytes } from "../tensor/dtype.js";
import { widenedAt } from "../tensor/widened.js";
import { findFolder } from "./hub.js";
import { LOCK_FILE, lockFolder, type FolderLock } from "./lock.js";
import { modelFor } from "./places.js";
import { announce } from "./progress.js";

interface MergeCommand extends EngineCommand {
  model?: string | undefined;
  adapter: string;
  out: string;
  offline?: boolean | undefined;
}

export async function merge(options: MergeCommand): Promise<void> {
  const { out } = options;
  const { path: adapter } = await findFolder("merge", options.adapter, "adapter", options);
  const model = await modelFor("merge", { ...options, adapter });
  refuseOccupied(model, adapter, out);
  await startEngine(options);
  // All is written beside the folder, which gets its name when it is complete: nobody ever finds half of it.
  const target = existsSync(out) ? realpathSync(out) : resolve(out);
  const draft = `${target}.partial`;
  refuseForeignDraft(draft);
  const lock = takeDraft(draft);
  announce(`Merging ${oneLine(adapter)} into ${oneLine(model)} ...`);
  try {
    // What a killed merge left.
    clear(draft);
    const { tensors, without } = writeMerged(model, adapter, draft);
    if (existsSync(target)) rmdirSync(target);
    renameSync(draft, target);
    rmSync(`${target}/${LOCK_FILE}`, { force: true });
    console.log(`Merged ${oneLine(adapter)} into ${oneLine(model)}: ${oneLine(out)} (${tensors} tensors, float32).`);
    if (without) console.log(`It is a part of ${oneLine(model)}: ${without} is left out.`);
  } catch (cause) {
    if (existsSync(draft)) {
      clear(draft);
      rmSync(draft, { recursive: true });
    }
    if (cause instanceof WasmLoraError || !(cause instanceof Error && "syscall" in cause)) throw cause;
    throw new FileError(`cannot write ${out}: ${cause.message}; name a folder that is not there yet.`, { cause });
  } finally {
    lock.release();
  }
}

/** All but the lock, which tells the rest from a stranger's files, to the last. */
function clear(draft: string): void {
  for (const name of readdirSync(draft)) if (name !== LOCK_FILE) rmSync(`${draft}/${name}`, { recursive: true });
}

/** Only a new or an empty folder is written. Links and other spellings of a path are seen through. */
function refuseOccupied(model: string, adapter: string, out: string): void {
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
    if (existsSync(path) && identify(path).id === id)
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

/** Returns the number of tensors, and what of the folder is not among them. */
function writeMerged(from: string, adapter: string, to: string): { tensors: number; without: string | undefined } {
  const { model, head } = loadModel(from);
  const tensors = writeWeights(LoraModel.fromPretrained(model, adapter), `${to}/model.safetensors`);
  const files = companions(from);
  if (files.some((file) => file.startsWith(`${TEMPLATES}/`))) ensureWritableDirectory(`${to}/${TEMPLATES}`);
  for (const file of files) writeAtomic(`${to}/${file}`, readBytes(`${from}/${file}`));
  const { tieWordEmbeddings } = model.config as Partial<typeof model.config>;
  const taken = familyOf(model.config.modelType)?.taken;
  const part = (json: Record<string, unknown>): Record<string, unknown> => taken?.configOf(json, head) ?? json;
  writeAtomic(`${to}/config.json`, mergedConfig(`${from}/config.json`, tieWordEmbeddings, part));
  return { tensors, without: taken?.without };
}

/** A weight at a time: as float32 and merged, all of them may be more than memory holds. */
function writeWeights(adapted: LoraModel<AnyLoadedModel["model"]>, path: string): number {
  const { model } = adapted;
  const file = createFile(path);
  try {
    const nameOf = (key: string): string => fileNameOf(model.config, key);
    const writer = new SafetensorsWriter(
      file,
      Array.from(adapted.namedParameters(), ([key]) => nameOf(key)),
    );
    const written = new Map<Parameter, Place>();
    const write = (p: Parameter): void => {
      if (!written.has(p)) written.set(p, writer.append(partsOf(p)));
    };
    adapted.unloadMerging(["default"], write);
    const tensors = Array.from(model.namedParameters(), ([key, p]) => {
      write(p);
      return { name: nameOf(key), dtype: "F32" as const, shape: p.shape, ...written.get(p)! };
    });
    if (tensors.length !== written.size)
      throw new StateError(`merge: ${written.size} weights were written for ${tensors.length} tensors.`);
    writer.finish(tensors, { format: "pt" });
    return tensors.length;
  } finally {
    file.close();
  }
}

/** Values at a time. */
const PART = 1 << 20;

/** A weight's values as float32, a few MB at a time. */
function* partsOf({ address, bytes, dtype, size }: Parameter): Generator<Uint8Array, void> {
  for (let first = 0; first < size; first += PART) {
    const count = Math.min(PART, size - first);
    if (isCompact(dtype)) yield new Uint8Array(widenedAt(address + storedBytes(first, dtype), count, dtype).buffer);
    else yield bytes.subarray(4 * first, 4 * (first + count));
  }
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

/**
 * The base's config with what is so now: the type of the weights, and whether the embedding table is the head, which
 * base and adapter may have changed.
 * @param part the config of what was taken of the folder
 */
function mergedConfig(
  path: string,
  tied: boolean | undefined,
  part: (json: Record<string, unknown>) => Record<string, unknown>,
): string {
  const config = part(readJson(path) as Record<string, unknown>);
  for (const key of ["dtype", "torch_dtype"]) if (key in config) config[key] = "float32";
  // Encoders have no head that could be the table.
  if (tied !== undefined) config["tie_word_embeddings"] = tied;
  try {
    return `${JSON.stringify(config, null, 2)}\n`;
  } catch (cause) {
    throw new FormatError(`${path}: it is nested too deep to be written again.`, { cause });
  }
}

/**
 * LoRA adapters in PEFT's format: a folder with adapter_config.json and adapter_model.safetensors (contents.ts).
 * The result of a layer is base(x) + scaling * B(A(x)); with use_dora its directions only.
 * Source: huggingface/peft 0.21, src/peft/utils/save_and_load.py (get_peft_model_state_dict), tuners/lora/layer.py,
 * tuners/lora/dora.py. What is not ours is refused by name.
 */
import { ArgumentError, FileError, FormatError } from "../../runtime/errors.js";
import type { Arithmetic } from "../../runtime/fused.js";
import type { Options } from "../../runtime/options.js";
import type { StateEntry } from "../../runtime/state_entry.js";
import { ensureWritableDirectory, exists, readBytes, readJson, writeTogether } from "../files.js";
import { digestOfTensors, Sha256 } from "../digest.js";
import { checkText, show } from "../json.js";
import { completeConfig, parsePeftConfig, serializePeftConfig, type LoraConfig } from "./config.js";
import { checkContents } from "./contents.js";
import type { NamedPeftTensor } from "./keys.js";
import { parseSafetensors, serializeSafetensors, toFloat32, type SafetensorsFile } from "../safetensors.js";
import { finiteTensors } from "../state_dict.js";

const CONFIG_FILE = "adapter_config.json";
const MODEL_FILE = "adapter_model.safetensors";

/** What `readPeftAdapter` finds in a folder. */
export interface PeftAdapter {
  /** adapter_config.json, all fields filled in. */
  config: LoraConfig;
  /** adapter_model.safetensors, by key. */
  tensors: Map<string, StateEntry>;
}

/**
 * Writes the folder, the config last: a folder with a config is complete. Over another adapter, both files take the old
 * ones' places one right after the other, when both are written: a full disk leaves the old ones; the tensors' metadata
 * has a SHA-256 of them and one of the config, so that what a writer leaves that is stopped between the two is refused.
 *
 * Source: PEFT, PeftModel.save_pretrained.
 * @param config an omitted field has PEFT's default
 * @param arithmetic in which the tensors were computed; of "fused" their metadata says so
 * @throws ArgumentError, before anything is written, for what readPeftAdapter would refuse, values that are not finite
 * among them; FileError
 *
 * @example
 * peft.writePeftAdapter("adapter", { r: 2, loraAlpha: 4, targetModules: ["fc"] }, [
 *   { name: "base_model.model.fc.lora_A.weight", shape: [2, 3], data: new Float32Array(6) },
 *   { name: "base_model.model.fc.lora_B.weight", shape: [5, 2], data: new Float32Array(10) },
 * ]);
 */
export function writePeftAdapter(
  directory: string,
  config: Options<LoraConfig>,
  tensors: Iterable<NamedPeftTensor>,
  arithmetic: Arithmetic = "separate",
): void {
  const fail = (message: string): never => {
    throw new ArgumentError(`writePeftAdapter: ${message}.`);
  };
  checkText("writePeftAdapter", "directory", directory);
  const full = completeConfig("writePeftAdapter", config);
  if (typeof (tensors as unknown) !== "object" || !tensors || !(Symbol.iterator in tensors))
    return fail(`tensors must be a list of { name, shape, data }; got ${show(tensors)}`);
  const list = [...tensors];
  for (const [i, tensor] of list.entries()) {
    const { name, shape, data } = ((tensor as unknown) ?? {}) as Partial<NamedPeftTensor>;
    if (typeof name !== "string" || !Array.isArray(shape) || !(data instanceof Float32Array))
      fail(`tensors[${i}] must be { name, shape, data } with the values in a Float32Array`);
  }
  checkContents(new Map(list.map(({ name, shape }) => [name, shape])), full, fail);
  const finite = list.flatMap((tensor) => finiteTensors("writePeftAdapter", new Map([[tensor.name, tensor]])));
  if (arithmetic !== "separate" && arithmetic !== "fused")
    fail(`arithmetic must be "separate" or "fused"; got ${show(arithmetic)}`);
  const metadata = { format: "pt", config: configDigest(full), ...(arithmetic === "fused" ? { arithmetic } : {}) };
  const digest = digestOfTensors(
    finite.map((tensor) => ({ ...tensor, bytes: tensor.data })),
    metadata,
  );
  const model = serializeSafetensors(finite, { ...metadata, digest });
  ensureWritableDirectory(directory);
  const json = new TextEncoder().encode(serializePeftConfig(full));
  writeTogether([
    { path: `${directory}/${MODEL_FILE}`, bytes: model },
    { path: `${directory}/${CONFIG_FILE}`, bytes: json },
  ]);
}

/**
 * Reads the folder; F16, BF16 and F64 become float32. Digests, which `writePeftAdapter` writes, are checked.
 *
 * Source: PEFT, LoraConfig.from_pretrained and load_peft_weights.
 * @throws FileError if a file is missing, FormatError if one is damaged, holds what is not finite or asks for what is
 * not ours, or if the two are not of one save
 *
 * @example
 * peft.writePeftAdapter("adapter", { r: 2, targetModules: ["fc"] }, [
 *   { name: "base_model.model.fc.lora_A.weight", shape: [2, 3], data: new Float32Array(6) },
 *   { name: "base_model.model.fc.lora_B.weight", shape: [5, 2], data: new Float32Array(10) },
 * ]);
 * const { config, tensors } = peft.readPeftAdapter("adapter");
 * console.log(config.loraAlpha, tensors.get("base_model.model.fc.lora_A.weight").shape); // 8 [ 2, 3 ]
 */
export function readPeftAdapter(directory: string): PeftAdapter {
  checkText("readPeftAdapter", "directory", directory);
  const configPath = `${directory}/${CONFIG_FILE}`;
  const modelPath = `${directory}/${MODEL_FILE}`;
  const config = parsePeftConfig(readJson(configPath), configPath);
  if (!exists(modelPath) && exists(`${directory}/adapter_model.bin`)) {
    throw new FileError(
      `cannot read ${directory}/adapter_model.bin: pickled weights can run code when loaded; save the adapter as ` +
        `${MODEL_FILE}.`,
    );
  }
  const file = parseSafetensors(readBytes(modelPath), { name: modelPath });
  checkContents(new Map([...file.tensors].map(([name, { shape }]) => [name, shape])), config, (message) => {
    throw new FormatError(`${modelPath}: ${message}.`);
  });
  checkDigests(file, config, configPath, modelPath);
  const tensors = new Map<string, StateEntry>();
  for (const [name, view] of file.tensors) {
    const data = toFloat32(view);
    const odd = data.findIndex((value) => !Number.isFinite(value));
    if (odd >= 0)
      throw new FormatError(
        `${modelPath}: tensor ${show(name)} holds ${data[odd]} at position ${odd}: the adapter diverged or was ` +
          `damaged; use one that was saved before.`,
      );
    tensors.set(name, { shape: view.shape, data });
  }
  return { config, tensors };
}

/**
 * The two files are of one save, and their contents those that were written. A writer that is killed between the two,
 * over another adapter, leaves new tensors beside an old config. Other writers' folders have no digests.
 */
function checkDigests(
  { metadata, tensors }: SafetensorsFile,
  config: LoraConfig,
  configPath: string,
  modelPath: string,
): void {
  const { config: ofConfig, digest } = metadata;
  if (ofConfig === undefined && digest === undefined) return;
  if (digest !== digestOfTensors(tensors.values(), metadata)) {
    throw new FormatError(
      `${modelPath}: its contents are not what was written (their SHA-256 is another): the file is damaged; ` +
        `restore it from a copy.`,
    );
  }
  if (ofConfig !== configDigest(config)) {
    throw new FormatError(
      `${configPath}: it is not the config that ${modelPath} was saved with: one of the two was replaced or edited ` +
        `alone; restore the other, or save the adapter again.`,
    );
  }
}

/** A SHA-256 of what a config says about the result and its training; where the base lies may be written anew. */
function configDigest({
  baseModelNameOrPath: _base,
  taskType: _task,
  initLoraWeights: _init,
  ...said
}: LoraConfig): string {
  return new Sha256().update(JSON.stringify(Object.entries(said).sort(([a], [b]) => (a < b ? -1 : 1)))).digest();
}

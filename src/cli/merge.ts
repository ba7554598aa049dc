/** wasm-lora merge */
import { existsSync } from "node:fs";
import { init } from "../runtime/engine.js";
import { ensureWritableDirectory, readBytes, writeAtomic } from "../io/files.js";
import { serializeSafetensors } from "../io/safetensors.js";
import { loadModel } from "../models/index.js";
import { LoraModel } from "../peft/index.js";

export interface MergeCommand { model: string; adapter: string; out: string }

export async function merge(options: MergeCommand): Promise<void> {
  await init();
  const { model } = loadModel(options.model);
  LoraModel.fromPretrained(model, options.adapter).mergeAndUnload(["default"], { safeMerge: true });
  const tensors = [...model.namedParameters()].map(([name, p]) => ({ name, dtype: "F32" as const, shape: p.shape, data: p.data.slice() }));
  ensureWritableDirectory(options.out);
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    if (existsSync(`${options.model}/${file}`)) writeAtomic(`${options.out}/${file}`, readBytes(`${options.model}/${file}`));
  }
  writeAtomic(`${options.out}/model.safetensors`, serializeSafetensors(tensors, { format: "pt" }));
  const config = new TextDecoder().decode(readBytes(`${options.model}/config.json`)).replace(/("(?:torch_)?dtype"\s*:\s*)"\w+"/, '$1"float32"');
  writeAtomic(`${options.out}/config.json`, config);
  console.log(`Merged ${options.adapter} into ${options.model}: ${options.out} (${tensors.length} tensors, float32).`);
}

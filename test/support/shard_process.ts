/**
 * A process that computes shards: `node shard_process.js <checkpoint> <folder> <index>...` restores the run and writes
 * each shard to <folder>/<index>.safetensors.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { init, io, manualSeed, models, train } from "../../src/index.js";
import { LLAMA } from "./language_models.js";
import { trainingRows } from "./training.js";

/** The run that processes share: every one makes it anew. */
export function sharedRun(): train.Finetuning {
  manualSeed(1);
  return new train.Finetuning<models.CausalLM>(
    new models.Llama(LLAMA),
    { train: trainingRows(14, LLAMA.vocabSize), test: trainingRows(3, LLAMA.vocabSize, 20) },
    {
      adapter: { r: 2, loraAlpha: 4, loraDropout: 0.2 },
      epochs: 1,
      batch: 2,
      accumulation: 3,
      lr: 0.02,
      seed: 5,
      evalEvery: 2,
    },
  );
}

export function writeShard(path: string, { step, index, loss, gradients }: train.Shard): void {
  const tensors = [...gradients].map(([name, { shape, data }]) => ({ name, dtype: "F32" as const, shape, data }));
  writeFileSync(path, io.serializeSafetensors(tensors, { shard: JSON.stringify({ step, index, loss }) }));
}

export function readShard(path: string): train.Shard {
  const { metadata, tensors } = io.parseSafetensors(readFileSync(path));
  const gradients = new Map(
    [...tensors].map(([name, view]) => [name, { shape: view.shape, data: io.toFloat32(view) }]),
  );
  return { ...JSON.parse(metadata["shard"]!), gradients };
}

const [, script, checkpoint, folder, ...indices] = process.argv;
if (script && import.meta.url === pathToFileURL(script).href) {
  await init();
  const run = sharedRun();
  run.restore(train.decodeCheckpoint(readFileSync(checkpoint!)).state);
  for (const index of indices) writeShard(`${folder}/${index}.safetensors`, run.computeShard(Number(index)));
}

/**
 * How long loading a model takes, beside one loop that reads the same files into an array: load.mjs [--config
 * <config.json>] [--shards <number>]. Without a config the model has SmolLM2-135M's shape. Each is a process of its
 * own, as a user's first load is, and they take turns; the clock is CPU time, of the collector's threads too. The exit
 * code is 1 if the median ratio is above the bar, or if the two have not the same weights.
 */
import { spawnSync } from "node:child_process";
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, statSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median, ratio } from "./median.mjs";
import { SMOLLM2_135M, writeModelFolder } from "./model_folder.mjs";

const BAR = 3;
const ROUNDS = 9;

const clock = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** All bits of all values as float32, in any order; halves are bf16. */
const mixed = (arrays) => {
  let mix = 0;
  for (const { bytes, isHalf } of arrays) {
    const bits = isHalf
      ? new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
      : new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let i = 0; i < bits.length; i++) mix ^= isHalf ? bits[i] << 16 : bits[i];
  }
  return mix >>> 0;
};

/** Reads a file's values. */
function readValues(path) {
  const fd = openSync(path, "r");
  const bytes = new Uint8Array(fstatSync(fd).size);
  for (let done = 0; done < bytes.length; ) done += readSync(fd, bytes, { offset: done });
  closeSync(fd);
  return { bytes: bytes.subarray(8 + Number(new DataView(bytes.buffer).getBigUint64(0, true))), isHalf: true };
}

async function contestant(name, folder, files) {
  let arrays;
  let start = clock();
  if (name === "loop") arrays = files.map((file) => readValues(`${folder}/${file}`));
  else {
    const { init, models } = await import("../dist/src/index.js");
    await init();
    start = clock();
    const { model } = models.loadModel(folder);
    arrays = model.parameters().map(({ bytes, dtype }) => ({ bytes, isHalf: dtype === "bfloat16" }));
  }
  const ms = clock() - start;
  console.log(JSON.stringify({ ms, mix: mixed(arrays) }));
}

function measured(name, folder, files) {
  const child = spawnSync(process.execPath, [fileURLToPath(import.meta.url), name, folder, ...files], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (child.status !== 0) throw new Error(`${name} ended with ${child.status ?? child.signal}`);
  return JSON.parse(child.stdout);
}

async function main() {
  // The folder's writer asks it for shapes.
  const { init } = await import("../dist/src/index.js");
  await init();
  const { values } = parseArgs({ options: { config: { type: "string" }, shards: { type: "string", default: "1" } } });
  const config = values.config === undefined ? SMOLLM2_135M : JSON.parse(readFileSync(values.config, "utf8"));
  const folder = mkdtempSync(join(tmpdir(), "wasm-lora-load-"));
  try {
    const files = writeModelFolder(folder, config, { shards: Number(values.shards) });
    const megabytes = files.reduce((sum, file) => sum + statSync(`${folder}/${file}`).size, 0) / 1e6;
    console.log(
      `${megabytes.toFixed(1)} MB of bf16 in ${files.length} files; ${cpus()[0].model}, Node ${process.version}`,
    );
    const rounds = Array.from({ length: ROUNDS }, (_, i) => {
      const order = i % 2 === 0 ? ["loop", "load"] : ["load", "loop"];
      const round = Object.fromEntries(order.map((name) => [name, measured(name, folder, files)]));
      if (round.loop.mix !== round.load.mix) throw new Error("the loaded weights are not the file's");
      console.log(
        `loop ${round.loop.ms.toFixed(0)} ms, load ${round.load.ms.toFixed(0)} ms: ` +
          `${(round.load.ms / round.loop.ms).toFixed(2)}`,
      );
      return round;
    });
    const [loop, load] = ["loop", "load"].map((name) => rounds.map((round) => round[name].ms));
    const times = ratio(load, loop);
    console.log(
      `medians: loop ${median(loop).toFixed(0)} ms, load ${median(load).toFixed(0)} ms; ` +
        `ratio ${times.toFixed(2)}, at most ${BAR}`,
    );
    return times <= BAR ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const [name, ...rest] = process.argv.slice(2);
if (name === "loop" || name === "load") await contestant(name, rest[0], rest.slice(1));
else process.exitCode = await main();

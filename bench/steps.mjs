/**
 * The section of whole-model steps: forward, backward and AdamW of LoRA of rank 8 on all linear layers, by this library
 * in either arithmetic and by PyTorch, each on one thread and on several, from the same weights and factors on the same
 * tokens. Each contestant is a process of its own; they take turns.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout } from "node:timers/promises";
import { init } from "../dist/src/index.js";
import { Contestant } from "./contestant.mjs";
import { FUSED, onThreads, OURS, TORCH } from "./engines.mjs";
import { median, ratio } from "./median.mjs";
import { QWEN25_05B, SMOLLM2_135M, writeModelFolder } from "./model_folder.mjs";
import { updateError, values } from "./reference.mjs";
import { MODELS } from "./shapes.mjs";

/** Their config.json; the base has its own. */
const CONFIGS = { small: SMOLLM2_135M, large: QWEN25_05B };

const RANK = 8;
const SCALING = 2;
/**
 * AdamW with so large an eps that an update is a smooth function of the gradient: with the usual one a gradient of next
 * to nothing decides by its sign alone, and two right results would differ by two whole updates.
 */
const [RATE, EPS] = [0.05, 1];
/** Threads that have just worked may wait for more in a loop; by then they sleep. */
const PAUSE_MS = 300;

const file = (name) => fileURLToPath(new URL(name, import.meta.url));

/** The Python that has torch: WASM_LORA_BENCH_PYTHON, or PATH's. @throws with the reason if there is none */
function pythonWithTorch() {
  const python = process.env.WASM_LORA_BENCH_PYTHON ?? "python3";
  const { status, stderr, error } = spawnSync(python, ["-c", "import torch"], { encoding: "utf8" });
  if (status !== 0) throw new Error(`${python}: ${error?.message ?? stderr.trim().split("\n").at(-1)}`);
  return python;
}

function contestants(threads) {
  const missing = {};
  const counts = threads > 1 ? [1, threads] : [1];
  const of = (name, command, args, ...last) =>
    counts.map((count) => ({
      name: onThreads(name, count),
      threads: count,
      command,
      args: (job) => [...args, job, count, ...last],
    }));
  const found = [
    ...of(OURS, process.execPath, [file("step_ours.mjs")]),
    ...of(FUSED, process.execPath, [file("step_ours.mjs")], "fused"),
  ];
  try {
    found.push(...of(TORCH, pythonWithTorch(), [file("step_torch.py")]));
  } catch (error) {
    missing[TORCH] = error.message;
  }
  return { found, missing };
}

/** The factors of all linear layers of a config.json: [name, shape, where it begins in factors.bin]. */
function factorsOf(config) {
  const { hidden_size: hidden, intermediate_size: inner, num_attention_heads: heads } = config;
  const dim = config.head_dim ?? hidden / heads;
  const [q, kv] = [heads * dim, config.num_key_value_heads * dim];
  const layers = {
    "self_attn.q_proj": [hidden, q],
    "self_attn.k_proj": [hidden, kv],
    "self_attn.v_proj": [hidden, kv],
    "self_attn.o_proj": [q, hidden],
    "mlp.gate_proj": [hidden, inner],
    "mlp.up_proj": [hidden, inner],
    "mlp.down_proj": [inner, hidden],
  };
  let at = 0;
  return Array.from({ length: config.num_hidden_layers }, (_, i) =>
    Object.entries(layers).flatMap(([path, [d, k]]) =>
      [
        [`layers.${i}.${path}.A`, [RANK, d]],
        [`layers.${i}.${path}.B`, [k, RANK]],
      ].map(([name, shape]) => {
        const start = at;
        at += shape[0] * shape[1];
        return [name, shape, start];
      }),
    ),
  ).flat();
}

/** Writes what all contestants read, and gives the factors that they begin with. */
function writeJob(folder, config, batch, seq) {
  if (config) writeModelFolder(folder, config);
  else {
    mkdirSync(folder, { recursive: true });
    for (const name of ["config.json", "model.safetensors"])
      copyFileSync(new URL(`../models/base/${name}`, import.meta.url), join(folder, name));
  }
  const read = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
  const factors = factorsOf(read);
  const initial = factors.map(([, [rows, columns]], i) => values(rows * columns, i + 1, 0.05));
  const inputs = Int32Array.from(values(batch * seq, 5), (u) => Math.floor(((u + 1) / 2) * read.vocab_size));
  const write = (name, ...arrays) => writeFileSync(join(folder, name), Buffer.concat(arrays.map(bytesOf)));
  write("factors.bin", ...initial);
  write("tokens.bin", inputs);
  write(
    "targets.bin",
    inputs.map((id) => (id * 7 + 1) % read.vocab_size),
  );
  const job = { batch, seq, r: RANK, scaling: SCALING, lr: RATE, eps: EPS, factors };
  writeFileSync(join(folder, "job.json"), JSON.stringify(job));
  return initial;
}

const bytesOf = ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength);

/** A step's result: the loss before it and the factors after it. */
async function resultOf(contestant, folder, initial) {
  const { loss } = await contestant.ask("check after.bin");
  const after = new Float32Array(new Uint8Array(readFileSync(join(folder, "after.bin"))).buffer);
  let at = 0;
  return { loss, factors: initial.map(({ length }) => after.subarray(at, (at += length))) };
}

/** Those that start and whose first step is ours on one thread: to the bit where they say so, else nearly. */
async function admit(candidates, folder, initial, progress) {
  const admitted = [];
  const refused = {};
  const results = {};
  for (const { name, threads, command, args } of candidates) {
    progress(name);
    const contestant = new Contestant(command, args(folder));
    try {
      const { ready } = await contestant.opened();
      results[name] = await resultOf(contestant, folder, initial);
      const difference = updateError(results[OURS], results[name], initial);
      if (!(difference < 1e-3)) throw new Error(`wrong result: differs by ${difference} of the largest update`);
      admitted.push({ name, threads, contestant, ready, difference });
    } catch (error) {
      contestant.close();
      refused[name] = error.message;
    }
  }
  for (const [name, result] of Object.entries(results)) {
    const alone = results[name.split(",")[0]];
    if (name.startsWith(OURS) && alone && updateError(alone, result, initial) !== 0)
      throw new Error(`${name} has not the bits of one thread`);
  }
  if (refused[OURS]) throw new Error(`${OURS}: ${refused[OURS]}`);
  return { admitted, refused };
}

/**
 * Milliseconds of a step of each contestant in each round: of one on one thread those of CPU time, which other
 * processes do not count in; of one on several those of the clock on the wall.
 */
async function race(admitted, { rounds, burst }, progress) {
  const milliseconds = Object.fromEntries(admitted.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < admitted.length; i++) {
      const { name, threads, contestant } = admitted[(i + round) % admitted.length];
      progress(round, name);
      await setTimeout(PAUSE_MS);
      const { times } = await contestant.ask(`run ${burst}`);
      milliseconds[name].push(Math.min(...times.map(([wall, cpu]) => (threads === 1 ? cpu : wall))));
    }
  }
  return milliseconds;
}

export async function step({ quick, threads }, progress) {
  await init();
  const { found, missing } = contestants(threads);
  const models = Object.entries(MODELS).slice(0, quick ? 1 : undefined);
  const rows = [];
  for (const [at, [key, { model, batch, seq, rounds, burst }]] of models.entries()) {
    const turns = quick ? 3 : rounds;
    const folder = mkdtempSync(join(tmpdir(), "wasm-lora-step-"));
    let admitted = [];
    try {
      const initial = writeJob(folder, CONFIGS[key], batch, seq);
      const tell = (part, what) => progress(at + part, models.length, `${model}, ${what}`);
      const { refused, ...rest } = await admit(found, folder, initial, (name) => tell(0, name));
      admitted = rest.admitted;
      const times = await race(admitted, { rounds: turns, burst }, (round, name) => tell(round / turns, name));
      const to = (ours, theirs) => (times[ours] && times[theirs] ? ratio(times[theirs], times[ours]) : NaN);
      rows.push({
        model,
        shape: [batch, seq],
        threads,
        refused,
        versions: Object.fromEntries(admitted.map(({ name, ready }) => [name, ready])),
        difference: Object.fromEntries(admitted.map(({ name, difference }) => [name, difference])),
        milliseconds: Object.fromEntries(Object.entries(times).map(([name, of]) => [name, median(of)])),
        speedup: Object.fromEntries([OURS, FUSED, TORCH].map((name) => [name, to(onThreads(name, threads), name)])),
        ofTorch: Object.fromEntries(
          [OURS, FUSED].flatMap((name) =>
            [...new Set([1, threads])].map((count) => [
              onThreads(name, count),
              to(onThreads(name, count), onThreads(TORCH, count)),
            ]),
          ),
        ),
      });
    } finally {
      for (const { contestant } of admitted) contestant.close();
      rmSync(folder, { recursive: true });
    }
  }
  return { missing, rows };
}

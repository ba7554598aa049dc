/**
 * A model of a real one's shape, with random weights of bf16, or of blocks in a GGUF file: loaded from the disk,
 * trained a LoRA step of 1 x 128 tokens, and made to write: large.mjs [--shape <smollm2-135m | llama-3.2-1b |
 * tinyllama-1.1b | gemma-2b>] [--as <q8_0 | q4_k>] [--against <dist>] [--folder <folder>].
 * It prints seconds, the memory that was planned and that was taken, and what the process took besides. Each run is a
 * process of its own. With `--against`, the dist/ of another version of the library, that one does the same, and both
 * must have the same losses, to the bit. `--folder` keeps the model, with the tokenizer of the embedded base. The exit
 * code is 1 if the plan is off by more than 2 %, or if loading took more than 64 MB beside the weights.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { GGUF_DTYPES, writeGgufModel } from "./gguf_model.mjs";
import { GEMMA_2B, LLAMA_32_1B, SMOLLM2_135M, TINYLLAMA_11B, writeModelFolder } from "./model_folder.mjs";

const SHAPES = {
  "smollm2-135m": SMOLLM2_135M,
  "llama-3.2-1b": LLAMA_32_1B,
  "tinyllama-1.1b": TINYLLAMA_11B,
  "gemma-2b": GEMMA_2B,
};
const OURS = fileURLToPath(new URL("../dist", import.meta.url));
const [BATCH, SEQ, STEPS, PROMPT, TOKENS] = [1, 128, 2, 16, 16];
const ADAPTER = { r: 8, targetModules: "all-linear" };
const MB = 2 ** 20;

/** The most that this process has had in physical memory, and has, in bytes, where the system says so. */
function residence() {
  if (!existsSync("/proc/self/status")) return { most: NaN, now: process.memoryUsage.rss() };
  const status = readFileSync("/proc/self/status", "utf8");
  const of = (key) => 1024 * Number(new RegExp(`${key}:\\s+(\\d+)`).exec(status)[1]);
  return { most: of("VmHWM"), now: of("VmRSS") };
}

async function measured(dist, folder) {
  const { init, memoryStats, models, train } = await import(pathToFileURL(`${dist}/src/index.js`));
  await init();
  const seconds = async (fn) => {
    const start = performance.now();
    const value = await fn();
    return [value, (performance.now() - start) / 1000];
  };
  const before = residence().now;
  const reserved = memoryStats().reservedBytes;
  const [{ model }, load] = await seconds(() => models.loadModel(folder));
  const weights = memoryStats().liveBytes;
  // All pages of the weights were written; those beyond were not.
  const beside = residence().most - before - (weights - reserved);
  const tokens = Int32Array.from({ length: 4000 }, (_, i) => (i * i * 7 + 3 * i) % model.config.vocabSize);
  const options = { batch: BATCH, seq: SEQ, adapter: ADAPTER, generation: { prompt: PROMPT, maxNewTokens: TOKENS } };
  const [plan, planning] = await seconds(() => train.planTraining(model.config, options));
  const settings = { batch: BATCH, seq: SEQ, steps: STEPS, lr: 1e-4, adapter: ADAPTER, testSize: 0 };
  const run = new train.Finetuning(model, tokens, settings);
  const [, step] = await seconds(() => run.step());
  run.step();
  const prompt = [...tokens.subarray(0, PROMPT)];
  const [text, generation] = await seconds(() => [
    ...models.generate(run.adapted.eval(), prompt, { maxNewTokens: TOKENS, temperature: 0 }),
  ]);
  console.log(
    JSON.stringify({
      load,
      weights,
      beside,
      planning,
      planned: plan.peak,
      peak: memoryStats().peakBytes,
      step,
      losses: run.losses,
      text,
      perSecond: TOKENS / generation,
      process: residence().most,
    }),
  );
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shape: { type: "string", default: "smollm2-135m" },
    as: { type: "string" },
    against: { type: "string" },
    folder: { type: "string" },
  },
});

if (positionals.length > 0) await measured(...positionals);
else {
  const config = SHAPES[values.shape];
  if (!config) throw new Error(`no shape ${values.shape}; there are ${Object.keys(SHAPES).join(", ")}`);
  if (values.as && !GGUF_DTYPES.includes(values.as)) throw new Error(`--as: there are ${GGUF_DTYPES.join(", ")}`);
  const folder = values.folder ?? mkdtempSync(join(tmpdir(), "large-"));
  const model = values.as ? `${folder}/model.gguf` : folder;
  try {
    if (!existsSync(values.as ? model : `${folder}/config.json`)) {
      const { init } = await import("../dist/src/index.js");
      await init();
      if (values.as) writeGgufModel(model, config, values.as);
      else writeModelFolder(folder, config);
      for (const name of ["tokenizer.json", "tokenizer_config.json"])
        copyFileSync(new URL(`../models/base/${name}`, import.meta.url), `${folder}/${name}`);
    }
    const size = statSync(values.as ? model : `${folder}/model.safetensors`).size;
    console.log(
      `${cpus()[0].model.trim()}, Node ${process.versions.node}; ${values.shape}, ${(size / MB).toFixed(0)} MB`,
    );
    const results = [OURS, ...(values.against ? [resolve(values.against)] : [])].map((dist) => {
      const child = spawnSync(process.execPath, [fileURLToPath(import.meta.url), dist, model], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "inherit"],
      });
      if (child.status !== 0) throw new Error(`${dist} ended with ${child.status ?? child.signal}`);
      return JSON.parse(child.stdout);
    });
    const rows = {
      "load, s": ({ load }) => load.toFixed(2),
      "weights in linear memory, MB": ({ weights }) => (weights / MB).toFixed(1),
      "taken beside them while loading, MB": ({ beside }) => (beside / MB).toFixed(1),
      "plan, s": ({ planning }) => planning.toFixed(2),
      "planned peak, MB": ({ planned }) => (planned / MB).toFixed(1),
      "measured peak, MB": ({ peak }) => (peak / MB).toFixed(1),
      "peak of the process, MB": ({ process }) => (process / MB).toFixed(1),
      [`first LoRA step, ${BATCH} x ${SEQ}, s`]: ({ step }) => step.toFixed(2),
      losses: ({ losses }) => losses.join(" "),
      [`tokens a second, greedy, after ${PROMPT}`]: ({ perSecond }) => perSecond.toFixed(2),
    };
    for (const [name, row] of Object.entries(rows)) console.log([name, ...results.map(row)].join(" | "));
    const [ours, other] = results;
    const fail = (what) => {
      console.error(what);
      process.exitCode = 1;
    };
    if (Math.abs(ours.planned / ours.peak - 1) > 0.02) fail("The plan is off by more than 2 %.");
    if (ours.beside > 64 * MB) fail("Loading took more than 64 MB beside the weights.");
    if (other && (ours.losses.join() !== other.losses.join() || ours.text.join() !== other.text.join()))
      fail("The two have not the same losses or the same text.");
  } finally {
    if (!values.folder) rmSync(folder, { recursive: true });
  }
}

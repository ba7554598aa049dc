/**
 * A step of LoRA on rows of which some tokens are scored, three ways in one process, in turns: padded, with the head on
 * all rows (as a loss on all logits has it); padded, with the head on scored rows; packed, with the head on scored
 * rows: scored.mjs [--shape <smollm2-135m | gemma-3-270m>] [--share 0.3] [--rounds 5]. Rows have 32 to 128 tokens,
 * of which the last `share` are scored. It prints the fastest of each, forward and backward, in seconds of the
 * processor, and the peak of memory above the weights. The exit code is 1 unless all three give the same loss and
 * gradients, to the bit.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { data, init, memoryStats, models, ops, peft, scope, tensor } from "../dist/src/index.js";
import { engine } from "../dist/src/runtime/engine.js";
import { GEMMA_3_270M, SMOLLM2_135M, writeModelFolder } from "./model_folder.mjs";

const SHAPES = { "smollm2-135m": SMOLLM2_135M, "gemma-3-270m": GEMMA_3_270M };
const LENGTHS = [33, 65, 97, 129];
const MB = 2 ** 20;

const { values } = parseArgs({
  options: {
    shape: { type: "string", default: "smollm2-135m" },
    share: { type: "string", default: "0.3" },
    rounds: { type: "string", default: "5" },
  },
});
const config = SHAPES[values.shape];
if (!config) throw new Error(`no shape ${values.shape}; there are ${Object.keys(SHAPES).join(", ")}`);
const share = Number(values.share);

await init();
const folder = mkdtempSync(join(tmpdir(), "scored-"));
let model;
try {
  writeModelFolder(folder, config);
  ({ model } = models.loadModel(folder));
} finally {
  rmSync(folder, { recursive: true });
}
const adapted = peft.getLoraModel(model, { r: 8, targetModules: "all-linear", initLoraWeights: false });
const rows = LENGTHS.map((length, row) => {
  const ids = Int32Array.from({ length }, (_, i) => (i * i * 7 + 31 * row + 3 * i) % config.vocab_size);
  return { ids, labels: ids.map((id, i) => (i >= length * (1 - share) ? id : -100)), where: `row ${row}` };
});

const ways = {
  "padded, all rows": [
    false,
    (ids, targets, attentionMask) => {
      const states = model.base.forward(ids, { attentionMask });
      return ops.linearCrossEntropy(states, model.base.table.weight, null, targets);
    },
  ],
  "padded, scored rows": [false, (ids, targets, attentionMask) => model.loss(ids, targets, { attentionMask })],
  "packed, scored rows": [true, (ids, targets, attentionMask) => model.loss(ids, targets, { attentionMask })],
};

/** One forward and backward: its seconds, its peak of memory, and a digest of loss and gradients. */
function step(packing, lossOf) {
  const { ids, targets, attentionMask, shape } = data.collate(rows, { packing });
  const { memory } = engine();
  const before = memoryStats().liveBytes;
  memory.resetPeak();
  const start = process.cpuUsage();
  const loss = scope(() => {
    const y = lossOf(tensor(ids, shape), tensor(targets, shape), tensor(attentionMask, shape));
    y.backward();
    return y.item();
  });
  const { user, system } = process.cpuUsage(start);
  const seconds = (user + system) / 1e6;
  const peak = memoryStats().peakBytes - before;
  const hash = createHash("sha256").update(Float32Array.of(loss));
  for (const [, p] of adapted.namedParameters()) {
    if (p.grad) hash.update(p.grad.data);
    p.grad?.dispose();
    p.grad = null;
  }
  return { seconds, peak, digest: hash.digest("hex") };
}

const results = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
for (let round = 0; round <= Number(values.rounds); round++)
  for (const [name, way] of Object.entries(ways)) {
    const result = step(...way);
    // The first round makes memory grow.
    if (round > 0) results[name].push(result);
  }
const { scored } = data.collate(rows, { packing: true });
const tokens = LENGTHS.reduce((sum, length) => sum + length - 1, 0);
console.log(`${cpus()[0].model.trim()}, Node ${process.versions.node}; ${values.shape}, ${scored} of ${tokens} scored`);
const [first] = Object.values(results).map((all) => Math.min(...all.map(({ seconds }) => seconds)));
for (const [name, all] of Object.entries(results)) {
  const fastest = Math.min(...all.map(({ seconds }) => seconds));
  const share = `${((100 * fastest) / first).toFixed(0)} %`;
  console.log([name, `${fastest.toFixed(2)} s`, share, `${(all[0].peak / MB).toFixed(1)} MB`].join(" | "));
}
const digests = new Set(Object.values(results).flatMap((all) => all.map(({ digest }) => digest)));
if (digests.size !== 1) {
  console.error("The ways have not the same loss and gradients.");
  process.exitCode = 1;
}

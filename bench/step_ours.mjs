/**
 * A contestant of steps.mjs: the LoRA step by this library's public interface, as users write it:
 * step_ours.mjs <job folder> <threads> [fused]. See contestant.mjs for what it is
 * asked and answers.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { init, models, optim, peft, scope, tensor } from "../dist/src/index.js";

const [folder, threads, fused] = process.argv.slice(2);
const engine = await init({ threads: Number(threads), fused: fused === "fused" });
// Elsewhere one thread and a word why are enough.
if (engine.threads !== Number(threads)) throw new Error(`there are ${engine.threads} threads, not ${threads}`);
const job = JSON.parse(readFileSync(`${folder}/job.json`, "utf8"));
const read = (name, Type) => new Type(new Uint8Array(readFileSync(`${folder}/${name}`)).buffer);

const { model } = models.loadModel(folder);
const adapted = peft.getLoraModel(model, {
  r: job.r,
  loraAlpha: job.r * job.scaling,
  targetModules: "all-linear",
  initLoraWeights: false,
});
const factors = new Map();
for (const [name, p] of adapted.namedParameters()) {
  const [, path, factor] = /(layers\.\d+\..*)\.lora_([AB])/.exec(name) ?? [];
  if (path) factors.set(`${path}.${factor}`, p);
}
if (factors.size !== job.factors.length)
  throw new Error(`the model has ${factors.size} factors, not ${job.factors.length}`);
const initial = read("factors.bin", Float32Array);
for (const [name, [rows, columns], at] of job.factors)
  factors.get(name).data.set(initial.subarray(at, at + rows * columns));

const inputs = read("tokens.bin", Int32Array);
const targets = read("targets.bin", Int32Array);
const shape = [job.batch, job.seq];
const optimizer = new optim.AdamW([...factors.values()], { lr: job.lr, eps: job.eps, weightDecay: 0 });
const step = () =>
  scope(() => {
    const loss = model.loss(tensor(inputs, shape), tensor(targets, shape));
    loss.backward();
    optimizer.step();
    optimizer.zeroGrad();
    return loss.item();
  });

function run(command, argument) {
  if (command === "check") {
    const loss = step();
    const after = job.factors.map(([name]) => factors.get(name).data.slice());
    writeFileSync(`${folder}/${argument}`, Buffer.concat(after.map(({ buffer }) => new Uint8Array(buffer))));
    return { loss };
  }
  const times = Array.from({ length: Number(argument) }, () => {
    const [wall, cpu] = [performance.now(), process.cpuUsage()];
    step();
    const { user, system } = process.cpuUsage(cpu);
    return [performance.now() - wall, (user + system) / 1000];
  });
  return { times };
}

console.log(JSON.stringify({ ready: `Node ${process.versions.node}` }));
for await (const line of createInterface({ input: process.stdin })) {
  const [command, argument] = line.split(" ");
  console.log(JSON.stringify(run(command, argument)));
}
process.exit();

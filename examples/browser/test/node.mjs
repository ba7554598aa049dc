/** The same text and settings in Node, by the command line: what every browser must equal to the bit. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const cli = fileURLToPath(new URL("../../../dist/src/cli/main.js", import.meta.url));
const root = fileURLToPath(new URL("../../..", import.meta.url));
const run = (...args) =>
  execFileSync(process.execPath, [cli, ...args], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });

/** A text, in windows of 64 tokens. */
export function finetune(data, out, { steps, prompt, ...settings }) {
  return train(data, out, settings, ["--batch", "8", "--seq", "64", "--steps", `${steps}`, "--prompt", prompt]);
}

/** Rows of a file. */
export function finetuneRows(data, out, { epochs, patience, ...settings }) {
  return train(data, out, settings, ["--epochs", `${epochs}`, "--patience", `${patience}`]);
}

function train(data, out, { rank, evalEvery, model = "models/base" }, options) {
  const common = { model, data, out, r: rank, alpha: 2 * rank, "eval-every": evalEvery };
  run("finetune", ...Object.entries(common).flatMap(([name, value]) => [`--${name}`, `${value}`]), ...options);
  const { losses, heldOutBefore, best } = JSON.parse(readFileSync(`${out}/result.json`, "utf8"));
  const weights = (folder) => readFileSync(`${out}/${folder}/adapter_model.safetensors`);
  const config = JSON.parse(readFileSync(`${out}/adapter/adapter_config.json`, "utf8"));
  return {
    losses,
    heldOutBefore,
    heldOutAfter: best.loss,
    config,
    adapter: weights("adapter"),
    adapterLast: weights("adapter-last"),
  };
}

/** Without an adapter: the base model's text. */
export function generate(prompt, seed, adapter) {
  return run(
    "generate",
    "--prompt",
    prompt,
    "--seed",
    `${seed}`,
    "--max-tokens",
    "100",
    ...(adapter ? ["--adapter", adapter] : []),
  ).replace(/\n$/, "");
}

/** The same text and settings in Node, by the command line: what every browser must equal to the bit. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const cli = fileURLToPath(new URL("../../../dist/src/cli/main.js", import.meta.url));
const root = fileURLToPath(new URL("../../..", import.meta.url));
const run = (...args) =>
  execFileSync(process.execPath, [cli, ...args], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });

export function finetune(data, out, { rank, steps, prompt, model = "models/base" }) {
  run(
    "finetune",
    "--model",
    model,
    "--data",
    data,
    "--out",
    out,
    "--batch",
    "8",
    "--seq",
    "64",
    "--r",
    `${rank}`,
    "--alpha",
    `${2 * rank}`,
    "--steps",
    `${steps}`,
    "--prompt",
    prompt,
  );
  const { losses, heldOutBefore, heldOutAfter } = JSON.parse(readFileSync(`${out}/result.json`, "utf8"));
  return { losses, heldOutBefore, heldOutAfter, adapter: readFileSync(`${out}/adapter/adapter_model.safetensors`) };
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

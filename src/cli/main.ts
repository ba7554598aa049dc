#!/usr/bin/env node
/** The wasm-lora command. Each error is one line on stderr and a non-zero exit code. */
import { Command, InvalidArgumentError, Option } from "commander";
import { WasmLoraError } from "../runtime/errors.js";
import { finetune, FINETUNE_DEFAULTS } from "./finetune.js";
import { generateText } from "./generate.js";
import { inspect } from "./inspect.js";
import { merge } from "./merge.js";
import { BASE_MODEL, packageVersion } from "./paths.js";

function number(low: number, what: string, valid: (n: number) => boolean = Number.isFinite): (text: string) => number {
  return (text) => {
    const n = Number(text);
    if (text.trim() === "" || !valid(n) || n < low) throw new InvalidArgumentError(`expected ${what} of at least ${low}; got "${text}".`);
    return n;
  };
}
const probability = number(0, "a number below 1 and", (n) => n < 1);
const integer = (low: number): ((text: string) => number) => number(low, "an integer", Number.isSafeInteger);
const list = (text: string): string[] => {
  const names = text.split(",").map((s) => s.trim()).filter(Boolean);
  if (names.length === 0) throw new InvalidArgumentError(`expected at least one name; got "${text}".`);
  return names;
};

const program = new Command("wasm-lora")
  .description("Fine-tunes language models with LoRA on the CPU, in WebAssembly SIMD.")
  .version(packageVersion())
  // Commander's suggestions come on a line of their own; here an error is one line.
  .configureOutput({ outputError: (text, write) => { write(`${text.trim().replace(/\s*\n\s*/g, " ")} (add --help for the options)\n`); } });

const d = FINETUNE_DEFAULTS;
program.command("finetune")
  .description("Train LoRA factors of a Llama-family model on a text; write them as a PEFT adapter folder.")
  .requiredOption("--data <file>", "UTF-8 text to train on; its last tenth is held out")
  .option("--model <folder>", "holds config.json, model.safetensors, tokenizer.json", BASE_MODEL)
  .option("--out <folder>", "where the adapter, the checkpoint and the loss curve go", "runs/finetune")
  .option("--r <n>", "rank of the factors", integer(1), d.r)
  .option("--alpha <x>", "loraAlpha; the update is scaled by alpha / r", number(0, "a number"), d.alpha)
  .option("--dropout <p>", "dropout on the LoRA branch's input, below 1", probability, d.dropout)
  .addOption(new Option("--target-modules <names>", "comma-separated names of layers, as q_proj,v_proj").argParser(list).default(d.targetModules, "every linear layer but the head"))
  .option("--steps <n>", "optimiser steps", integer(1), d.steps)
  .option("--batch <n>", "sequences a step", integer(1), d.batch)
  .option("--seq <n>", "tokens a sequence", integer(2), d.seq)
  .option("--lr <x>", "peak learning rate (AdamW, linear warm-up over a twentieth, cosine decay)", number(0, "a number"), d.lr)
  .option("--seed <n>", "seed of the factors, the batches and the samples", integer(0), d.seed)
  .option("--prompt <text>", "start of the samples before and after", d.prompt)
  .option("--checkpoint-every <n>", "steps between checkpoints", integer(1), d.checkpointEvery)
  .option("--gradient-checkpointing", "compute each layer's activations again in backward instead of keeping them: less memory, more time, the same bits")
  .option("--resume", "go on from <out>/checkpoint.safetensors, to the same bits as an uninterrupted run")
  .addHelpText("after", "\nCtrl-C saves a checkpoint and exits; a kill loses at most the steps since the last one.\n" +
    "\nExample:\n  wasm-lora finetune --data moby-dick.txt --out runs/moby-dick --r 8 --steps 400")
  .action(async (options, command: Command) => {
    const explicit = new Set(command.options.map((o: Option) => o.attributeName()).filter((name) => command.getOptionValueSource(name) === "cli"));
    await finetune(options, explicit);
  });

program.command("generate")
  .description("Continue a prompt.")
  .option("--model <folder>", "model folder", BASE_MODEL)
  .option("--adapter <folder>", "PEFT adapter folder to apply")
  .option("--prompt <text>", "text to continue; empty starts from the begin-of-text token", "")
  .option("--max-tokens <n>", "tokens to add at most", integer(0), 100)
  .option("--temperature <x>", "0 takes the likeliest token each time", number(0, "a number"), 0.8)
  .option("--seed <n>", "seed of the draws", integer(0), 0)
  .option("--ids", "print token ids as JSON, the prompt's first, instead of text")
  .addHelpText("after", "\nExample:\n  wasm-lora generate --adapter runs/moby-dick/adapter --prompt \"The whale\" --seed 1")
  .action(generateText);

program.command("merge")
  .description("Write a model folder with the adapter's update added to its weights (float32).")
  .option("--model <folder>", "model folder", BASE_MODEL)
  .requiredOption("--adapter <folder>", "PEFT adapter folder")
  .requiredOption("--out <folder>", "folder to write")
  .addHelpText("after", "\nExample:\n  wasm-lora merge --adapter runs/moby-dick/adapter --out runs/moby-dick/merged")
  .action(merge);

program.command("inspect")
  .description("List what a .safetensors file, a model folder or an adapter folder holds.")
  .argument("<path>", "file or folder")
  .addHelpText("after", "\nExample:\n  wasm-lora inspect runs/moby-dick/adapter")
  .action(inspect);

// A reader that closes the pipe (head, less) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

try {
  if (process.argv.length < 3) program.error(`error: no command; expected ${program.commands.map((c) => c.name()).join(", ")}.`);
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof WasmLoraError)) throw error;
  console.error(`${error.name}: ${error.message.replace(/\s*\n\s*/g, " ")}`);
  process.exitCode = 1;
}

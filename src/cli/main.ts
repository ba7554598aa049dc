#!/usr/bin/env node
/**
 * The wasm-lora command. Each error is one line on stderr and a non-zero exit code. What a command does is loaded when
 * it is run: a line of help need not wait for all of them.
 */
import { inspect as inspectValue } from "node:util";
import { Command, Option } from "commander";
import { DTYPE_NAMES, EXPORT_TARGETS, MODEL_DTYPE_NAMES } from "../export/targets.js";
import { FileError, WasmLoraError } from "../runtime/errors.js";
import { printable } from "../runtime/printable.js";
import { dataOptions, templateOptions } from "./data_options.js";
import { engineOptions } from "./engine_options.js";
import { defineFinetune } from "./finetune_options.js";
import { oneLine } from "./format.js";
import {
  filled,
  fromOne,
  fromZero,
  numberAboveZero,
  numberFromZero,
  offline,
  parsed,
  parseNumber,
  path,
  quantize,
  share,
} from "./option_values.js";
import { packageVersion } from "./paths.js";
import { SETTINGS } from "./settings.js";

const program = new Command("wasm-lora")
  .description("Fine-tunes language models with LoRA on the CPU, in WebAssembly SIMD.")
  .version(packageVersion())
  .addHelpText(
    "after",
    "\nA model is a folder (config.json, model.safetensors, tokenizer.json), or a GGUF\n" +
      "file. org/name[@revision] is a model or an adapter on the Hugging Face hub,\n" +
      "where no folder has that name; org/name:Q4_K_M is a GGUF file there. It is\n" +
      "downloaded into the cache of huggingface_hub (HF_HUB_CACHE, HF_HOME) from\n" +
      "HF_ENDPOINT, with HF_TOKEN if that is set.",
  )
  // Commander's suggestions come on a line of their own; here an error is one line.
  .configureOutput({
    outputError: (text, write) => {
      write(`${onOneLine(text)} (add --help for the options)\n`);
    },
  });

const MODEL = (): Option =>
  new Option(
    "--model <path>",
    "model folder, GGUF file, or org/name[@revision] on the hub; without it the one that the adapter's config names, " +
      "or the embedded one",
  ).argParser(path);
defineFinetune(program.command("finetune"));

const generating = program
  .command("generate")
  .description("Continue a prompt, or answer: through the model's chat template.")
  .optionsGroup("What and where:")
  .addOption(MODEL())
  .option("--adapter <folder>", "PEFT adapter folder to apply, or org/name[@revision] on the hub", path)
  .addOption(quantize())
  .addOption(offline())
  .option("--prompt <text>", "text to continue; without one from the begin-of-text token. With --chat it is answered")
  .optionsGroup("Conversations:")
  .option(
    "--chat",
    "talk: answer each line, through the chat template, with what was said before. Without a template each line is a " +
      "prompt of its own, as in rows of prompt and completion",
  )
  .option("--system <text>", "message of the system's, which goes before all others")
  .option(
    "--messages <file>",
    "messages in JSON, as in a row of data: the last is answered; with --chat they go before",
  )
  .option("--no-history", "ask each line anew, for an adapter that learnt from single answers");
for (const option of templateOptions()) generating.addOption(option);
generating
  .option("--no-template", "each line is a prompt of its own, though there is a template")
  .optionsGroup("How tokens are drawn:")
  .option("--max-tokens <n>", "tokens to add at most (default: 100, of an answer 512)", fromZero)
  .option(
    "--temperature <x>",
    "0 takes the likeliest token each time (default: as generation_config.json says, else 0.8)",
    numberFromZero,
  )
  .option("--top-k <n>", "draw from so many of the likeliest; 0: from all", fromZero)
  .option("--top-p <x>", "draw from the fewest of the likeliest with this share together", share)
  .option("--min-p <x>", "draw from those with this share of the likeliest's probability", share)
  .option("--repetition-penalty <x>", "above 1 makes what the text has already less likely", numberAboveZero)
  .addOption(
    new Option("--stop <text>", "end before this text; may be given again")
      .argParser((text, all: string[]) => [...all, filled(text)])
      .default([], "none"),
  )
  .option("--seed <n>", "seed of the draws", parsed(SETTINGS.seed, parseNumber), 0)
  .option("--ids", "print token ids as JSON, the prompt's first, instead of text")
  .optionsGroup("What computes:");
for (const option of engineOptions()) generating.addOption(option);
generating
  .optionsGroup("Options:")
  .addHelpText(
    "after",
    '\nExample:\n  wasm-lora generate --adapter runs/moby-dick/adapter --prompt "The whale"\n' +
      '  wasm-lora generate --prompt "My fellow citizens" --top-p 0.9 --stop .\n' +
      "  wasm-lora generate --chat --model my-llama --adapter runs/chats/adapter",
  )
  .action(async (options) => (await import("./generate.js")).generateText(options));

const merging = program
  .command("merge")
  .description("Write a model with the adapter's update added to its weights: a folder, or a GGUF file.")
  .addOption(MODEL())
  .option(
    "--adapter <folder>",
    "PEFT adapter folder, or org/name[@revision] on the hub; without it the model is written as it is",
    path,
  )
  .addOption(offline())
  .addOption(new Option("--to <format>", "a folder of safetensors, or one GGUF file").choices(["safetensors", "gguf"]))
  .addOption(
    new Option("--dtype <type>", "what weights are stored in; q8_0 in GGUF alone (default: f32)").choices(
      Object.keys(MODEL_DTYPE_NAMES),
    ),
  )
  .requiredOption("--out <path>", "folder to write, a new one; or a new file that ends in .gguf", path);
for (const option of engineOptions()) merging.addOption(option);
merging
  .addHelpText(
    "after",
    "\nExample:\n  wasm-lora merge --adapter runs/moby-dick/adapter --out runs/moby-dick/merged\n" +
      "  wasm-lora merge --adapter runs/chats/adapter --to gguf --out chats.gguf",
  )
  .action(async (options) => (await import("./merge.js")).merge(options));

program
  .command("export")
  .description("Write an adapter for llama.cpp, Ollama, mlx-lm, Workers AI, or servers that know alpha / r alone.")
  .requiredOption("--adapter <folder>", "PEFT adapter folder, or org/name[@revision] on the hub", path)
  .addOption(
    new Option(
      "--to <target>",
      "gguf (llama.cpp, node-llama-cpp, wllama), ollama (the same with a Modelfile), mlx, workers-ai or " +
        "peft (one alpha and rank, without patterns)",
    )
      .choices(EXPORT_TARGETS)
      .makeOptionMandatory(),
  )
  .addOption(
    new Option(
      "--base <path>",
      "the model that it is for: a folder, a GGUF file, or org/name[@revision] on the hub; without it the one that " +
        "the adapter's config names, or the embedded one",
    ).argParser(path),
  )
  .addOption(
    new Option("--dtype <type>", "what factors are stored in").choices(Object.keys(DTYPE_NAMES)).default("f32"),
  )
  .option("--from <name>", "what FROM names in Ollama's Modelfile (default: ./base.gguf)", filled)
  .addOption(offline())
  .requiredOption("--out <path>", "folder to write, a new one; or a new file that ends in .gguf", path)
  .addHelpText(
    "after",
    "\nThe files are read back, and their update is compared with the adapter's. What a\n" +
      "target cannot be told (DoRA, whole modules, trained tokens, embeddings) is\n" +
      "refused by name: merge writes such a model whole.\n" +
      "\nExample:\n  wasm-lora export --adapter runs/chats/adapter --to gguf --out chats.gguf\n" +
      "  wasm-lora export --adapter runs/chats/adapter --to ollama --out runs/ollama",
  )
  .action(async (options) => (await import("./export.js")).exportCommand(options));

const evaluating = program
  .command("eval")
  .description("Measure a model on rows, without an adapter and with it: loss, token accuracy, exact answers.")
  .optionsGroup("What and where:")
  .requiredOption("--data <file>", "rows (.jsonl, .json, .csv, .parquet), or a folder with test.jsonl", path)
  .addOption(MODEL())
  .option("--adapter <folder>", "PEFT adapter folder to measure beside, or org/name[@revision] on the hub", path)
  .addOption(quantize())
  .addOption(offline())
  .option("--limit <n>", "measure on the first n rows", fromOne)
  .option("--batch <n>", "rows that are computed together", fromOne, 8)
  .option("--json", "print the figures as JSON")
  .optionsGroup("How rows become tokens:");
for (const option of dataOptions()) evaluating.addOption(option);
evaluating.optionsGroup("What computes:");
for (const option of engineOptions()) evaluating.addOption(option);
evaluating
  .optionsGroup("Options:")
  .addHelpText(
    "after",
    "\nLoss and token accuracy are of the scored tokens. An answer is exact if the\n" +
      "model, taking the likeliest token each time, writes the row's own, token by\ntoken, and ends there.\n" +
      "\nExample:\n  wasm-lora eval --data test.jsonl --model my-llama --adapter runs/chats/adapter",
  )
  .action(async (options) => (await import("./eval.js")).evaluate(options));

const inspecting = program
  .command("inspect")
  .description(
    "List what a .safetensors or GGUF file, a model or an adapter folder holds; or show data as a model sees them.",
  )
  .argument("[path]", "file or folder, or org/name[@revision] on the hub", path)
  .optionsGroup("What and where:")
  .option("--data <file>", "instead: rows (.jsonl, .json, .csv, .parquet), a folder with train.jsonl, or a text", path)
  .addOption(MODEL())
  .addOption(offline())
  .optionsGroup("How rows become tokens:");
for (const option of dataOptions()) inspecting.addOption(option);
inspecting
  .addHelpText(
    "after",
    "\nExample:\n  wasm-lora inspect runs/moby-dick/adapter\n  wasm-lora inspect --data chats.jsonl --model my-llama",
  )
  .action(async (named: string | undefined, options, command: Command) => {
    if ((named === undefined) === (options.data === undefined))
      command.error("error: expected a path to list, or --data to show; one of them");
    if (named !== undefined) {
      const stray = command.options.find(
        (o) => o.long !== "--offline" && command.getOptionValueSource(o.attributeName()) === "cli",
      );
      if (stray) command.error(`error: ${stray.long} is for --data`);
    }
    if (named === undefined) await (await import("./inspect_data.js")).inspectData(options);
    else await (await import("./inspect.js")).inspect(named, options);
  });

/** Text from a file or a caller as one line that a terminal shows and does not obey. */
function onOneLine(text: string): string {
  return printable(text.trim().replace(/\s*\n\s*/g, " "));
}

/**
 * The one way out: a line that says what is wrong. An error that this program did not foresee is called a fault of its
 * own; WASM_LORA_DEBUG=1 shows where it came from.
 */
function fail(error: unknown): void {
  process.exitCode = 1;
  if (error instanceof WasmLoraError) console.error(`${error.name}: ${onOneLine(error.message)}`);
  else {
    const { name = "Error", message = String(error) } = error instanceof Error ? error : {};
    console.error(
      `InternalError: ${oneLine(`${name}: ${message}`, 500)} (a fault of wasm-lora: please report it, with what ` +
        `WASM_LORA_DEBUG=1 shows)`,
    );
  }
  if (process.env["WASM_LORA_DEBUG"]) console.error(printable(inspectValue(error)));
}

for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (error: unknown) => {
    fail(error);
    process.exit();
  });
}
// A reader that closes the pipe (head, less) is no error, and no reason to throw a training away. A full disk behind
// the output is an error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE" && process.argv[2] === "finetune") return;
    if (error.code !== "EPIPE" && stream === process.stdout)
      fail(new FileError(`cannot write the output: ${error.message}.`));
    process.exit(error.code === "EPIPE" ? 0 : 1);
  });
}

try {
  if (process.argv.slice(2).every((word) => word === "--"))
    program.error(`error: no command; expected ${program.commands.map((c) => c.name()).join(", ")}.`);
  await program.parseAsync();
} catch (error) {
  fail(error);
}

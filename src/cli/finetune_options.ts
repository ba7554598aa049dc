/** The options of the command finetune, by what they are about. */
import { Option, type Command } from "commander";
import { dataOptions } from "./data_options.js";
import { engineOptions } from "./engine_options.js";
import { asTyped, offline, parsed, parseNumber, parseNumberOrAuto, path, quantize } from "./option_values.js";
import { BASE_MODEL } from "./paths.js";
import { FINETUNE_DEFAULTS, INITS, parseTargetModules, SETTINGS, type GivenSettings } from "./settings.js";

const d = FINETUNE_DEFAULTS;

function numeric<K extends keyof GivenSettings>(key: K): (text: string) => GivenSettings[K] {
  return parsed(SETTINGS[key], parseNumber);
}
function numericOrAuto<K extends keyof GivenSettings>(key: K): (text: string) => GivenSettings[K] {
  return parsed(SETTINGS[key], parseNumberOrAuto);
}

/** Makes a command the command finetune. */
export function defineFinetune(command: Command): void {
  command
    .description(
      "Train LoRA factors of a language model on rows (chats, instructions, texts) or on one long text; write them " +
        "as a PEFT adapter folder, with the run's figures (metrics.jsonl, result.json) and a page about it " +
        "(report.html).",
    )
    .optionsGroup("What and where:")
    .option(
      "--data <path>",
      "rows: a .jsonl, .json, .csv, .tsv or .parquet file, or a folder with train and perhaps valid; or a text " +
        "file, whose last tenth is held out. A resumed run knows it",
      path,
    )
    .option(
      "--eval-data <path>",
      "rows to measure on (default: valid of the folder, else a tenth of the rows, drawn by the seed)",
      path,
    )
    .option(
      "--model <path>",
      "folder with config.json, model.safetensors, tokenizer.json; or a GGUF file; or org/name[@revision] on the hub",
      path,
      BASE_MODEL,
    )
    .addOption(quantize())
    .addOption(offline())
    .option("--out <folder>", "where the adapter, the checkpoint, the figures and the report go", path, "runs/finetune")
    .option("--resume", "go on from <out>/checkpoint.safetensors, to the same bits as an uninterrupted run");

  command.optionsGroup("How rows become tokens:");
  for (const option of dataOptions()) command.addOption(option);

  command
    .optionsGroup("How a text becomes tokens:")
    .option("--seq <n>", "tokens a sequence", numeric("seq"), d.seq)
    .option(
      "--test-windows <n>",
      "held-out windows to measure on at most, or auto: 128, fewer of a large model",
      numericOrAuto("testWindows"),
      d.testWindows,
    )
    .option("--prompt <text>", "start of the samples before and after", d.prompt)

    .optionsGroup("The adapter:")
    .option("--r <n>", "rank of the factors", numeric("r"), d.r)
    .option("--alpha <x>", "loraAlpha; the update is scaled by alpha / r", numeric("alpha"), d.alpha)
    .option("--dropout <p>", "dropout on the LoRA branch's input, below 1", numeric("dropout"), d.dropout)
    .addOption(
      new Option(
        "--target-modules <names>",
        "comma-separated names of layers, as q_proj,v_proj; a pattern (Python's regular expressions), as '.*_proj'; " +
          "or all-linear",
      )
        .argParser(parsed(SETTINGS.targetModules, parseTargetModules))
        .default(d.targetModules, "all-linear: every linear layer but the head"),
    )
    .option("--init <kind>", `how the factors start: ${INITS.join(", ")}`, asTyped(SETTINGS.init), d.init)
    .option("--dora", "learn the weights' magnitudes, too (DoRA)")
    .option("--rslora", "scale by alpha / sqrt(r) instead (rsLoRA)")

    .optionsGroup("The training:")
    .option("--epochs <x>", "how often rows are trained on (default: 3; of a text there are steps)", numeric("epochs"))
    .option("--steps <n>", "optimiser steps, instead of epochs (default of a text: 400)", numeric("steps"))
    .option(
      "--batch <n>",
      "rows, or sequences of a text, that are computed at once: a shard of a step",
      numeric("batch"),
      d.batch,
    )
    .option(
      "--accumulation <n>",
      "shards a step: a step is of batch * accumulation rows, in the memory of one shard",
      numeric("accumulation"),
      d.accumulation,
    )
    .option("--no-packing", "pad the rows of a shard, instead of laying them end to end; the same bits, more work")
    .option("--group-by-length", "take rows of like lengths together")
    .option(
      "--lr <x>",
      "peak learning rate (AdamW), or auto: 5e-3 for a model below 10 M weights, 1e-3 below 100 M, 5e-4 below 1 G, " +
        "else 2e-4",
      numericOrAuto("lr"),
      d.lr,
    )
    .option(
      "--schedule <kind>",
      "how it falls after the warm-up: cosine, linear, constant",
      asTyped(SETTINGS.schedule),
      d.schedule,
    )
    .option("--warmup <share>", "share of the steps in which it rises", numeric("warmup"), d.warmup)
    .option("--lora-plus <ratio>", "learning rate of B, in that of A (LoRA+)", numeric("loraPlus"))
    .option("--weight-decay <x>", "decay of the factors", numeric("weightDecay"), d.weightDecay)
    .option(
      "--max-grad-norm <x>",
      "norm that gradients are clipped to; 0: they are not",
      numeric("maxGradNorm"),
      d.maxGradNorm,
    )
    .option("--seed <n>", "seed of the factors, the order, dropout and the samples", numeric("seed"), d.seed)
    .option(
      "--gradient-checkpointing",
      "compute each layer's activations again in backward instead of keeping them: less memory, more time, the same " +
        "bits",
    )

    .optionsGroup("How it is judged, and when it stops:")
    .option(
      "--eval-every <n>",
      "steps between evaluations of all that is held out: the best goes to adapter/, the last to adapter-last/; 0: " +
        "none. auto, of rows: an epoch, at most 200 steps, and no more rows than are trained on; of a text: 0",
      numericOrAuto("evalEvery"),
      d.evalEvery,
    )
    .option(
      "--patience <n>",
      "stop after so many evaluations without a better loss; 0: never",
      numeric("patience"),
      d.patience,
    )
    .option("--min-delta <x>", "a loss is better if it is lower by more than this", numeric("minDelta"), d.minDelta)
    .option("--checkpoint-every <n>", "steps between checkpoints", numeric("checkpointEvery"), d.checkpointEvery)
    .optionsGroup("What computes:");
  for (const option of engineOptions()) command.addOption(option);

  command
    .optionsGroup("Options:")
    .addHelpText(
      "after",
      "\nCtrl-C saves a checkpoint and exits; a kill loses at most the steps since the\nlast one.\n" +
        "\nExamples:\n  wasm-lora finetune --data chats.jsonl --model my-llama --out runs/chats\n" +
        "  wasm-lora finetune --data qa.csv --feature prompt=q --feature completion=a\n" +
        "  wasm-lora finetune --data qa.jsonl --model my-Q4_K_M.gguf --patience 2\n" +
        "  wasm-lora finetune --data qa.jsonl --model my-llama --quantize nf4\n" +
        "  wasm-lora finetune --data moby-dick.txt --out runs/moby-dick --r 8 --steps 400",
    )
    .action(async (options) => {
      const explicit = new Set(
        command.options
          .map((option) => option.attributeName())
          .filter((name) => command.getOptionValueSource(name) === "cli"),
      );
      if (options.data === undefined && !options.resume)
        command.error("error: required option '--data <path>' not specified");
      if (explicit.has("epochs") && explicit.has("steps"))
        command.error("error: --epochs and --steps both say how long the run is; give one.");
      await (await import("./finetune.js")).finetune({ ...d, ...options }, explicit);
    });
}

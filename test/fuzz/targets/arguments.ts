/** Command lines, through the command's own parser: whatever reaches a command has its type and its range. */
import { Command, CommanderError } from "commander";
import { damageText } from "../json_tree.js";
import type { Random } from "../random.js";
import { must, type Target } from "../target.js";

const COMMANDS = [
  "finetune",
  "generate",
  "merge",
  "inspect",
  "eval",
  "help",
  "",
  "fine-tune",
  "__proto__",
  "constructor",
  "toString",
];
const FLAGS = [
  "--data",
  "--eval-data",
  "--format",
  "--feature",
  "--loss-on",
  "--max-length",
  "--skip-unusable",
  "--template",
  "--template-arg",
  "--date",
  "--no-template",
  "--no-history",
  "--chat",
  "--system",
  "--messages",
  "--limit",
  "--json",
  "--epochs",
  "--accumulation",
  "--no-packing",
  "--group-by-length",
  "--schedule",
  "--warmup",
  "--weight-decay",
  "--max-grad-norm",
  "--eval-every",
  "--patience",
  "--min-delta",
  "--lora-plus",
  "--init",
  "--dora",
  "--rslora",
  "--test-windows",
  "--model",
  "--out",
  "--r",
  "--alpha",
  "--dropout",
  "--target-modules",
  "--steps",
  "--batch",
  "--seq",
  "--lr",
  "--seed",
  "--prompt",
  "--checkpoint-every",
  "--gradient-checkpointing",
  "--resume",
  "--adapter",
  "--max-tokens",
  "--temperature",
  "--top-k",
  "--top-p",
  "--min-p",
  "--repetition-penalty",
  "--stop",
  "--ids",
  "--help",
  "--version",
  "-h",
  "-V",
  "--",
  "-",
  "--__proto__",
  "--constructor",
  "--no-resume",
  "--learning-rate",
  "--lora-alpha",
];
const VALUES = [
  "0",
  "1",
  "2",
  "-1",
  "1.5",
  "1e3",
  "1e-40",
  "1e308",
  "1e309",
  "-0",
  "0x10",
  "0b1",
  "010",
  "1_000",
  " 7 ",
  "",
  " ",
  "NaN",
  "Infinity",
  "-Infinity",
  "9007199254740991",
  "9007199254740992",
  "1000000000",
  "true",
  "q_proj",
  "q_proj,v_proj",
  ",",
  ",,",
  " , ",
  "all-linear",
  "a b",
  "x=y",
  "=",
  "\u001b[2J",
  "\u202e",
  "\n",
  "é",
  "\ud83d\ude00",
  "../../x",
  "/dev/null",
  "C:\\x",
  "$(x)",
  "`x`",
  "1 ",
  "１",
  "1e",
  "+5",
  "--r",
  "auto",
  "messages",
  "assistant",
  "prompt=question",
  "word=[1]",
  "__proto__=1",
  "2024-02-29",
  "2023-02-29",
  "pissa",
  "linear",
];

/** What a value must be when its command gets it. */
const RULES: Record<string, (value: unknown) => boolean> = {
  r: whole(1),
  steps: whole(1),
  batch: whole(1),
  seq: whole(2),
  seed: whole(0),
  accumulation: whole(1),
  limit: whole(1),
  maxLength: whole(1),
  patience: whole(0),
  epochs: (value) => from(0)(value) && value !== 0,
  weightDecay: from(0),
  maxGradNorm: from(0),
  minDelta: from(0),
  warmup: share,
  format: (value) =>
    ["auto", "text", "messages", "completion", "alpaca", "sharegpt", "tokens"].includes(value as string),
  lossOn: (value) => ["completion", "assistant", "last", "all"].includes(value as string),
  schedule: (value) => ["cosine", "linear", "constant"].includes(value as string),
  feature: (value) =>
    named(value) && Object.values(value as object).every((name) => name !== "" && typeof name === "string"),
  templateArg: named,
  date: (value) =>
    !Number.isNaN(Date.parse(`${value as string}T00:00:00Z`)) && /^\d{4}-\d\d-\d\d$/.test(value as string),
  checkpointEvery: whole(1),
  maxTokens: whole(0),
  alpha: from(0),
  lr: (value) => value === "auto" || from(0)(value),
  temperature: from(0),
  topK: whole(0),
  topP: share,
  minP: share,
  repetitionPenalty: (value) => from(0)(value) && value !== 0,
  stop: (value) => Array.isArray(value) && value.every((text) => typeof text === "string" && text !== ""),
  dropout: (value) => from(0)(value) && (value as number) < 1,
  targetModules: (value) =>
    (typeof value === "string" && value !== "") ||
    (Array.isArray(value) &&
      value.length > 0 &&
      value.every((name) => typeof name === "string" && name.trim() === name && name !== "")),
};
function named(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !Object.hasOwn(value, "");
}
function from(low: number): (value: unknown) => boolean {
  return (value) => typeof value === "number" && Number.isFinite(value) && value >= low;
}
function share(value: unknown): boolean {
  return from(0)(value) && (value as number) <= 1;
}
function whole(low: number): (value: unknown) => boolean {
  return (value) => Number.isSafeInteger(value) && (value as number) >= low;
}
const plain = (value: unknown): boolean =>
  value === null ||
  typeof value === "string" ||
  typeof value === "boolean" ||
  (typeof value === "number" && Number.isFinite(value));

function generate(random: Random): string[] {
  const args: string[] = [];
  if (!random.once(20))
    args.push(
      random.once(10)
        ? damageText(random.pick(COMMANDS), random)
        : random.pick(COMMANDS.slice(0, random.once(4) ? undefined : 5)),
    );
  const value = (): string =>
    random.once(200)
      ? random.pick(VALUES).repeat(20_000)
      : random.once(10)
        ? damageText(random.pick(VALUES), random)
        : random.pick(VALUES);
  if (args[0] === "finetune" && !random.once(10)) args.push("--data", "x.txt");
  if (args[0] === "merge" && !random.once(10)) args.push("--adapter", "a", "--out", "b");
  if (args[0] === "inspect") args.push(...(random.once(2) ? ["--data"] : []), value());
  if (args[0] === "eval" && !random.once(10)) args.push("--data", "x.jsonl");
  for (let i = random.below(5); i > 0; i--) {
    const flag = random.once(15) ? damageText(random.pick(FLAGS), random) : random.pick(FLAGS);
    if (random.once(4)) args.push(`${flag}=${value()}`);
    else args.push(flag, ...(random.once(6) ? [] : [random.once(2) ? random.pick(["1", "2", "0.5", "x"]) : value()]));
  }
  // Of none, and of nothing but "--", main.ts says so before it parses.
  if (!args.some((arg) => arg !== "--")) args.push("inspect");
  return args.map((arg) => arg.replaceAll("\0", ""));
}

let program: Command;
/** What the parser had to say. */
let said = "";
const reached: Record<string, unknown>[] = [];

async function prepare(): Promise<void> {
  // The command parses when it is loaded: then its parser is caught, and its actions are replaced by one that looks.
  const { parseAsync } = Command.prototype;
  Command.prototype.parseAsync = async function (this: Command) {
    await Promise.resolve();
    program = this;
    return this;
  };
  process.argv = ["node", "wasm-lora", "inspect", "x"];
  await import("../../../src/cli/main.js");
  Command.prototype.parseAsync = parseAsync;
  for (const command of [program, ...program.commands]) {
    const { outputError } = command.configureOutput();
    command.exitOverride().configureOutput({
      writeOut: () => {},
      writeErr: (text) => {
        said += text;
      },
      ...(outputError && { outputError }),
    });
    if (command !== program)
      command.action((...given: unknown[]) => {
        reached.push(given.at(-2) as Record<string, unknown>);
      });
  }
}

async function run(args: string[]): Promise<string | undefined> {
  said = "";
  reached.length = 0;
  try {
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Who asks for help on what is no command gets the help there is.
    if (error.exitCode === 0 || (args[0] === "help" && said.startsWith("Usage:"))) return "help";
    must(/^[^\n]+\n$/.test(said), () => `the refusal is not one line: ${JSON.stringify(said.slice(0, 500))}`);
    return error.code.replace("commander.", "");
  }
  must(reached.length === 1, () => "nothing was refused, but not one command was reached");
  for (const [key, value] of Object.entries(reached[0]!)) {
    must((RULES[key] ?? plain)(value), () => `--${key} reaches its command as ${JSON.stringify(value)}`);
  }
  return undefined;
}

export const commandLine: Target<string[]> = { name: "arguments", inputs: 15_000, prepare, generate, run };

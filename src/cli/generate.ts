/** wasm-lora generate: goes on from a prompt, or answers, through the chat template of the model's tokenizer. */
import { generationConfig, untilStopString } from "../data/index.js";
import { ArgumentError } from "../runtime/errors.js";
import { printable } from "../runtime/printable.js";
import { generateAfter, TextMemory } from "../models/generate.js";
import type { SamplingOptions } from "../models/index.js";
import { LoraModel } from "../peft/index.js";
import type { QuantizedType } from "../tensor/blocks.js";
import { answer, converse } from "./chat.js";
import { templateSettings } from "./data_options.js";
import { startEngine, type EngineCommand } from "./engine_options.js";
import { oneLine } from "./format.js";
import { findFolder } from "./hub.js";
import { loadWatched } from "./load_watched.js";
import { partnerFor, type PartnerOptions } from "./partner.js";
import { modelFor } from "./places.js";
import { announce } from "./progress.js";
import { loadCodec, promptIds, type TextCodec } from "./text.js";

interface GenerateCommand extends SamplingOptions, PartnerOptions, EngineCommand {
  model?: string | undefined;
  adapter?: string | undefined;
  quantize?: QuantizedType | undefined;
  prompt?: string | undefined;
  chat?: boolean | undefined;
  maxTokens?: number | undefined;
  seed: number;
  stop: readonly string[];
  ids?: boolean | undefined;
  offline?: boolean | undefined;
}

/** Tokens to add at most: of a text that goes on, and of an answer, which ends by itself. */
const [TEXT_TOKENS, ANSWER_TOKENS] = [100, 512];

export async function generateText(options: GenerateCommand): Promise<void> {
  const { prompt, messages, chat = false, stop, seed, ids: asIds = false } = options;
  const isAnswer = chat || messages !== undefined || options.system !== undefined;
  const isConversation = isAnswer && prompt === undefined && (chat || messages === undefined);
  checkOptionsTogether(options, isAnswer, isConversation);
  await startEngine(options);
  const adapter = options.adapter && (await findFolder("generate", options.adapter, "adapter", options)).path;
  const folder = await modelFor("generate", { ...options, adapter });
  announce(`Loading ${oneLine(folder)} ...`);
  const { model, config } = loadWatched(folder, options.quantize);
  const codec = loadCodec(folder, config, templateSettings({ ...options, template: options.template || undefined }));
  const { sampling, taken } = samplingOf(folder, options);
  for (const line of taken) announce(line);
  if (adapter) LoraModel.fromPretrained(model, adapter);
  model.eval();
  const memory = new TextMemory();
  const say = (ids: readonly number[], turn: number, taken: number[] = []): Iterable<string> => {
    const drawn = generateAfter(memory, model, ids, {
      maxNewTokens: options.maxTokens ?? (isAnswer ? ANSWER_TOKENS : TEXT_TOKENS),
      ...sampling,
      seed: seed + turn,
      stopToken: [...codec.stopToken, ...specialStops(codec, stop)],
    });
    return written(codec, ids, drawn, stop, taken, isAnswer);
  };
  let first: number[];
  if (isAnswer) {
    const partner = partnerFor(folder, codec, options);
    if (isConversation) return converse(partner, say, write);
    first = prompt === undefined ? partner.promptOfLast() : partner.promptFor(prompt);
  } else first = promptIds("generate", codec, prompt ?? "");
  const ids: number[] = [];
  await answer(say(first, 0, ids), asIds ? () => {} : write);
  if (asIds) process.stdout.write(`${JSON.stringify(ids)}\n`);
}

/** @throws ArgumentError for an option that would have no effect */
function checkOptionsTogether(options: GenerateCommand, isAnswer: boolean, isConversation: boolean): void {
  const { template, templateArg, date, system, messages, ids } = options;
  const refuse = (what: string, why: string): never => {
    throw new ArgumentError(`generate: ${what} ${why}.`);
  };
  const given =
    template === false
      ? "--no-template"
      : template !== undefined
        ? "--template"
        : Object.keys(templateArg).length > 0
          ? "--template-arg"
          : date !== undefined
            ? "--date"
            : undefined;
  if (given && !isAnswer) refuse(given, "is for conversations; add --chat, and --prompt goes through the template");
  if (template === false && (system !== undefined || messages !== undefined))
    refuse(system === undefined ? "--messages" : "--system", "needs a chat template; leave out --no-template");
  if (options.history === false && !isConversation) refuse("--no-history", "is for conversations; add --chat");
  if (ids && isConversation) refuse("--ids", "is for one answer; add --prompt");
}

/** Flags by what they set. */
const FLAGS = {
  temperature: "--temperature",
  topK: "--top-k",
  topP: "--top-p",
  minP: "--min-p",
  repetitionPenalty: "--repetition-penalty",
} as const satisfies Record<keyof SamplingOptions, string>;

/**
 * How tokens are drawn: as flags say, else as the folder's generation_config.json.
 * @returns taken: what was taken from that file, and what of it has no effect, a line each
 */
export function samplingOf(
  folder: string,
  options: SamplingOptions,
): { sampling: SamplingOptions; taken: readonly string[] } {
  const { sampling: given, unapplied } = generationConfig(folder);
  const sampling: SamplingOptions = {};
  const names: string[] = [];
  for (const key of Object.keys(FLAGS) as (keyof typeof FLAGS)[]) {
    sampling[key] = options[key] ?? given[key];
    if (options[key] === undefined && given[key] !== undefined) names.push(`${FLAGS[key]} ${given[key]}`);
  }
  const taken: string[] = [];
  if (names.length > 0) taken.push(`As generation_config.json says: ${names.join(" ")}`);
  if (unapplied.length > 0) taken.push(`Without effect in generation_config.json: ${unapplied.join(", ")}`);
  return { sampling, taken };
}

/** Stop strings that are a special token each: the text does not show those, so they are stopped at by their ids. */
function specialStops({ tokenizer }: TextCodec, stops: readonly string[]): number[] {
  return stops.flatMap((stop) => {
    const ids = tokenizer.encode(stop, { addSpecialTokens: false });
    return ids.length === 1 && tokenizer.decode(ids, { skipSpecialTokens: true }) === "" ? ids : [];
  });
}

/**
 * The text of the prompt and of what is drawn after it, up to a stop string in the latter; of an answer the latter
 * alone.
 * @param ids gets those that were taken
 */
export function* written(
  { tokenizer }: TextCodec,
  prompt: readonly number[],
  drawn: Iterable<number>,
  stops: readonly string[],
  ids: number[],
  isAnswer = false,
): Generator<string> {
  let isDrawn = false;
  function* all(): Generator<number> {
    for (const id of prompt) {
      ids.push(id);
      yield id;
    }
    isDrawn = true;
    for (const id of drawn) {
      ids.push(id);
      yield id;
    }
  }
  const pieces = tokenizer.decodeStream(all(), { skipSpecialTokens: true });
  function* from(first: string): Generator<string> {
    yield first;
    yield* pieces;
  }
  for (let next = pieces.next(); !next.done; next = pieces.next()) {
    if (isDrawn) return yield* untilStopString(from(next.value), stops);
    if (!isAnswer) yield next.value;
  }
}

/**
 * A vocabulary may be a stranger's: what a terminal would obey is shown instead, on its way into a file control
 * characters alone.
 */
function write(text: string): void {
  process.stdout.write(
    process.stdout.isTTY
      ? printable(text)
      : text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g, printable),
  );
}

/** wasm-lora generate */
import { generationConfig, untilStopString } from "../data/index.js";
import { init } from "../runtime/engine.js";
import { printable } from "../runtime/printable.js";
import { generate, loadModel, type SamplingOptions } from "../models/index.js";
import { LoraModel } from "../peft/index.js";
import { oneLine } from "./format.js";
import { findFolder } from "./hub.js";
import { modelFor } from "./places.js";
import { announce } from "./progress.js";
import { loadCodec, promptIds, type TextCodec } from "./text.js";

interface GenerateCommand extends SamplingOptions {
  model?: string | undefined;
  adapter?: string | undefined;
  prompt: string;
  maxTokens: number;
  seed: number;
  stop: readonly string[];
  ids?: boolean | undefined;
  offline?: boolean | undefined;
}

export async function generateText(options: GenerateCommand): Promise<void> {
  await init();
  const adapter = options.adapter && (await findFolder("generate", options.adapter, "adapter", options)).path;
  const folder = await modelFor("generate", { ...options, adapter });
  announce(`Loading ${oneLine(folder)} ...`);
  const { model, config } = loadModel(folder, { head: "causal-lm" });
  const codec = loadCodec(folder, config);
  const { sampling, taken } = samplingOf(folder, options);
  for (const line of taken) announce(line);
  if (adapter) LoraModel.fromPretrained(model, adapter);
  model.eval();
  const prompt = promptIds("generate", codec, options.prompt);
  const drawn = generate(model, prompt, {
    maxNewTokens: options.maxTokens,
    ...sampling,
    seed: options.seed,
    stopToken: [...codec.stopToken, ...specialStops(codec, options.stop)],
  });
  const ids: number[] = [];
  for (const piece of written(codec, prompt, drawn, options.stop, ids)) {
    if (!options.ids) write(piece);
    // Between two pieces the event loop runs, so that a pipe that nobody reads any more ends the program.
    await new Promise((resolve) => setImmediate(resolve));
  }
  process.stdout.write(options.ids ? `${JSON.stringify(ids)}\n` : "\n");
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
 * The text of the prompt and of what is drawn after it, up to a stop string in the latter.
 * @param ids gets those that were taken
 */
export function* written(
  { tokenizer }: TextCodec,
  prompt: readonly number[],
  drawn: Iterable<number>,
  stops: readonly string[],
  ids: number[],
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
    yield next.value;
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

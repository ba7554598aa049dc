/** wasm-lora generate */
import { init } from "../runtime/engine.js";
import { printable } from "../runtime/printable.js";
import { generate, loadModel } from "../models/index.js";
import { LoraModel } from "../peft/index.js";
import { oneLine } from "./format.js";
import { modelOfAdapter } from "./places.js";
import { announce } from "./progress.js";
import { loadCodec, promptIds } from "./text.js";

interface GenerateCommand {
  model?: string | undefined;
  adapter?: string | undefined;
  prompt: string;
  maxTokens: number;
  temperature: number;
  seed: number;
  ids?: boolean | undefined;
}

export async function generateText(options: GenerateCommand): Promise<void> {
  await init();
  const folder = options.model ?? modelOfAdapter("generate", options.adapter);
  announce(`Loading ${oneLine(folder)} ...`);
  const { model, config } = loadModel(folder);
  const codec = loadCodec(folder, config);
  if (options.adapter) LoraModel.fromPretrained(model, options.adapter);
  model.eval();
  const prompt = promptIds("generate", codec, options.prompt);
  const drawn = generate(model, prompt, {
    maxNewTokens: options.maxTokens,
    temperature: options.temperature,
    seed: options.seed,
    stopToken: codec.stopToken,
  });
  if (options.ids) {
    console.log(JSON.stringify([...prompt, ...drawn]));
    return;
  }
  for (const piece of codec.tokenizer.decodeStream(chain(prompt, drawn), { skipSpecialTokens: true })) {
    write(piece);
    // Between two pieces the event loop runs, so that a pipe that nobody reads any more ends the program.
    await new Promise((resolve) => setImmediate(resolve));
  }
  process.stdout.write("\n");
}

function* chain(...all: Iterable<number>[]): Generator<number> {
  for (const ids of all) yield* ids;
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

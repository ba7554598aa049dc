/** wasm-lora generate */
import { init } from "../runtime/engine.js";
import { printable } from "../runtime/printable.js";
import { generate, loadModel } from "../models/index.js";
import { LoraModel } from "../peft/index.js";
import { modelOfAdapter } from "./places.js";
import { loadTokenizer, promptIds, type TextCodec } from "./text.js";

export interface GenerateCommand { model?: string; adapter?: string; prompt: string; maxTokens: number; temperature: number; seed: number; ids?: boolean }

export async function generateText(options: GenerateCommand): Promise<void> {
  await init();
  const folder = options.model ?? modelOfAdapter("generate", options.adapter);
  const codec = loadTokenizer(folder);
  const { model, config } = loadModel(folder);
  if (options.adapter) LoraModel.fromPretrained(model, options.adapter);
  model.eval();
  const prompt = promptIds("generate", codec, config, options.prompt);
  const drawn = generate(model, prompt, {
    maxNewTokens: options.maxTokens, temperature: options.temperature, seed: options.seed, stopToken: config.eosTokenId ?? undefined,
  });
  if (options.ids) {
    console.log(JSON.stringify([...prompt, ...drawn]));
    return;
  }
  streamText(codec, prompt, drawn);
}

/** Prints text as its tokens come; a token may end inside a character, so only settled text is shown. */
function streamText(codec: TextCodec, prompt: readonly number[], drawn: Iterable<number>): void {
  const ids = [...prompt];
  let shown = codec.decode(ids);
  write(shown);
  for (const id of drawn) {
    ids.push(id);
    const text = codec.decode(ids);
    if (text.endsWith("\ufffd")) continue;
    write(text.slice(shown.length));
    shown = text;
  }
  process.stdout.write("\n");
}

/** A vocabulary may be a stranger's: what a terminal would obey is shown instead, on its way into a file control characters alone. */
function write(text: string): void {
  process.stdout.write(process.stdout.isTTY ? printable(text) : text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g, printable));
}

/** wasm-lora generate */
import { init } from "../runtime/engine.js";
import { generate, loadModel } from "../models/index.js";
import { LoraModel } from "../peft/index.js";
import { loadTokenizer, promptIds, type TextCodec } from "./text.js";

export interface GenerateCommand { model: string; adapter?: string; prompt: string; maxTokens: number; temperature: number; seed: number; ids?: boolean }

export async function generateText(options: GenerateCommand): Promise<void> {
  await init();
  const codec = loadTokenizer(options.model);
  const { model, config } = loadModel(options.model);
  if (options.adapter) LoraModel.fromPretrained(model, options.adapter);
  model.eval();
  const prompt = promptIds(codec, config, options.prompt);
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
  process.stdout.write(shown);
  for (const id of drawn) {
    ids.push(id);
    const text = codec.decode(ids);
    if (text.endsWith("\ufffd")) continue;
    process.stdout.write(text.slice(shown.length));
    shown = text;
  }
  process.stdout.write("\n");
}

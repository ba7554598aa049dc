import { init, models } from "wasm-lora";

/** What the embedded model goes on with: found, read or fetched, and turned into text. */
export async function say(options) {
  await init(options);
  const { model, tokenizer } = await models.loadBase();
  return tokenizer.decode(models.generate(model, tokenizer.encode("My fellow"), { maxNewTokens: 8, temperature: 0 }));
}

/** The embedded base model: fetched once, then kept in the library's memory files. */
import { Tokenizer } from "@huggingface/tokenizers";
import { io, models } from "wasm-lora";
import configUrl from "../../../models/base/config.json?url";
import weightsUrl from "../../../models/base/model.safetensors?url";
import tokenizerUrl from "../../../models/base/tokenizer.json?url";
import tokenizerConfigUrl from "../../../models/base/tokenizer_config.json?url";
import { Refusal } from "./refusal";

const FOLDER = "memory:base";

/** What a saved run must find again: the name that the build gave to the weights holds a digest of them. */
export const BASE_ID = weightsUrl.slice(weightsUrl.lastIndexOf("/") + 1);

export interface Base {
  /** A fresh copy of the model. */
  load(): models.Llama;
  encode(text: string): number[];
  decode(ids: readonly number[]): string;
}

/** @throws Refusal if the server does not give the files */
export async function fetchBase(): Promise<Base> {
  const [config, weights, tokenizer, tokenizerConfig] = await Promise.all([configUrl, weightsUrl, tokenizerUrl, tokenizerConfigUrl].map(download));
  io.memoryFiles.set(`${FOLDER}/config.json`, config!);
  io.memoryFiles.set(`${FOLDER}/model.safetensors`, weights!);
  const json = (bytes: Uint8Array): object => JSON.parse(new TextDecoder().decode(bytes)) as object;
  const codec = new Tokenizer(json(tokenizer!), json(tokenizerConfig!));
  return {
    load: () => models.loadLlama(FOLDER).model,
    encode: (text) => codec.encode(text, { add_special_tokens: false }).ids,
    decode: (ids) => codec.decode([...ids], { skip_special_tokens: true }),
  };
}

async function download(url: string): Promise<Uint8Array> {
  try {
    const response = await fetch(new URL(url, import.meta.url));
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw new Refusal("page", `The model could not be loaded (${(cause as Error).message}). Check the connection and reload the page.`);
  }
}

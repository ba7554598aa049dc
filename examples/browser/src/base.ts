/** The embedded base model: fetched once, then kept in the library's memory files. */
import { data, io, models } from "wasm-lora";
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
  tokenizer: data.Tokenizer;
  /** Each of them ends a text. */
  eosTokenIds: readonly number[];
}

/** @throws Refusal if the server does not give the files */
export async function fetchBase(): Promise<Base> {
  const urls = { "config.json": configUrl, "model.safetensors": weightsUrl, "tokenizer.json": tokenizerUrl, "tokenizer_config.json": tokenizerConfigUrl };
  await Promise.all(Object.entries(urls).map(async ([name, url]) => io.memoryFiles.set(`${FOLDER}/${name}`, await download(url))));
  return baseOf(FOLDER);
}

/** A base of a folder's files. */
export function baseOf(folder: string): Base {
  const load = (): models.Llama => models.loadLlama(folder).model, model = load();
  const { eosTokenIds } = data.specialTokens(folder, model.config);
  model.dispose();
  return { load, tokenizer: data.loadTokenizer(folder), eosTokenIds };
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

/** The embedded base model, which the library fetches from beside its code. */
import { type data, models } from "wasm-lora";
import weightsUrl from "../../../models/base/model.safetensors?url";
import { Refusal } from "./refusal";

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
  const loaded = await models.loadBase().catch((error: Error) => {
    if (error.name !== "FileError") throw error;
    const reason = /the server answered \d+/.exec(error.message)?.[0] ?? "there is no connection to the server";
    throw new Refusal("page", `The model could not be loaded (${reason}). Check the connection and reload the page.`);
  });
  return baseOf(loaded);
}

export function baseOf({ model, path, tokenizer, eosTokenIds }: Awaited<ReturnType<typeof models.loadBase>>): Base {
  model.dispose(); // each run has its own
  return { load: () => models.loadLlama(path).model, tokenizer, eosTokenIds };
}

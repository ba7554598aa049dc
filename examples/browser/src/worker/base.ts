/** The models that a run begins with: the embedded one, one of the hub, or one in a folder that the visitor picked. */
import { data, models, peft } from "wasm-lora";
import weightsUrl from "../../../../models/base/model.safetensors?url";
import { HUB } from "./hub";
import { fileName, megabytes, printable } from "../format";
import { Refusal } from "../refusal";

/** Where a model comes from. */
export type Source = { kind: "embedded" } | { kind: "hub"; name: string } | { kind: "folder"; files: File[] };
export type Model = models.AnyLoadedModel["model"];

export interface Base {
  /** What a saved run must find again. */
  id: string;
  /** As the visitor knows it. */
  name: string;
  /** As an adapter's config names it. */
  peftName: string;
  /** How many it has, and how many more for each rank of an adapter. */
  weights: number;
  weightsOfRank: number;
  /** The longest text that it reads, in tokens. */
  positions: number;
  /** A model for each run. */
  load(): Promise<Model>;
  /** A model that was loaded and is as it was: the next that asks for one gets it. */
  giveBack(model: Model): void;
  /** Gives back the memory of a model that was loaded and not taken. */
  release(): void;
  tokenizer: data.Tokenizer;
  /** Each of them ends a text, or an answer. */
  eosTokenIds: readonly number[];
}

/** Of the embedded model: the name that the build gave to its weights holds a digest of them. */
export const EMBEDDED_ID = weightsUrl.slice(weightsUrl.lastIndexOf("/") + 1);
export const EMBEDDED: Source = { kind: "embedded" };

/** Is told what comes, in a few words. */
export type OnProgress = (done: string, share: number | null) => void;

/** @throws Refusal saying what is the matter with it */
export async function openBase(source: Source, onProgress: OnProgress): Promise<Base> {
  if (source.kind === "embedded") {
    const loaded = await models.loadBase().catch((error: Error) => {
      if (error.name !== "FileError") throw error;
      const reason = /the server answered \d+/.exec(error.message)?.[0] ?? "there is no connection to the server";
      throw new Refusal("page", `The model could not be loaded (${reason}). Check the connection and reload the page.`);
    });
    return embeddedBase(loaded);
  }
  const told = ({ file, loaded, total }: models.LoadProgress): void =>
    onProgress(
      `${fileName(file)}: ${megabytes(loaded)}${total === null ? "" : ` of ${megabytes(total)}`}`,
      total && loaded / total,
    );
  const options = { onProgress: told };
  try {
    if (source.kind === "hub") {
      const { name } = source;
      const open = (which: string): Promise<models.AnyLoadedModel> =>
        models.fetchModel(which, { ...options, endpoint: HUB });
      const loaded = await open(name);
      const [, repo, file = ""] = /^([^@:]*)(?:@[^:]*)?(:.*)?$/.exec(name)!;
      // The commit, so that a run goes on with what it began with.
      const commit = /\/resolve\/([^/]+)/.exec(loaded.path)![1]!;
      const pinned = `${repo}@${commit}${file}`;
      return baseOf(loaded, { id: `hub:${pinned}`, name, peftName: repo! }, () => open(pinned));
    }
    const { files } = source;
    const open = (): Promise<models.AnyLoadedModel> => models.openModel(files, options);
    const loaded = await open();
    const name = fileName(loaded.path.replace("memory:", ""));
    return baseOf(loaded, { id: `folder:${name}:${await digestOf(files)}`, name, peftName: name }, open);
  } catch (error) {
    throw explained(error as Error);
  }
}

/** What a saved run says of its model: where to look for it. */
export function sourceOf(id: string): Source | null {
  if (id === EMBEDDED_ID) return EMBEDDED;
  return id.startsWith("hub:") ? { kind: "hub", name: id.slice("hub:".length) } : null;
}

export function embeddedBase(loaded: Awaited<ReturnType<typeof models.loadBase>>): Base {
  const names = { id: EMBEDDED_ID, name: "the small model of this page", peftName: "models/base" };
  return baseOf(loaded, names, async () => models.loadModel(loaded.path));
}

function baseOf(
  { model, tokenizer, eosTokenIds }: models.AnyLoadedModel,
  names: Pick<Base, "id" | "name" | "peftName">,
  open: () => Promise<{ model: Model }>,
): Base {
  let weights = 0;
  for (const [, { size }] of model.namedParameters()) weights += size;
  // An adapter that is made and taken away again is the surest way to count.
  const adapted = peft.getLoraModel(model, { r: 1, targetModules: "all-linear" });
  const [weightsOfRank] = adapted.getNbTrainableParameters();
  adapted.unload();
  let spare: Model | null = model;
  return {
    ...names,
    weights,
    weightsOfRank,
    positions: model.config.maxPositionEmbeddings,
    tokenizer,
    eosTokenIds: data.endOfTurnIds(tokenizer, eosTokenIds),
    load: async () => {
      const next = spare;
      spare = null;
      return next ?? (await open()).model;
    },
    giveBack: (model) => {
      spare?.dispose();
      spare = model;
    },
    release: () => {
      spare?.dispose();
      spare = null;
    },
  };
}

/** What tells a folder's weights from others of its name: their sizes, and the ends of their files. */
async function digestOf(files: readonly File[]): Promise<string> {
  const ENDS = 65536;
  let hash = 0x811c9dc5;
  const add = (byte: number): void => {
    hash = Math.imul(hash ^ byte, 0x01000193);
  };
  const weights = files.filter(({ name }) => /\.(safetensors|gguf)$/i.test(name));
  for (const file of weights.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    for (const part of [file.slice(0, ENDS), file.slice(-ENDS), new Blob([`${file.name} ${file.size}`])])
      new Uint8Array(await part.arrayBuffer()).forEach(add);
  }
  return (hash >>> 0).toString(16);
}

function explained(error: Error): Error {
  if (error.name === "OutOfMemoryError")
    return new Refusal("model", "This device has not enough memory for that model. Choose a smaller one.");
  if (!["FileError", "FormatError", "ArgumentError"].includes(error.name)) return error;
  return new Refusal("model", `This model cannot be used here: ${printable(error.message).replaceAll("memory:", "")}`);
}

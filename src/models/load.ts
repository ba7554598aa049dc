/** Models from folders in Hugging Face's layout, of any family. */
import { loadTokenizer, specialTokens, type Tokenizer } from "../data/index.js";
import { ggufTokenizer } from "../data/tokenizer.js";
import { exists, readJson } from "../io/files.js";
import { configPath, isGgufFile, isGgufName } from "../io/gguf/files.js";
import type { GgufMetadata } from "../io/gguf/types.js";
import { openWeights, type OpenWeights, type WeightIndex } from "../io/huggingface.js";
import { parseHubName } from "../io/hub_name.js";
import { asObject, show } from "../io/json.js";
import type { StreamedWeights } from "../io/streamed_weights.js";
import type { Module } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, FileError, FormatError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { QUANTISED, type QuantizedType } from "../tensor/blocks.js";
import { allOrNothing } from "../tensor/scope.js";
import { readLabels } from "./parts/classification.js";
import type { DecoderConfig } from "./parts/decoder.js";
import type { Family, FamilyConfig, Head, HeadOf } from "./parts/family.js";
import { areEqual, areStreamsEqual, feed, feedStreams } from "./feed.js";
import { openGgufWeights } from "./gguf_weights.js";
import type { OnProgress } from "./load_progress.js";
import { Weights } from "./weights.js";

/** A model and what its folder says. */
export interface LoadedModel<M, Config, H extends Head = "causal-lm"> {
  /** What the model gives. */
  readonly head: H;
  /** In training mode, all parameters trainable but those that LoRA freezes. */
  model: M;
  /** model.config: config.json's, but for tieWordEmbeddings, which says what the weights are. */
  config: Config;
  /** The folder. */
  path: string;
  /** The folder's tokenizer, made when it is first asked for. Errors as `data.loadTokenizer`. */
  readonly tokenizer: Tokenizer;
  /**
   * The tokens that end a text, from generation_config.json or config.json, read when first asked for. Errors as
   * `data.specialTokens`.
   */
  readonly eosTokenIds: readonly number[];
}

/** What is asked of a folder. */
export interface Wanted<H extends Head> {
  /** Under which head; undefined: what config.json says. */
  head?: H | undefined;
  /** Of a classifier; undefined: what config.json says. */
  numLabels?: number | undefined;
  /** What matrices are to become; undefined: they stay as they are. */
  quantize?: QuantizedType | undefined;
  onProgress?: OnProgress | undefined;
}

/**
 * The model of a folder, or of a GGUF file, whose header is read once for all.
 * @param where what it is loaded by, for errors
 * @param familyFor the family that it is of, by its config.json, or what a GGUF file at `path` says in its place
 * @throws FileError, FormatError naming what is missing, unknown or of another shape than config.json says;
 * ArgumentError for a number of classes where there are none, or for `quantize` where nothing is quantised by it
 */
export function loadFamily<Config extends FamilyConfig, M extends { readonly config: unknown }, H extends Head>(
  where: string,
  path: string,
  familyFor: (json: unknown, path: string) => Family<Config>,
  wanted: Wanted<H>,
): LoadedModel<M, M["config"], H> {
  const gguf = typeof path === "string" && isGgufFile(path) ? openGgufWeights(path) : undefined;
  let files: OpenWeights | undefined = gguf;
  try {
    const json = gguf ? gguf.json : readConfig(where, path);
    const family = familyFor(json, configPath(path));
    files ??= openWeights(path);
    const { head, config, weights, twins } = fit(family, path, json, wanted, files);
    if (twins && areEqual(files, ...twins)) config.tieWordEmbeddings = true;
    const model = allOrNothing(() => {
      const made = weights.make(config);
      if (engine().isRehearsal) return made;
      feed(path, files!, weights.destinations(made), wanted.onProgress);
      weights.drawMissing(made, config);
      return made;
    });
    return loaded<M, H>(head, model, config, path, gguf?.gguf);
  } finally {
    files?.close();
  }
}

/** As `loadFamily`, from files that come as streams, which are closed then. @internal */
export async function loadStreamedFamily<
  Config extends FamilyConfig,
  M extends { readonly config: unknown },
  H extends Head,
>(
  family: Family<Config>,
  path: string,
  json: unknown,
  wanted: Wanted<H>,
  files: StreamedWeights & { readonly gguf?: GgufMetadata | undefined },
): Promise<LoadedModel<M, M["config"], H>> {
  try {
    const { head, config, weights, twins } = fit(family, path, json, wanted, files);
    if (twins && (await areStreamsEqual(files, ...twins))) config.tieWordEmbeddings = true;
    const model = allOrNothing(() => weights.make(config));
    try {
      await feedStreams(path, files, weights.destinations(model), wanted.onProgress);
      weights.drawMissing(model, config);
    } catch (error) {
      model.dispose();
      throw error;
    }
    return loaded<M, H>(head, model, config, path, files.gguf);
  } finally {
    await files.close();
  }
}

/**
 * Compares config.json and the headers of the weights, before anything large is read or made.
 * @returns `twins` if table and head are both stored, and are one if they are equal
 */
function fit<Config extends FamilyConfig>(
  family: Family<Config>,
  path: string,
  json: unknown,
  { head: asked, numLabels, quantize }: Wanted<Head>,
  index: WeightIndex,
) {
  const name = index.config ?? `${path}/config.json`;
  if (quantize !== undefined && !QUANTISED.includes(quantize))
    throw new ArgumentError(`loadModel: quantize must be one of ${QUANTISED.join(", ")}; got ${shown(quantize)}.`);
  const read = family.parseConfig(json, name) as Config & Partial<Text>;
  const own = headOfFolder(family, json);
  const head = checkedHead(family, asked ?? own, json, name);
  const weights = new Weights(path, family, head, head !== own, index);
  const tied = read.tieWordEmbeddings;
  const config = {
    ...labelsOf(head, json, name, numLabels),
    ...read,
    ...(tied === undefined ? {} : { tieWordEmbeddings: weights.tie(tied) }),
  };
  weights.check(config);
  const dtype = weights.storedAs(quantize);
  if (dtype !== "float32") config.dtype = dtype;
  return { head, config, weights, twins: tied ? weights.twins() : undefined };
}

function loaded<M extends { readonly config: unknown }, H extends Head>(
  head: Head,
  model: Module,
  config: Partial<Text>,
  path: string,
  gguf: GgufMetadata | undefined,
): LoadedModel<M, M["config"], H> {
  /** What the tokenizer is made of, until it is. */
  let header = gguf;
  let tokenizer: Tokenizer | undefined;
  let eosTokenIds: readonly number[] | undefined;
  return {
    head: head as H,
    model: model as unknown as M,
    config: config as M["config"],
    path,
    get tokenizer() {
      tokenizer ??= header ? ggufTokenizer(header, path) : loadTokenizer(path);
      header = undefined;
      return tokenizer;
    },
    get eosTokenIds() {
      const { bosTokenId = null, eosTokenId = null, vocabSize = 0 } = config;
      return (eosTokenIds ??= specialTokens(path, { bosTokenId, eosTokenId, vocabSize }).eosTokenIds);
    },
  };
}

/** What configurations of models of texts say, and some of others. */
type Text = Pick<DecoderConfig, "tieWordEmbeddings" | "bosTokenId" | "eosTokenId" | "vocabSize">;

/** What a classifier's configuration says beside. */
function labelsOf(head: Head, json: unknown, name: string, numLabels: number | undefined): object {
  if (head.endsWith("-classification")) return readLabels(json, name, numLabels);
  if (numLabels === undefined) return {};
  throw new ArgumentError(
    `loadModel: numLabels is ${shown(numLabels)}, but the model is no classifier; say which one it is to be by head.`,
  );
}

/** The head that config.json's architectures name; undefined: none that the family has. */
function headOfFolder(family: Family<FamilyConfig>, json: unknown): Head | undefined {
  const heads = Object.entries(family.heads) as [Head, HeadOf<FamilyConfig>][];
  const names = asObject(json)?.["architectures"];
  if (names == null) return heads[0]![0];
  return heads.find(([, { architectures }]) => architectures.includes((names as unknown[])[0] as string))?.[0];
}

/** @throws ArgumentError for what is no head of the family; FormatError where it must be said which */
function checkedHead(family: Family<FamilyConfig>, head: Head | undefined, json: unknown, path: string): Head {
  if (head !== undefined && Object.hasOwn(family.heads, head)) return head;
  const names = Object.keys(family.heads).map(show).join(", ");
  if (head !== undefined)
    throw new ArgumentError(`loadModel: head must be one of ${names} for ${family.modelType}; got ${shown(head)}.`);
  const known = Object.values(family.heads).flatMap(({ architectures }) => architectures.map(show));
  throw new FormatError(
    `${path}: architectures is ${show(asObject(json)!["architectures"])}; supported are ${known.join(", ")}. ` +
      `Say what to take of it: loadModel(directory, { head }) with one of ${names}.`,
  );
}

/** config.json of a folder, or what a GGUF file says in its place; what is neither here is told apart. */
export function readConfig(where: string, directory: string): unknown {
  if (typeof directory !== "string")
    throw new ArgumentError(`${where}: directory must be the path of a folder; got ${show(directory)}.`);
  if (isGgufFile(directory)) {
    const files = openGgufWeights(directory);
    files.close();
    return files.json;
  }
  const path = `${directory}/config.json`;
  if (/^https?:/i.test(directory)) {
    throw new ArgumentError(
      `${where}: ${directory} is a web address, and ${where} reads a folder on disk or in io.memoryFiles: use ` +
        `await models.fetchModel(url).`,
    );
  }
  if (isGgufName(directory) && !exists(directory) && !exists(path))
    throw new FileError(`cannot read ${directory}: there is no such file; check the path.`);
  if (!exists(path) && exists(`${directory}/adapter_config.json`)) {
    throw new FileError(
      `cannot read ${path}: the folder holds a PEFT adapter, not a model. Load its base model and then the ` +
        `adapter: peft.LoraModel.fromPretrained(model, ${show(directory)}).`,
    );
  }
  if (!directory.startsWith("memory:") && !exists(path)) {
    if (/\.(safetensors|bin|pt|json)$/.test(directory) && exists(directory)) {
      throw new FileError(
        `cannot read ${path}: ${directory} is a file; name the folder that holds config.json and model.safetensors.`,
      );
    }
    if (exists(directory))
      throw new FileError(
        `cannot read ${path}: it does not exist; name a folder that holds config.json, model.safetensors and ` +
          `tokenizer.json, or a GGUF file itself.`,
      );
    if (parseHubName(directory)) {
      throw new FileError(
        `cannot read ${path}: it does not exist. ${where} reads a folder on disk; a model on the Hugging Face hub is ` +
          `loaded by await models.fetchModel(${show(directory)}), or downloaded into one by npx wasm-lora inspect ` +
          `${directory}.`,
      );
    }
  }
  return readJson(path);
}

/** Embeddings of texts: an encoder, a pooling and a length of 1, as sentence-transformers has them in a folder. */
import { crossEntropy, linear, scale as scaled } from "../autograd/ops/index.js";
import { padTexts, type PaddedTexts, type Tokenizer } from "../data/index.js";
import { exists, readJson } from "../io/files.js";
import { asObject, show } from "../io/json.js";
import { ArgumentError, FormatError, ShapeError, StateError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { checkFloat, checkInteger, checkTensor, shown } from "../tensor/check.js";
import { graphScope } from "../tensor/scope.js";
import { Tensor } from "../tensor/tensor.js";
import type { Encoder, EncoderOptions } from "./parts/encoder.js";
import { loadModel } from "./families.js";
import { firstTokens, meanOfTokens, normalize } from "./parts/pooling.js";

/** How one vector is made of those of a text's tokens: their mean, or the first. */
export type Pooling = "mean" | "cls";

/** Options of `SentenceEncoder`. */
export interface SentenceEncoderOptions {
  /** Default "mean". */
  pooling?: Pooling | undefined;
  /** Whether embeddings are divided by their length. Default true. */
  normalize?: boolean | undefined;
  /** Tokens of a text that `encode` takes, special ones included. Default: as many as the model takes. */
  maxSeqLength?: number | undefined;
  /** For `encode`. */
  tokenizer?: Tokenizer | undefined;
}

/**
 * What makes embeddings of texts. It holds the encoder as `model`; adapters go onto that: then they are
 * sentence-transformers' own, and what the SentenceEncoder computes has them in it.
 *
 * Source: Reimers & Gurevych 2019; sentence-transformers, models/Pooling.py and Normalize.py.
 * @throws ArgumentError for options out of range
 *
 * @example
 * const encoder = models.loadSentenceEncoder("minilm");
 * const adapted = peft.getLoraModel(encoder.model, { targetModules: ["query", "value"] });
 * const questions = encoder.encode(["who wrote it", "when"]), answers = encoder.encode(["a poet", "in May"]);
 * models.multipleNegativesRankingLoss(questions, answers).backward();
 * adapted.savePretrained("memory:my-minilm");
 */
export class SentenceEncoder {
  /** @internal */ static readonly className: string = "SentenceEncoder";
  /** Mean of the tokens, or the first. */
  readonly pooling: Pooling;
  /** Whether embeddings have length 1. */
  readonly normalize: boolean;
  /** Tokens of a text that `encode` takes. */
  readonly maxSeqLength: number;
  readonly #tokenizer: () => Tokenizer | undefined;

  constructor(
    /** The encoder without a head. */
    readonly model: Encoder,
    options: SentenceEncoderOptions = {},
  ) {
    const where = "SentenceEncoder";
    checkOptions(where, options, ["pooling", "normalize", "maxSeqLength", "tokenizer"]);
    const most = longestOf(model);
    const { pooling = "mean", normalize = true, maxSeqLength = most } = options;
    if (!["mean", "cls"].includes(pooling))
      throw new ArgumentError(`${where}: pooling must be "mean" or "cls"; got ${shown(pooling)}.`);
    checkInteger(where, "maxSeqLength", maxSeqLength, 1, most);
    this.pooling = pooling;
    this.normalize = normalize;
    this.maxSeqLength = maxSeqLength;
    // It is read from its file when it is first asked for.
    this.#tokenizer = () => options.tokenizer;
  }

  /**
   * @param ids int32 [batch, steps], one text a row
   * @returns an embedding of each text, [batch, hiddenSize]
   * @throws ArgumentError for a row of attentionMask without a text, or with several; and as the encoder's forward
   */
  forward(ids: Tensor, options: EncoderOptions = {}): Tensor {
    return graphScope(() => {
      const x = this.model.forward(ids, options);
      const pool = this.pooling === "mean" ? meanOfTokens : firstTokens;
      const y = pool("SentenceEncoder.forward", x, options.attentionMask);
      return this.normalize ? normalize(y) : y;
    });
  }

  /** The batch that `encode` makes of texts. @throws StateError without a tokenizer; ArgumentError for no texts */
  tokenize(texts: readonly string[]): PaddedTexts {
    const tokenizer = this.#tokenizer();
    if (!tokenizer)
      throw new StateError(
        `SentenceEncoder.tokenize: there is no tokenizer; give one in the options, or pass token ids to forward().`,
      );
    if (!Array.isArray(texts))
      throw new ArgumentError(`SentenceEncoder.tokenize: texts must be a list of strings; got ${shown(texts)}.`);
    return padTexts(
      texts.map((text: string) => this.#cut(tokenizer, text)),
      { padTokenId: this.model.config.padTokenId ?? 0 },
    );
  }

  /** A text's tokens; of one that is too long the text is cut, not what the tokenizer puts around it. */
  #cut(tokenizer: Tokenizer, text: string): number[] {
    const ids = tokenizer.encode(text);
    const excess = ids.length - this.maxSeqLength;
    if (excess <= 0) return ids;
    const bare = tokenizer.encode(text, { addSpecialTokens: false });
    let from = 0;
    while (from + bare.length < ids.length && bare.some((id, i) => ids[from + i] !== id)) from++;
    const end = from + bare.length;
    return [...ids.slice(0, Math.max(from, end - excess)), ...ids.slice(end)];
  }

  /**
   * An embedding of each text, [texts.length, hiddenSize], with its graph unless `noGrad` is running. One batch: give
   * thousands of texts in parts. An embedding's bits depend on nothing but its text.
   * @throws as tokenize and forward
   */
  encode(texts: readonly string[]): Tensor {
    const { ids, attentionMask } = this.tokenize(texts);
    return this.forward(ids, { attentionMask });
  }
}

/**
 * How well each anchor finds its own among all candidates: the mean cross-entropy of `scale` times the cosines of
 * anchor i with every candidate, whose i-th is the right one; of shape []. More candidates than anchors are wrong
 * answers.
 *
 * Source: Henderson et al. 2017; sentence-transformers, MultipleNegativesRankingLoss.
 * @param anchors [batch, size]
 * @param candidates [at least batch, size]
 * @param scale default 20
 * @throws ShapeError, DTypeError, ArgumentError
 *
 * @example
 * const a = tensor([[1, 0], [0, 1]]);
 * console.log(models.multipleNegativesRankingLoss(a, a).item() < 1e-6); // true
 */
export function multipleNegativesRankingLoss(anchors: Tensor, candidates: Tensor, scale = 20): Tensor {
  const where = "multipleNegativesRankingLoss";
  checkTensor(where, "anchors", anchors, "float32", [null, null]);
  const [batch, size] = anchors.shape as [number, number];
  checkTensor(where, "candidates", candidates, "float32", [null, size]);
  checkFloat(where, "scale", scale, 0);
  if (candidates.shape[0]! < batch)
    throw new ShapeError(
      `${where}: candidates has shape [${candidates.shape}]; expected one for each of the ${batch} anchors at least.`,
    );
  return graphScope(() => {
    const own = new Tensor([batch], "int32");
    own.set(Array.from({ length: batch }, (_, i) => i));
    return crossEntropy(scaled(linear(normalize(anchors), normalize(candidates)), scale), own);
  });
}

/** What modules.json may list, by the last word of its type. */
const PARTS = ["Transformer", "Pooling", "Normalize"];
const MODES: Readonly<Record<string, Pooling>> = { pooling_mode_mean_tokens: "mean", pooling_mode_cls_token: "cls" };

/**
 * The sentence encoder of a folder of sentence-transformers: modules.json names an encoder, a pooling (mean of the
 * tokens, or the first) and maybe a division by the length. A folder without modules.json is an encoder alone, of which
 * the mean is taken, as sentence-transformers does.
 *
 * Source: sentence-transformers, SentenceTransformer(folder).
 * @throws FileError, FormatError naming what is missing or not supported
 *
 * @example
 * const encoder = models.loadSentenceEncoder("minilm");
 * const embeddings = noGrad(() => encoder.encode(["one text", "and another"])); // [2, 40]
 */
export function loadSentenceEncoder(directory: string): SentenceEncoder {
  const path = `${directory}/modules.json`;
  if (!exists(path)) return encoderOf(directory, { pooling: "mean", normalize: false });
  const listed: unknown = readJson(path);
  if (!Array.isArray(listed)) throw new FormatError(`${path}: expected a list of modules.`);
  const parts = listed.map((entry, i) => {
    const { type, path: place } = asObject(entry) ?? {};
    const kind = typeof type === "string" ? type.slice(type.lastIndexOf(".") + 1) : "";
    if (!PARTS.includes(kind) || typeof place !== "string" || !isBelow(place))
      throw new FormatError(
        `${path}: module ${i} is ${show(type)} in ${show(place)}; supported are ${PARTS.map(show).join(", ")}.`,
      );
    return { kind, folder: place === "" ? directory : `${directory}/${place}` };
  });
  const kinds = parts.map(({ kind }) => kind).join(", ");
  if (!/^Transformer, Pooling(, Normalize)?$/.test(kinds))
    throw new FormatError(`${path}: the modules are ${kinds}; expected Transformer, Pooling and maybe Normalize.`);
  refusePrompt(`${directory}/config_sentence_transformers.json`);
  return encoderOf(parts[0]!.folder, {
    pooling: readPooling(`${parts[1]!.folder}/config.json`),
    normalize: parts.length === 3,
  });
}

/** Whether a module's folder is this one, or below it by plain names. */
function isBelow(place: string): boolean {
  return place === "" || place.split("/").every((name) => /^(?!\.\.?$)[\w.-]+$/.test(name));
}

/** Tokens of the longest text that a model takes. */
function longestOf(model: Encoder): number {
  return model.longestText ?? model.config.maxPositionEmbeddings;
}

function encoderOf(folder: string, options: { pooling: Pooling; normalize: boolean }): SentenceEncoder {
  const path = `${folder}/sentence_bert_config.json`;
  const settings = exists(path) ? (asObject(readJson(path)) ?? {}) : {};
  if (settings["do_lower_case"] === true)
    throw new FormatError(
      `${path}: do_lower_case is true; only false is supported: the tokenizer knows whether it lowers.`,
    );
  const given = settings["max_seq_length"] ?? null;
  if (given !== null && !(Number.isSafeInteger(given) && (given as number) > 0))
    throw new FormatError(`${path}: max_seq_length is ${show(given)}; expected a positive integer.`);
  const loaded = loadModel(folder, { head: "none" });
  const most = longestOf(loaded.model);
  return new SentenceEncoder(loaded.model, {
    ...options,
    maxSeqLength: Math.min((given as number | null) ?? most, most),
    get tokenizer() {
      return loaded.tokenizer;
    },
  });
}

/** The pooling of 1_Pooling/config.json. @throws FormatError for another than mean or cls, or several */
function readPooling(path: string): Pooling {
  const config = asObject(readJson(path)) ?? {};
  const named: unknown = config["pooling_mode"];
  if (named === "mean" || named === "cls") return named;
  const modes = Object.keys(config).filter((key) => key.startsWith("pooling_mode") && config[key] === true);
  const pooling = modes.length === 1 ? MODES[modes[0]!] : undefined;
  if (named !== undefined || pooling === undefined)
    throw new FormatError(
      `${path}: pooling is ${named === undefined ? modes.join(", ") || "none" : show(named)}; supported are ` +
        `${Object.keys(MODES).join(" and ")}.`,
    );
  return pooling;
}

/** @throws FormatError if texts get a prompt that nobody named */
function refusePrompt(path: string): void {
  const prompt = exists(path) ? (asObject(readJson(path))?.["default_prompt_name"] ?? null) : null;
  if (prompt !== null)
    throw new FormatError(
      `${path}: default_prompt_name is ${show(prompt)}; only null is supported: put it before each text yourself.`,
    );
}

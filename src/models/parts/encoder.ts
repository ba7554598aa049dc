/** What the encoders of texts share: which tokens are there, where they stand, who sees whom. */
import { attention, attentionRanges, gelu, geluTanh, relu, reshape, silu, tanh } from "../../autograd/ops/index.js";
import * as init from "../../nn/init.js";
import { Embedding, Linear } from "../../nn/layers.js";
import type { Module } from "../../nn/module.js";
import { isInitSkipped } from "../../nn/skip_init.js";
import type { configReader } from "../../io/config_reader.js";
import { show } from "../../io/json.js";
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import { checkOptions } from "../../runtime/options.js";
import { checkInteger, checkTensor, shown } from "../../tensor/check.js";
import { Tensor } from "../../tensor/tensor.js";
import { checkKeys, type Sizes } from "./config.js";

/** What an encoder takes beside the tokens. */
export interface EncoderOptions {
  /**
   * int32 [batch, steps]: 0 padding, 1 a token of the text; of several texts in a row each has a number of its own.
   * Default: there is no padding.
   */
  attentionMask?: Tensor | undefined;
  /** int32 [batch, steps]. Default: counted from the start of each text, as the model does. */
  positionIds?: Tensor | undefined;
  /** int32 [batch, steps]: which text of a pair a token belongs to, in models that have such a table. Default: 0. */
  tokenTypeIds?: Tensor | undefined;
}

/** A model without a head. */
export interface Encoder extends Module {
  /** What config.json says; at least this. */
  readonly config: {
    /** transformers' model_type. */
    readonly modelType: string;
    /** Width of a token's vector. */
    hiddenSize: number;
    /** Positions that there are: of most models the tokens of the longest text. */
    maxPositionEmbeddings: number;
    /** Token that fills up shorter texts, in encoders. */
    padTokenId?: number | undefined;
  };
  /** Tokens of the longest text. Left out: config.maxPositionEmbeddings. */
  readonly longestText?: number | undefined;
  /** ids int32 [batch, steps] -> the last layer's vectors, [batch, steps, hiddenSize]. */
  forward(ids: Tensor, options?: EncoderOptions): Tensor;
}

/** Activations by transformers' names. */
export const ACTIVATIONS: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  gelu,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  relu,
  silu,
  swish: silu,
  tanh,
};

/** Which keys a configuration has, and of what kind they are. */
export interface ConfigKeys extends Sizes {
  /** transformers' names of activations. */
  readonly activations: readonly string[];
  /** Others, which the model checks itself. */
  readonly others?: readonly string[] | undefined;
}

/**
 * Checks the configuration of an encoder that a program writes itself, a classifier's too.
 * @throws ArgumentError for a key that is missing, unknown or out of range
 */
export function checkEncoderConfig(where: string, config: unknown, keys: ConfigKeys): void {
  const { counts, numbers, activations, others = [] } = keys;
  const needed = [...counts, ...numbers, ...activations, ...others];
  checkKeys(where, config, keys, needed, ["padTokenId", "id2label", "problemType"]);
  const values = config as Record<string, number>;
  for (const key of activations)
    if (!Object.hasOwn(ACTIVATIONS, values[key]!))
      throw new ArgumentError(
        `${where}: ${key} must be one of ${Object.keys(ACTIVATIONS).join(", ")}; got ${shown(values[key])}.`,
      );
  const { hiddenSize, numAttentionHeads, vocabSize } = values as Record<string, number>;
  if (hiddenSize! % numAttentionHeads! !== 0)
    throw new ArgumentError(
      `${where}: hiddenSize must be a multiple of numAttentionHeads = ${numAttentionHeads}; got ${hiddenSize}.`,
    );
  if (vocabSize !== undefined) checkInteger(where, "padTokenId", values["padTokenId"]!, 0, vocabSize - 1);
}

/** The activation that a key names, "gelu" where it says nothing. @throws FormatError for another @internal */
export function readActivation(
  { config, fail }: ReturnType<typeof configReader>,
  key: string,
  fallback = "gelu",
): string {
  const name: unknown = config[key] ?? fallback;
  return typeof name === "string" && Object.hasOwn(ACTIVATIONS, name)
    ? name
    : fail(`${key} is ${show(name)}; supported are ${Object.keys(ACTIVATIONS).map(show).join(", ")}`);
}

/**
 * @param known options of this model
 * @throws ShapeError, DTypeError; ArgumentError for an option that the model does not have
 */
export function checkText(where: string, ids: Tensor, options: EncoderOptions, known: readonly string[]): void {
  checkTensor(where, "ids", ids, "int32", [null, null]);
  checkOptions(where, options, known);
  for (const name of known) {
    const t = options[name as keyof EncoderOptions];
    if (t !== undefined) checkTensor(where, name, t, "int32", ids.shape);
  }
}

/**
 * Positions of tokens, int32 of ids' shape: those that are given, or `first`, `first` + 1, ... from the start of each
 * text of a row.
 * @param skipped a token that has no position of its own: it stands at `first` - 1, and is not counted (RoBERTa)
 * @param count number of positions there are
 * @throws ShapeError where there are fewer than are needed
 */
export function positionsOf(
  where: string,
  ids: Tensor,
  { attentionMask, positionIds }: EncoderOptions,
  count: number,
  first = 0,
  skipped: number | null = null,
): Tensor {
  if (positionIds) {
    const needed = positionIds.indices.reduce((a, b) => Math.max(a, b + 1), 1);
    if (needed > count)
      throw new ShapeError(`${where}: positionIds go up to ${needed - 1}; the model has 0 .. ${count - 1}.`);
    return positionIds;
  }
  const steps = ids.shape[1]!;
  const positions = new Tensor(ids.shape, "int32");
  const to = positions.indices;
  const tokens = ids.indices;
  const texts = attentionMask?.indices;
  let last = -1;
  let next = 0;
  let text = 1;
  for (let i = 0; i < to.length; i++) {
    const here = texts ? texts[i]! : 1;
    if (i % steps === 0 || here !== text) next = 0;
    text = here;
    if (here === 0 || tokens[i] === skipped) to[i] = skipped === null ? 0 : first - 1;
    else {
      last = Math.max(last, next);
      to[i] = first + next++;
    }
  }
  if (first + last >= count)
    throw new ShapeError(
      `${where}: positions up to ${last + 1} are needed; the model has ${count - first}. Shorten the texts.`,
    );
  return positions;
}

/** A tensor of zeros of ids' shape: the first of a table's rows, for each token. */
export function zerosLike(ids: Tensor): Tensor {
  const zeros = new Tensor(ids.shape, "int32");
  zeros.indices.fill(0);
  return zeros;
}

/** Which tokens see each other: all of a text, or those at most `window` away. */
export function rangesOf(ids: Tensor, attentionMask: Tensor | undefined, window: number | null = null): Tensor {
  const [batch, queries] = ids.shape as [number, number];
  return attentionRanges({ batch, queries, causal: false, window, attentionMask });
}

/** Attention over q, k, v of [batch, steps, size], as `heads` heads each. */
export function attend(q: Tensor, k: Tensor, v: Tensor, heads: number, ranges: Tensor): Tensor {
  const [batch, steps, size] = q.shape as [number, number, number];
  const [a, b, c] = [q, k, v].map((t) => reshape(t, [batch, steps, heads, size / heads])) as [Tensor, Tensor, Tensor];
  return reshape(attention(a, b, c, { ranges }), [batch, steps, size]);
}

/**
 * transformers' initial weights: matrices and tables N(0, std²), biases zero, the row of the padding token too.
 * Source: PreTrainedModel._init_weights.
 */
export function initWeights(module: Module, std: number): void {
  if (isInitSkipped()) return;
  for (const [, part] of module.namedModules()) {
    if (part instanceof Linear) {
      init.normal_(part.weight, 0, std);
      if (part.bias) init.zeros_(part.bias);
    } else if (part instanceof Embedding) {
      init.normal_(part.weight, 0, std);
      const { paddingIdx, embeddingDim } = part;
      if (paddingIdx !== null) part.weight.data.fill(0, paddingIdx * embeddingDim, (paddingIdx + 1) * embeddingDim);
    }
  }
}

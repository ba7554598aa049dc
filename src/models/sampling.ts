/**
 * From a row of logits to the next token: repetition penalty, temperature, top-k, top-p, min-p, in transformers' order
 * (generation/logits_process.py), then a draw. Of equal logits the one with the lower id counts as the larger.
 *
 *   penalty     l < 0 ? l * penalty : l / penalty, once for each id of the prompt and of the text so far
 *   top-k       the k largest, and what equals the least of them
 *   top-p       of what is left, the fewest of the largest whose probabilities add up to p or more
 *   min-p       what has at least minP times the probability of the likeliest
 *
 * Each of the three leaves the largest alone, so what is kept is the beginning of the ids, largest first. The draw
 * walks the kept ids in their order until their probabilities add up to more than a uniform number; sums are float64.
 */
import { scale, softmax } from "../autograd/ops/index.js";
import { fillUniform, Generator } from "../random/generator.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import { checkFloat, checkInteger, checkNumber, shown } from "../tensor/check.js";
import { type Tensor, zeros } from "../tensor/tensor.js";

/** How tokens are drawn. */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the likeliest token (greedy). Default 0.8. */
  temperature?: number | undefined;
  /** Draws from the so many likeliest tokens only; 0: from all. Default 0. */
  topK?: number | undefined;
  /** Draws from the fewest likeliest tokens whose probabilities add up to at least this. Default 1: from all. */
  topP?: number | undefined;
  /** Draws from tokens with at least this share of the likeliest one's probability. Default 0: from all. */
  minP?: number | undefined;
  /** Above 1 makes tokens of the prompt and of the text so far less likely, below 1 more. Default 1. */
  repetitionPenalty?: number | undefined;
}

/** @internal */
export const SAMPLING_OPTIONS: readonly (keyof SamplingOptions)[] = [
  "temperature",
  "topK",
  "topP",
  "minP",
  "repetitionPenalty",
];

/** Options that were checked, with their defaults. */
export interface Sampling {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  /** As float32, which the logits are divided by. */
  readonly penalty: number;
}

const MAX_FLOAT32 = 3.4028234663852886e38;

/** @throws ArgumentError for an option out of range @internal */
export function checkedSampling(where: string, options: SamplingOptions): Sampling {
  const { temperature = 0.8, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  checkNumber(where, "temperature", temperature, 0);
  checkInteger(where, "topK", topK, 0);
  checkNumber(where, "topP", topP, 0, 1);
  checkNumber(where, "minP", minP, 0, 1);
  checkFloat(where, "repetitionPenalty", repetitionPenalty, 0);
  const penalty = Math.fround(repetitionPenalty);
  if (penalty === 0)
    throw new ArgumentError(`${where}: repetitionPenalty must be above 0; got ${shown(repetitionPenalty)}.`);
  return { temperature, topK, topP, minP, penalty };
}

/** Draws the tokens of one text. @internal */
export class Sampler {
  /** @internal */ static readonly className: string = "Sampler";
  readonly #where: string;
  readonly #sampling: Sampling;
  readonly #random: Generator;
  /** Ids of the prompt and the text, for the penalty. */
  readonly #seen: Set<number>;
  #count = 0;

  /** @param prompt its ids */
  constructor(where: string, sampling: Sampling, seed: number, prompt: Int32Array) {
    this.#where = where;
    this.#sampling = sampling;
    this.#random = new Generator(seed);
    this.#seen = new Set(sampling.penalty === 1 ? [] : prompt);
  }

  /**
   * The next token.
   * @param logits [..., vocabSize], of one row; the penalty changes them
   * @throws StateError if one is not finite
   */
  draw(logits: Tensor): number {
    const token = this.#choose(logits);
    if (this.#sampling.penalty !== 1) this.#seen.add(token);
    this.#count++;
    return token;
  }

  #choose(logits: Tensor): number {
    const { temperature } = this.#sampling;
    const values = logits.data;
    const largest = Math.max(this.#checkedLargest(values), this.#penalise(values));
    // A temperature so small that the logits leave float32 leaves the likeliest token alone.
    if (temperature === 0 || Math.max(1, largest) / temperature > MAX_FLOAT32) return argMax(values);
    const scaled = scale(logits, 1 / temperature);
    const u = this.#uniform();
    const all = softmax(scaled).data;
    const kept = keptIds(scaled.data, all, this.#sampling);
    if (!kept) return pick(all, u) ?? argMax(all);
    const ids = kept.slice().sort((a, b) => a - b);
    const probabilities = ids.map((id) => all[id]!);
    const place = pick(probabilities, u * sumOf(probabilities));
    return place === undefined ? kept[0]! : ids[place]!;
  }

  /** The largest absolute value. @throws StateError if one is not finite */
  #checkedLargest(logits: Float32Array): number {
    let largest = 0;
    for (let id = 0; id < logits.length; id++) {
      const value = logits[id]!;
      if (!Number.isFinite(value)) {
        throw new StateError(
          `${this.#where}: the logits of new token ${this.#count + 1} are not finite (${value} for id ${id}), so ` +
            "none can be drawn: weights of the model, or of an adapter at work, are not finite or too large.",
        );
      }
      largest = Math.max(largest, Math.abs(value));
    }
    return largest;
  }

  /** Applies the penalty; the largest absolute value of what it changed. */
  #penalise(logits: Float32Array): number {
    const { penalty } = this.#sampling;
    let largest = 0;
    for (const id of this.#seen) {
      const value = logits[id]!;
      const penalised = Math.max(-MAX_FLOAT32, Math.min(MAX_FLOAT32, value < 0 ? value * penalty : value / penalty));
      logits[id] = penalised;
      largest = Math.max(largest, Math.abs(penalised));
    }
    return largest;
  }

  #uniform(): number {
    const u = zeros([1]);
    fillUniform(this.#random, u.address, 1, 0, 1);
    return u.data[0]!;
  }
}

/** The first place up to which values add up to more than u. */
function pick(values: ArrayLike<number>, u: number): number | undefined {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    sum += values[i]!;
    if (u < sum) return i;
  }
  return undefined;
}

function sumOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum;
}

function argMax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/**
 * The ids that top-k, top-p and min-p leave, largest first; null: all.
 * @param scores the logits by the temperature
 * @param probabilities their softmax
 * @internal
 */
export function keptIds(
  scores: Float32Array,
  probabilities: Float32Array,
  { topK, topP, minP }: Pick<Sampling, "topK" | "topP" | "minP">,
): number[] | null {
  const cuts = topK > 0 && topK < scores.length;
  if (!cuts && topP === 1 && minP === 0) return null;
  let next = largestFirst(scores);
  let total = 0;
  if (cuts) {
    const top: number[] = [];
    for (let id = next(); id >= 0 && (top.length < topK || scores[id]! >= scores[top[topK - 1]!]!); id = next()) {
      top.push(id);
      total += probabilities[id]!;
    }
    let i = 0;
    next = () => top[i++] ?? -1;
  } else if (topP < 1) total = sumOf(probabilities);
  const kept: number[] = [];
  let sum = 0;
  for (let id = next(); id >= 0; id = next()) {
    const probability = probabilities[id]!;
    const isBeyond = (topP < 1 && sum >= topP * total) || probability < minP * probabilities[kept[0] ?? id]!;
    if (isBeyond && kept.length > 0) break;
    kept.push(id);
    sum += probability;
  }
  return kept;
}

/** How far below the largest value the first ids are sought; then twice as far, and so on. */
const FIRST_REACH = 4;
/** Beyond this all that is left is taken. */
const LAST_REACH = 1000;

/**
 * Hands out ids, the one of the largest value first, of equal ones the lower; then -1. A few of many are wanted mostly:
 * so those near the largest alone are put into a heap, and others when these are used up.
 * @param values finite
 */
function largestFirst(values: Float32Array): () => number {
  const heap = new Int32Array(values.length);
  let size = 0;
  let most = -Infinity;
  for (let id = 0; id < values.length; id++) if (values[id]! > most) most = values[id]!;
  let above = Infinity;
  let reach = FIRST_REACH;
  const isBefore = (a: number, b: number): boolean => values[a]! > values[b]! || (values[a] === values[b] && a < b);
  /** Lets the id at `at` sink until no larger one is below it. */
  const sink = (at: number): void => {
    const id = heap[at]!;
    for (let child = 2 * at + 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, id)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = id;
  };
  const refill = (): void => {
    const below = above;
    above = reach > LAST_REACH ? -Infinity : most - reach;
    reach *= 2;
    for (let id = 0; id < values.length; id++) if (values[id]! >= above && values[id]! < below) heap[size++] = id;
    for (let at = (size >> 1) - 1; at >= 0; at--) sink(at);
  };
  return () => {
    while (size === 0 && above > -Infinity) refill();
    if (size === 0) return -1;
    const first = heap[0]!;
    heap[0] = heap[--size]!;
    if (size > 0) sink(0);
    return first;
  };
}

/** Rotary embeddings as config.json asks for them: the kinds of transformers, in both spellings. */
import { powersOf, ropeTable, type RopeTable } from "../../autograd/ops/rope.js";
import type { configReader } from "../../io/config_reader.js";
import { asObject, show } from "../../io/json.js";
import { engine } from "../../runtime/engine.js";
import { ArgumentError } from "../../runtime/errors.js";
import { checkOptions } from "../../runtime/options.js";
import { checkBoolean, checkNumber, shown } from "../../tensor/check.js";
import { scope } from "../../tensor/scope.js";
import { Tensor, tensor } from "../../tensor/tensor.js";

/** What every kind has. */
interface Rope {
  /** Base of the frequencies (rope_theta). */
  ropeTheta: number;
  /** The part of a head that is rotated, its first values (partial_rotary_factor). Default 1. */
  partialRotaryFactor?: number | undefined;
}

/** How the frequencies of a rotary embedding follow from theta, in transformers' names: rope_parameters. */
export type RopeParameters =
  | (Rope & {
      /** theta^(-2 i / dim). */
      ropeType: "default";
    })
  | (Rope & {
      /** All divided by factor. */
      ropeType: "linear";
      /** How much longer texts may be. */
      factor: number;
    })
  | (Rope & {
      /** A larger theta for a text that is longer than maxPositionEmbeddings. */
      ropeType: "dynamic";
      /** How much longer texts may be. */
      factor: number;
    })
  | (Rope & {
      /** Low frequencies divided by factor, high ones as they are. */
      ropeType: "llama3";
      /** How much longer texts may be. */
      factor: number;
      /** Waves longer than originalMaxPositionEmbeddings / lowFreqFactor are low. */
      lowFreqFactor: number;
      /** Waves shorter than originalMaxPositionEmbeddings / highFreqFactor are high. */
      highFreqFactor: number;
      /** Longest text before the scaling. */
      originalMaxPositionEmbeddings: number;
    })
  | (Rope & {
      /** Low frequencies divided by factor, high ones as they are, with a ramp between; larger scores. */
      ropeType: "yarn";
      /** How much longer texts may be. */
      factor: number;
      /** Longest text before the scaling. */
      originalMaxPositionEmbeddings: number;
      /** Turns within originalMaxPositionEmbeddings from which on a frequency stays. Default 32. */
      betaFast?: number | undefined;
      /** Turns up to which it is divided. Default 1. */
      betaSlow?: number | undefined;
      /** Factor of cos and sin. Default: follows from factor, mscale and mscaleAllDim. */
      attentionFactor?: number | undefined;
      /** With mscaleAllDim: part of attentionFactor's default. */
      mscale?: number | undefined;
      /** With mscale: part of attentionFactor's default. */
      mscaleAllDim?: number | undefined;
      /** Whether the ramp's ends are whole pairs. Default true. */
      truncate?: boolean | undefined;
    })
  | (Rope & {
      /** Each frequency divided by a factor of its own. */
      ropeType: "longrope";
      /** Of texts of up to originalMaxPositionEmbeddings: one for each pair. */
      shortFactor: readonly number[];
      /** Of longer ones. */
      longFactor: readonly number[];
      /** Longest text before the scaling. */
      originalMaxPositionEmbeddings: number;
      /** How much longer texts may be. Default: maxPositionEmbeddings / originalMaxPositionEmbeddings. */
      factor?: number | undefined;
      /** Factor of cos and sin. Default: sqrt(1 + log(factor) / log(originalMaxPositionEmbeddings)). */
      attentionFactor?: number | undefined;
    });

/** Of each kind: the keys that it needs, and those that it may have besides rope_theta and partial_rotary_factor. */
const KEYS: Readonly<
  Record<RopeParameters["ropeType"], readonly [needed: readonly string[], others: readonly string[]]>
> = {
  default: [[], []],
  linear: [["factor"], ["original_max_position_embeddings"]],
  dynamic: [["factor"], ["original_max_position_embeddings"]],
  llama3: [["factor", "low_freq_factor", "high_freq_factor"], ["original_max_position_embeddings"]],
  yarn: [
    ["factor"],
    [
      "original_max_position_embeddings",
      "attention_factor",
      "beta_fast",
      "beta_slow",
      "mscale",
      "mscale_all_dim",
      "truncate",
    ],
  ],
  longrope: [
    ["short_factor", "long_factor"],
    ["original_max_position_embeddings", "factor", "attention_factor"],
  ],
};
/** Spellings of kinds in older files. */
const OLD_KINDS: Readonly<Record<string, string>> = { su: "longrope" };
/** What some files note that changes nothing: whether the weights were trained with the scaling (Yarn-Llama-2). */
const NOTES = ["finetuned"];

/** What `parseRope` must know of the model. */
export interface RopeOf {
  /** Values of a head. */
  headDim: number;
  /** Longest sequence. */
  maxPositionEmbeddings: number;
  /** theta where the file names none. Default 10000. */
  theta?: number | undefined;
  /** Of which layers, in a model whose kinds of layers differ: "full_attention" or "sliding_attention". */
  layerType?: string | undefined;
}

type Json = Record<string, unknown>;

/**
 * The rotary embedding that a config.json asks for: `rope_parameters`, also by type of layer, or `rope_theta` and
 * `rope_scaling`; and what single families called them before: rope_local_base_freq (Gemma 3), global_rope_theta and
 * local_rope_theta (ModernBERT), rotary_emb_base and rotary_pct (GPT-NeoX).
 *
 * Source: transformers 5.17, modeling_rope_utils.py (standardize_rope_params, validate_rope).
 * @throws FormatError naming the key that is missing, unknown or out of range
 */
export function parseRope(
  { config, fail }: Pick<ReturnType<typeof configReader>, "config" | "fail">,
  model: RopeOf,
): RopeParameters {
  const { headDim, maxPositionEmbeddings, layerType } = model;
  const isSliding = layerType === "sliding_attention";
  const object = (json: Json, key: string): Json =>
    json[key] == null ? {} : (asObject(json[key]) ?? fail(`${key} is ${show(json[key])}; expected an object`));
  // rope_scaling has precedence, as in transformers; of either, the layers' own part.
  const place = config["rope_scaling"] == null ? "rope_parameters" : "rope_scaling";
  const all = object(config, place);
  const isNested = "full_attention" in all || "sliding_attention" in all;
  if (isNested && layerType === undefined)
    fail(`${place} differs by type of layer, ${show(Object.keys(all))}; expected one for all layers`);
  let given = isNested ? object(all, layerType!) : all;
  const where = isNested ? `${place}.${layerType}` : place;
  if (isNested && all[layerType!] == null) fail(`${where} is missing`);
  // Before there were two sets, scaling was for the layers without a window only.
  if (!isNested && isSliding && config["rope_local_base_freq"] != null) given = {};

  const number = (json: Json, key: string, from: number, path: string): number => {
    const value = json[key];
    return typeof value === "number" && Number.isFinite(value) && value >= from
      ? value
      : fail(`${path}${key} is ${show(value)}; expected a number of at least ${from}`);
  };
  const thetas = isSliding
    ? ["rope_local_base_freq", "local_rope_theta", "rope_theta"]
    : ["global_rope_theta", "rope_theta", "rotary_emb_base"];
  const thetaKey = thetas.find((key) => config[key] != null);
  const ropeTheta =
    given["rope_theta"] != null
      ? number(given, "rope_theta", 1, `${where}.`)
      : thetaKey !== undefined
        ? number(config, thetaKey, 1, "")
        : (model.theta ?? 10000);

  const partialKey = ["partial_rotary_factor", "rotary_pct"].find((key) => config[key] != null);
  const partialRotaryFactor =
    given["partial_rotary_factor"] != null
      ? number(given, "partial_rotary_factor", 0, `${where}.`)
      : partialKey !== undefined
        ? number(config, partialKey, 0, "")
        : 1;
  const pairs = pairsOf(headDim, partialRotaryFactor);
  if (partialRotaryFactor > 1 || !Number.isInteger(pairs) || pairs < 1) {
    fail(
      `partial_rotary_factor is ${partialRotaryFactor}; of a head's ${headDim} values an even number must be ` +
        `rotated, at least 2`,
    );
  }

  const named = given["rope_type"] ?? given["type"] ?? "default";
  const ropeType = (OLD_KINDS[String(named)] ?? named) as RopeParameters["ropeType"];
  if (typeof named !== "string" || !Object.hasOwn(KEYS, ropeType))
    fail(`${where} has rope_type ${show(named)}; supported are ${Object.keys(KEYS).join(", ")}`);
  const [needed, others] = KEYS[ropeType];
  for (const key of needed)
    if (given[key] == null) fail(`${where} has rope_type ${show(named)}, which needs ${key}; there is none`);
  for (const [key, value] of Object.entries(given)) {
    const isKnown = [
      "rope_type",
      "type",
      "rope_theta",
      "partial_rotary_factor",
      ...needed,
      ...others,
      ...NOTES,
    ].includes(key);
    // A scaling that scales nothing is none.
    if (!isKnown && value !== null && !(key === "factor" && value === 1))
      fail(`${where} has ${key} ${show(value)}, which rope_type ${show(named)} has no use for`);
  }

  const has = (key: string): boolean => given[key] != null;
  const path = `${where}.`;
  const optional = <K extends string>(name: K, key: string, from: number): { [P in K]?: number } =>
    has(key) ? ({ [name]: number(given, key, from, path) } as { [P in K]?: number }) : {};
  const common = { ropeTheta, ...(partialRotaryFactor === 1 ? {} : { partialRotaryFactor }) };
  // Phi-3 says it beside the parameters, and that counts first.
  const originalMaxPositionEmbeddings =
    config["original_max_position_embeddings"] != null
      ? number(config, "original_max_position_embeddings", 1, "")
      : has("original_max_position_embeddings")
        ? number(given, "original_max_position_embeddings", 1, path)
        : maxPositionEmbeddings;
  const factor = needed.includes("factor") ? number(given, "factor", 1, path) : 1;
  switch (ropeType) {
    case "default":
      return { ropeType, ...common };
    case "linear":
    case "dynamic":
      return { ropeType, ...common, factor };
    case "llama3": {
      const lowFreqFactor = number(given, "low_freq_factor", 0, path);
      const highFreqFactor = number(given, "high_freq_factor", 0, path);
      if (highFreqFactor <= lowFreqFactor)
        fail(`${path}high_freq_factor is ${highFreqFactor}; expected more than low_freq_factor = ${lowFreqFactor}`);
      return { ropeType, ...common, factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings };
    }
    case "yarn":
      if (has("truncate") && typeof given["truncate"] !== "boolean")
        fail(`${path}truncate is ${show(given["truncate"])}; expected true or false`);
      return {
        ropeType,
        ...common,
        factor,
        originalMaxPositionEmbeddings,
        ...optional("betaFast", "beta_fast", 0),
        ...optional("betaSlow", "beta_slow", 0),
        ...optional("attentionFactor", "attention_factor", 0),
        ...optional("mscale", "mscale", 0),
        ...optional("mscaleAllDim", "mscale_all_dim", 0),
        ...(has("truncate") ? { truncate: given["truncate"] as boolean } : {}),
      };
    case "longrope": {
      const list = (key: string): number[] => {
        const values = given[key];
        const valid =
          Array.isArray(values) &&
          values.length === pairs &&
          values.every((v) => typeof v === "number" && Number.isFinite(v) && v > 0);
        return valid ? values : fail(`${path}${key} is ${show(values)}; expected a list of ${pairs} positive numbers`);
      };
      return {
        ropeType,
        ...common,
        shortFactor: list("short_factor"),
        longFactor: list("long_factor"),
        originalMaxPositionEmbeddings,
        ...optional("factor", "factor", 1),
        ...optional("attentionFactor", "attention_factor", 0),
      };
    }
  }
}

/**
 * Parameters that a program writes itself: those of a file `parseRope` has checked.
 * @throws ArgumentError for what is no kind, and for a key that is unknown, missing or of another type
 */
function checkRope(parameters: RopeParameters, headDim: number): void {
  const where = "ropeParameters";
  const kind: unknown = (parameters as Partial<RopeParameters> | null | undefined)?.ropeType;
  if (typeof kind !== "string" || !Object.hasOwn(KEYS, kind))
    throw new ArgumentError(`${where}: ropeType must be one of ${Object.keys(KEYS).join(", ")}; got ${shown(kind)}.`);
  const [needed, others] = KEYS[kind as RopeParameters["ropeType"]].map((keys) =>
    keys.map((key) => key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())),
  ) as [string[], string[]];
  checkOptions(where, parameters, ["ropeType", "ropeTheta", "partialRotaryFactor", ...needed, ...others]);
  const values = parameters as unknown as Record<string, unknown>;
  const original = ["llama3", "yarn", "longrope"].includes(kind) ? ["originalMaxPositionEmbeddings"] : [];
  for (const key of ["ropeTheta", ...needed, ...original])
    if (values[key] === undefined) throw new ArgumentError(`${where}: ropeType "${kind}" needs ${key}; there is none.`);
  for (const [key, value] of Object.entries(values)) {
    if (key === "ropeType" || value === undefined) continue;
    if (key === "truncate") checkBoolean(where, key, value);
    else if (key === "shortFactor" || key === "longFactor") {
      const pairs = pairsOf(headDim, parameters.partialRotaryFactor);
      if (!Array.isArray(value) || value.length !== pairs)
        throw new ArgumentError(`${where}: ${key} must be a list of ${pairs} numbers; got ${shown(value)}.`);
      for (const [i, factor] of value.entries()) checkNumber(where, `${key}[${i}]`, factor as number, Number.MIN_VALUE);
    } else if (key === "partialRotaryFactor") checkNumber(where, key, value as number, Number.MIN_VALUE, 1);
    else checkNumber(where, key, value as number, key === "ropeTheta" || key === "factor" ? 1 : 0);
  }
}

/** Pairs of values that are rotated; not an integer where their number is odd. */
export function pairsOf(headDim: number, partialRotaryFactor = 1): number {
  return Math.trunc(headDim * partialRotaryFactor) / 2;
}

/** float32 arithmetic, as torch has it. */
const f32 = Math.fround;

/**
 * The frequencies for texts of `length` steps, and the factor of their cosines and sines.
 *
 * Source: transformers 5.17, modeling_rope_utils.py.
 * @param maximum maxPositionEmbeddings
 */
export function frequenciesOf(
  p: RopeParameters,
  pairs: number,
  maximum: number,
  length: number,
): [Float32Array, factor: number] {
  const { log64, exp64 } = engine().kernels;
  const powers = powersOf(p.ropeTheta, pairs);
  const plain = powers.map((power) => 1 / power);
  switch (p.ropeType) {
    case "default":
      return [plain, 1];
    case "linear":
      return [plain.map((f) => f / p.factor), 1];
    case "dynamic": {
      if (length <= maximum) return [plain, 1];
      const growth = f32(f32(f32(p.factor * length) / maximum) - (p.factor - 1));
      const dim = 2 * pairs;
      const theta = f32(p.ropeTheta * f32(exp64(log64(growth) * (dim / (dim - 2)))));
      return [powersOf(theta, pairs).map((power) => 1 / power), 1];
    }
    case "llama3": {
      const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositionEmbeddings: original } = p;
      return [
        plain.map((f) => {
          const wave = f32(f32(2 * Math.PI) / f);
          if (wave < original / high) return f;
          if (wave > original / low) return f / factor;
          const smooth = f32(f32(f32(original / wave) - low) / (high - low));
          return f32(f32(f32(1 - smooth) * f) / factor) + f32(smooth * f);
        }),
        1,
      ];
    }
    case "yarn": {
      const { factor, originalMaxPositionEmbeddings: original, betaFast = 32, betaSlow = 1, truncate = true } = p;
      const dim = 2 * pairs;
      const pairAt = (turns: number): number =>
        (dim * log64(original / (turns * 2 * Math.PI))) / (2 * log64(p.ropeTheta));
      const [start, end] = [pairAt(betaFast), pairAt(betaSlow)];
      const low = Math.max(truncate ? Math.floor(start) : start, 0);
      let high = Math.min(truncate ? Math.ceil(end) : end, dim - 1);
      if (low === high) high += 0.001;
      const magnitude = (scale: number): number => (factor <= 1 ? 1 : 0.1 * scale * log64(factor) + 1);
      return [
        powers.map((power, j) => {
          const ramp = Math.min(1, Math.max(0, f32(f32(j - low) / f32(high - low))));
          const kept = f32(1 - ramp);
          return f32(f32(1 / f32(factor * power)) * f32(1 - kept)) + f32(f32(1 / power) * kept);
        }),
        p.attentionFactor ??
          (p.mscale && p.mscaleAllDim ? magnitude(p.mscale) / magnitude(p.mscaleAllDim) : magnitude(1)),
      ];
    }
    case "longrope": {
      const { originalMaxPositionEmbeddings: original, factor = maximum / original } = p;
      const divisors = length > original ? p.longFactor : p.shortFactor;
      return [
        powers.map((power, j) => 1 / f32(f32(divisors[j]!) * power)),
        p.attentionFactor ?? (factor <= 1 ? 1 : Math.sqrt(1 + log64(factor) / log64(original))),
      ];
    }
  }
}

/** Positions whose angles are made with a model; more as texts need them. */
const FIRST_POSITIONS = 2048;

/**
 * Hands out tables of a model's angles for the steps in use: what a model is made for may be far more than any text
 * has. Of the kinds dynamic and longrope they depend on how long the text is. Tables that it keeps live until
 * `dispose`: what awaits backward may still read them.
 */
export class RotaryEmbedding {
  /** @internal */ static readonly className: string = "RotaryEmbedding";
  /** By whether they are for long texts, of longrope: the largest last. */
  readonly #tables: [short: RopeTable[], long: RopeTable[]] = [[], []];
  readonly #pairs: number;
  #longest = 0;

  constructor(
    /** The kind and its numbers. */
    readonly parameters: RopeParameters,
    headDim: number,
    /** Longest sequence that the model is made for. */
    readonly maxPositionEmbeddings: number,
  ) {
    checkRope(parameters, headDim);
    this.#pairs = pairsOf(headDim, parameters.partialRotaryFactor);
    // What no memory holds is refused before its angles are computed one by one.
    new Tensor([this.#pairs]).dispose();
    this.table(1);
  }

  /** The angles of at least the positions 0 .. steps - 1, for a text that has so many. */
  table(steps: number): RopeTable {
    const { parameters: p, maxPositionEmbeddings: maximum } = this;
    const isLong = steps > (p.ropeType === "longrope" ? p.originalMaxPositionEmbeddings : maximum);
    if (p.ropeType === "dynamic") {
      // The longest text so far decides, until a text comes that is short, as transformers' dynamic_rope_update has it.
      this.#longest = steps < maximum ? steps : Math.max(steps, this.#longest);
      // Each length has its own: it belongs to the scope of the forward that asks for it.
      if (this.#longest > maximum) return this.#make(this.#longest, this.#longest);
    }
    const tables = this.#tables[p.ropeType === "longrope" && isLong ? 1 : 0];
    const last = tables.at(-1);
    const there = last === undefined || last.cos.disposed ? 0 : last.cos.shape[0]!;
    if (steps <= there) return last!;
    const more = Math.max(steps, 2 * there, FIRST_POSITIONS);
    const table = this.#make(Math.min(more, Math.max(steps, maximum)), steps);
    table.cos.keep();
    table.sin.keep();
    tables.push(table);
    return table;
  }

  #make(positions: number, length: number): RopeTable {
    return scope(() => {
      // A rehearsal has no values, and maybe a config.json whose heads are larger than any memory.
      if (engine().isRehearsal) return ropeTable(positions, new Tensor([this.#pairs]));
      const [frequencies, factor] = frequenciesOf(this.parameters, this.#pairs, this.maxPositionEmbeddings, length);
      return ropeTable(positions, tensor(frequencies), factor);
    });
  }

  /** Frees the tables that it keeps. */
  dispose(): void {
    for (const { cos, sin } of this.#tables.flatMap((tables) => tables.splice(0))) {
      cos.dispose();
      sin.dispose();
    }
  }
}

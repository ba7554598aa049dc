/** Factors of positions' angles, as GGUF files have them in tensors, said in config.json's words. */
import { powersOf } from "../autograd/ops/rope.js";
import { frequenciesOf } from "./parts/rope.js";

/** Tensors of factors of positions' angles, which config.json holds. */
export const FACTORS = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"] as const;
/** The values of those that a file has. */
export type Factors = { [name in (typeof FACTORS)[number]]?: readonly number[] | undefined };

/** What config.json says beside the factors. */
export interface RopeOfGguf {
  /** Pairs of values that are rotated. */
  pairs: number;
  /** Longest text. */
  positions: number;
  /** Longest text before the scaling. */
  original: number;
  theta: number;
  /** Factor of cosines and sines, if the file has it. */
  attention: number | undefined;
  fail(message: string): never;
}

/** What converters write as low_freq_factor and high_freq_factor: those of every Llama 3. */
const [LOW, HIGH] = [1, 4];
/** Factors are float32, of a formula that converters compute in their own order. */
const NEAR = 1e-5;

/** rope_scaling, and what goes with it. @throws FormatError for factors that are not one for each pair */
export function ropeOfFactors(factors: Factors, of: RopeOfGguf): Record<string, unknown> {
  const { pairs, original, attention, fail } = of;
  const list = (name: keyof Factors): readonly number[] => {
    const values = factors[name] ?? fail(`tensor ${name} is missing, beside another of factors`);
    const isOne = values.length === pairs && values.every((value) => Number.isFinite(value) && value > 0);
    return isOne ? values : fail(`tensor ${name} has ${values.length} values; expected ${pairs}, all positive`);
  };
  if (factors["rope_freqs.weight"] === undefined) {
    const [short, long] = [list("rope_factors_short.weight"), list("rope_factors_long.weight")];
    return { original_max_position_embeddings: original, rope_scaling: longrope(short, long, attention, of) };
  }
  const each = list("rope_freqs.weight");
  const llama3 = llama3Of(each, of);
  if (llama3) return { rope_scaling: llama3 };
  return {
    rope_scaling: {
      rope_type: "longrope",
      short_factor: each,
      long_factor: each,
      original_max_position_embeddings: of.positions,
      attention_factor: attention ?? 1,
    },
  };
}

function longrope(
  short: readonly number[],
  long: readonly number[],
  attention: number | undefined,
  { pairs, positions, original, theta }: RopeOfGguf,
): Record<string, unknown> {
  const given = { ropeTheta: theta, shortFactor: short, longFactor: long, originalMaxPositionEmbeddings: original };
  const [, usual] = frequenciesOf({ ropeType: "longrope", ...given }, pairs, positions, 1);
  // Where it is what follows anyway it is computed, not rounded to float32.
  const isUsual = attention === undefined || Math.abs(attention - usual) <= NEAR * usual;
  return {
    rope_type: "longrope",
    short_factor: short,
    long_factor: long,
    ...(isUsual ? {} : { attention_factor: attention }),
  };
}

/** The numbers of rope_type llama3 whose factors these are, if they are. */
function llama3Of(each: readonly number[], { pairs, theta }: RopeOfGguf): Record<string, unknown> | undefined {
  const factor = each.reduce((a, b) => Math.max(a, b), 1);
  if (factor === 1 || each[0] !== 1) return undefined;
  const waves = powersOf(theta, pairs).map((power) => 2 * Math.PI * power);
  const between = each.findIndex((value) => value > 1 && value < factor);
  // Between the borders a factor tells where they are; else they may be anywhere between two waves.
  const share = (value: number): number => (1 / value - 1 / factor) / (1 - 1 / factor);
  const original =
    between < 0
      ? HIGH * waves[each.lastIndexOf(1)]! + 1
      : (share(each[between]!) * (HIGH - LOW) + LOW) * waves[between]!;
  const kind = {
    ropeType: "llama3" as const,
    ropeTheta: theta,
    factor,
    lowFreqFactor: LOW,
    highFreqFactor: HIGH,
    originalMaxPositionEmbeddings: Math.round(original),
  };
  const [plain] = frequenciesOf({ ropeType: "default", ropeTheta: theta }, pairs, 1, 1);
  const [scaled] = frequenciesOf(kind, pairs, 1, 1);
  const isIt = each.every((value, i) => Math.abs(plain[i]! / scaled[i]! - value) <= NEAR * value);
  return isIt
    ? {
        rope_type: "llama3",
        factor,
        low_freq_factor: LOW,
        high_freq_factor: HIGH,
        original_max_position_embeddings: kind.originalMaxPositionEmbeddings,
      }
    : undefined;
}

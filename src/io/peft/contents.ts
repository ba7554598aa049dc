/**
 * What an adapter's file may hold: factors in pairs, of their modules' ranks, and what its config announces besides.
 *
 *   base_model.model.<module>.lora_A.weight          (r, in)        .lora_B.weight          (out, r)
 *   base_model.model.<module>.lora_embedding_A       (r, V)         .lora_embedding_B       (dim, r)
 *   convolutions: lora_A.weight (r, in, K...), lora_B.weight (out, r / groups, 1...)
 *   embeddings and heads, by default of PEFT's: base_model.model.<module>.base_layer.weight, the base's own
 *   lora_bias: base_model.model.<module>.lora_B.bias (out)
 *   trainable_token_indices: base_model.model.<module>.token_adapter.trainable_tokens_delta (tokens, dim)
 *   use_dora: base_model.model.<module>.lora_magnitude_vector (out), (dim) or, of convolutions, (1, out, 1...)
 *   bias "all", "lora_only": base_model.model.<module>[.base_layer].bias
 *   modules_to_save: base_model.model.<module>.weight and whatever else the module holds, in its own names
 */
import { show } from "../json.js";
import type { LoraConfig } from "./config.js";
import {
  BASE_LAYER,
  before,
  factorBiasKey,
  FACTOR_NAMES,
  type FactorKey,
  factorKeys,
  MAGNITUDE,
  magnitudeShape,
  parseFactorKey,
  magnitudeKey,
  PREFIX,
  TOKENS,
} from "./keys.js";
import { Matching } from "./match.js";
import { Endings } from "./names.js";
import { type Budget, type Fail, newBudget } from "./regexp/budget.js";

type Shape = readonly number[];
type Shapes = ReadonlyMap<string, Shape>;

/** Every tensor is a factor with its partner, of the module's rank, or something that the config announces. */
export function checkContents(shapes: Shapes, config: LoraConfig, fail: Fail): void {
  const matching = new Matching(config, fail);
  const saved = new Endings(config.modulesToSave ?? []);
  const ends = new Endings(Object.keys(config.trainableTokenIndices ?? {}));
  const budget = newBudget(fail);
  for (const [name, shape] of shapes) {
    if (!name.startsWith(PREFIX)) fail(`tensor ${show(name)} does not start with ${show(PREFIX)}`);
    const path = name.slice(PREFIX.length);
    const factor = parseFactorKey(path);
    const directed = before(path, `.${MAGNITUDE}`);
    const biased = before(path, `.${FACTOR_NAMES.linear.loraB}.bias`);
    const tokens = before(path, `.${TOKENS}`);
    if (factor) checkFactor(name, factor, shape, shapes, config, matching, fail);
    else if (directed !== undefined) checkMagnitude(directed, shape, shapes, config, fail);
    else if (biased !== undefined) checkFactorBias(biased, shape, shapes, config, fail);
    else if (tokens !== undefined) checkTokens(name, tokens, shape, config, ends, budget, fail);
    else if (!saved.holdParameter(path, budget) && !isTied(path, config) && !isBaseWeight(path, shapes))
      checkBias(path, shapes, config, fail);
  }
}

function checkFactor(
  name: string,
  { module, kind, isA }: FactorKey,
  shape: Shape,
  shapes: Shapes,
  config: LoraConfig,
  matching: Matching,
  fail: Fail,
): void {
  const which = `tensor ${show(name)}`;
  const isEmbedding = kind === "embedding";
  const partner = factorKeys(module, kind)[isA ? 1 : 0];
  const partnerShape = shapes.get(partner) ?? fail(`${which} has no partner ${show(partner)}`);
  if (shape.length < 2 || (isEmbedding && shape.length !== 2)) {
    fail(`${which} has shape ${show(shape)}; expected ${isEmbedding ? 2 : "at least 2"} dimensions`);
  }
  if (shape.length !== partnerShape.length)
    fail(`${which} has shape ${show(shape)}, its partner ${show(partnerShape)}; expected as many dimensions`);
  if (config.useDora && !shapes.has(magnitudeKey(module)))
    fail(`${which} has no ${show(magnitudeKey(module))} beside it, but use_dora is true`);
  if (config.loraBias && kind === "linear" && !shapes.has(factorBiasKey(module)))
    fail(`${which} has no ${show(factorBiasKey(module))} beside it, but lora_bias is true`);
  const r = matching.rank(module);
  if (isA || shape.length === 2) {
    if (shape[isA ? 0 : 1] !== r)
      fail(
        `${which} has shape ${show(shape)}; its ${isA ? "first" : "second"} dimension must be r = ` +
          `${r}${r === config.r ? "" : ", by rank_pattern"}`,
      );
  } else if (r % shape[1]! !== 0 || shape.some((size, i) => i > 1 && size !== 1)) {
    fail(
      `${which} has shape ${show(shape)}; expected [out, ${r} / groups${", 1".repeat(shape.length - 2)}], r being ${r}`,
    );
  }
}

/** The shapes of a module's factors, of either kind. */
function factorShapes(module: string, shapes: Shapes): [a: Shape | undefined, b: Shape | undefined] {
  const [a, b] = factorKeys(module, "linear");
  const [embeddingA, embeddingB] = factorKeys(module, "embedding");
  return [shapes.get(a) ?? shapes.get(embeddingA), shapes.get(b) ?? shapes.get(embeddingB)];
}

function checkMagnitude(module: string, shape: Shape, shapes: Shapes, config: LoraConfig, fail: Fail): void {
  const which = `tensor ${show(magnitudeKey(module))}`;
  if (!config.useDora) fail(`${which} is a magnitude of DoRA, but use_dora is false`);
  const b = factorShapes(module, shapes)[1] ?? fail(`${which} has no factors beside it`);
  const expected = magnitudeShape(b[0]!, b.length);
  if (shape.join() !== expected.join()) fail(`${which} has shape ${show(shape)}; expected ${show(expected)}`);
}

function checkFactorBias(module: string, shape: Shape, shapes: Shapes, config: LoraConfig, fail: Fail): void {
  const which = `tensor ${show(factorBiasKey(module))}`;
  if (!config.loraBias) fail(`${which} is a bias of a factor, but lora_bias is false`);
  const b = factorShapes(module, shapes)[1] ?? fail(`${which} has no factors beside it`);
  if (shape.join() !== String(b[0])) fail(`${which} has shape ${show(shape)}; expected [${b[0]}]`);
}

/** As many rows as there are ids; of which module, the model tells. */
function checkTokens(
  name: string,
  module: string,
  shape: Shape,
  { trainableTokenIndices: indices }: LoraConfig,
  ends: Endings,
  budget: Budget,
  fail: Fail,
): void {
  if (!indices) return fail(`tensor ${show(name)} has rows of trained tokens, but trainable_token_indices is null`);
  const lists = Array.isArray(indices)
    ? [indices as number[]]
    : [...ends.of(module, module.length, budget)].map((end) => (indices as Record<string, readonly number[]>)[end]!);
  if (lists.length === 0) fail(`tensor ${show(name)} is of no module that trainable_token_indices names`);
  const counts = lists.map(({ length }) => length);
  if (shape.length !== 2 || !counts.includes(shape[0]!))
    fail(`tensor ${show(name)} has shape ${show(shape)}; expected [${counts.join(" or ")}, dim], a row for each id`);
}

/** Of an adapted embedding or head, which PEFT saves beside its factors. */
function isBaseWeight(path: string, shapes: Shapes): boolean {
  const module = before(path, `.${BASE_LAYER}.weight`);
  return module !== undefined && factorShapes(module, shapes)[0] !== undefined;
}

/** With ensure_weight_tying the other one of head and table is there, too; which that is, the model tells. */
function isTied(path: string, { ensureWeightTying, modulesToSave }: LoraConfig): boolean {
  return ensureWeightTying && modulesToSave !== null && path.endsWith(".weight");
}

/** "all" takes every name with "bias", as PEFT and loralib do; "lora_only" the biases beside factors. */
function checkBias(path: string, shapes: Shapes, { bias }: LoraConfig, fail: Fail): void {
  const which = `tensor ${show(PREFIX + path)}`;
  const module = before(path, `.${BASE_LAYER}.bias`) ?? before(path, ".bias");
  const isOfLora = module !== undefined && shapes.has(factorKeys(module, "linear")[0]);
  if (bias === "all" ? path.includes("bias") : bias === "lora_only" && isOfLora) return;
  fail(
    `${which} is neither a factor nor a magnitude vector of LoRA, nor in modules_to_save, nor a bias that is saved ` +
      `with bias ${show(bias)}`,
  );
}

/** Classes of texts by a decoder: its state at a text's last token, and a linear layer on it. */
import { Linear, type Layer } from "../../nn/layers.js";
import type { Module } from "../../nn/module.js";
import { ArgumentError } from "../../runtime/errors.js";
import { className } from "../../runtime/shown.js";
import { checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { SequenceClassifier, type ClassifierSettings } from "./classification.js";
import type { ForwardOptions } from "./causal_lm.js";
import type { DecoderConfig, DecoderModel, Names } from "./decoder.js";
import { initWeights } from "./encoder.js";
import type { Family, FamilyConfig, HeadOf } from "./family.js";
import { spansOf, tokensAt } from "./pooling.js";

/** What a decoder's configuration says if it is a classifier. */
export type DecoderClassifierConfig<C extends DecoderConfig = DecoderConfig> = C & ClassifierSettings;

/** What a classifier's forward takes beside the tokens. */
export type ClassifierOptions = Omit<ForwardOptions, "cache" | "logitsToKeep">;

/**
 * A decoder that tells classes of texts: `score` on the state of the last token that is no padding.
 *
 * Source: transformers, its classes ...ForSequenceClassification (GenericForSequenceClassification).
 *
 * @example
 * const { model } = models.loadModel("llama", { head: "sequence-classification" });
 * const { ids, attentionMask } = data.padTexts([[5, 6, 7], [8]], { padTokenId: model.config.padTokenId });
 * const logits = model.forward(ids, { attentionMask }); // [2, 3]
 */
export class DecoderForSequenceClassification<C extends DecoderConfig = DecoderConfig> extends SequenceClassifier<
  DecoderClassifierConfig<C>,
  ClassifierOptions
> {
  /** @internal */ static override readonly className: string = "DecoderForSequenceClassification";
  /** [id2label.length, hiddenSize], without a bias. */
  readonly score: Layer;
  readonly #names: Omit<Names, "head">;

  /** @param names the base model's in transformers */
  constructor(
    config: Readonly<DecoderClassifierConfig<C>>,
    make: (config: Readonly<DecoderClassifierConfig<C>>) => DecoderModel,
    names: Omit<Names, "head"> = { base: "model" },
  ) {
    super(config);
    this.#names = names;
    const parts = allOrNothing(
      () => [make(config), new Linear(config.hiddenSize, config.id2label.length, { bias: false })] as const,
    );
    (this as Record<string, unknown>)[names.base] = parts[0];
    this.score = parts[1];
    initWeights(this.score, config.initializerRange);
  }

  /** All but `score`. */
  override get base(): DecoderModel {
    return (this as Record<string, unknown>)[this.#names.base] as DecoderModel;
  }

  /** The key here of what an adapter's file may call otherwise. @internal */
  renameKey(key: string): string {
    return this.#names.rename?.(key) ?? key;
  }

  override getInputEmbeddings(): Module {
    return this.base.table;
  }

  /**
   * @param ids int32 [batch, steps], one text a row
   * @returns logits [batch, classes] of the last token of each row that is not config.padTokenId, nor masked out
   * @throws ArgumentError for several rows where there is neither a padTokenId nor an attentionMask, for a row of
   * attentionMask without a text or with several, for an id beyond the vocabulary; ShapeError beyond
   * maxPositionEmbeddings
   */
  override forward(ids: Tensor, options: ClassifierOptions = {}): Tensor {
    const columns = this.#lastTokens(`${className(this)}.forward`, ids, options?.attentionMask);
    return this.score.forward(tokensAt(this.base.forward(ids, options), columns));
  }

  /** The column of each row's last token. */
  #lastTokens(where: string, ids: Tensor, attentionMask: Tensor | undefined): number[] {
    checkTensor(where, "ids", ids, "int32", [null, null]);
    if (attentionMask) checkTensor(where, "attentionMask", attentionMask, "int32", ids.shape);
    const [batch, steps] = ids.shape as [number, number];
    const { padTokenId } = this.config;
    if (batch > 1 && padTokenId === null && !attentionMask)
      throw new ArgumentError(
        `${where}: ids has ${batch} rows, and the model has no padding token, which tells where they end; give ` +
          `attentionMask, or set pad_token_id in config.json.`,
      );
    const tokens = ids.indices;
    return spansOf(where, batch, steps, attentionMask).map(([, to], row) => {
      let column = to - 1;
      while (column > 0 && tokens[row * steps + column] === padTokenId) column--;
      return column;
    });
  }
}

/** A decoder's family with the head that tells classes. @internal */
export function withClassifier(family: Family<FamilyConfig>): Family<FamilyConfig> {
  const model = family.heads.none!;
  const base = family.prefix.slice(0, -1).replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
  const classifier: HeadOf<FamilyConfig> = {
    architectures: model.architectures.map((name) => name.replace(/Model$/, "ForSequenceClassification")),
    keys: ["score."],
    create: (config) =>
      new DecoderForSequenceClassification(config as DecoderClassifierConfig, (c) => model.create(c) as DecoderModel, {
        base,
        rename: (key) => family.rename?.(key) ?? key,
      }),
    std: (config) => (config as DecoderClassifierConfig).initializerRange,
  };
  return { ...family, heads: { ...family.heads, "sequence-classification": classifier } };
}

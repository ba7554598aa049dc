/** RoBERTa's classifier, on BERT's parts (Liu et al. 2019), in Hugging Face's names. */
import { tanh } from "../../autograd/ops/index.js";
import { Linear, type Layer } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { allOrNothing } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { bert, BertModel, parseBertConfig, type BertConfig } from "./bert.js";
import { SequenceClassifier, type Labels } from "../parts/classification.js";
import { initWeights, type EncoderOptions } from "../parts/encoder.js";
import type { Family } from "../parts/family.js";
import { firstTokens } from "../parts/pooling.js";

/** outProj(tanh(dense(x))). */
export class RobertaClassificationHead extends Module {
  /** @internal */ static override readonly className: string = "RobertaClassificationHead";
  /** [hiddenSize, hiddenSize], with a bias. */
  readonly dense: Layer;
  /** [id2label.length, hiddenSize], with a bias. */
  readonly outProj: Layer;

  constructor(c: BertConfig & Labels) {
    super();
    this.dense = new Linear(c.hiddenSize, c.hiddenSize);
    this.outProj = new Linear(c.hiddenSize, c.id2label.length);
  }

  /** x [batch, hiddenSize], the first tokens' vectors -> [batch, classes]. */
  forward(x: Tensor): Tensor {
    return this.outProj.forward(tanh(this.dense.forward(x)));
  }
}

/**
 * A RoBERTa that tells classes of texts. Positions count from padTokenId + 1, and tokens padTokenId have none.
 *
 * Source: transformers, models/roberta/modeling_roberta.py (RobertaForSequenceClassification).
 *
 * @example
 * const { model } = models.loadModel("roberta", { head: "sequence-classification" });
 * const logits = model.forward(tensor(new Int32Array([0, 45, 46, 2]), [1, 4])); // [1, 3]
 */
export class RobertaForSequenceClassification extends SequenceClassifier<BertConfig> {
  /** @internal */ static override readonly className: string = "RobertaForSequenceClassification";
  /** All but the classifier. */
  readonly roberta: BertModel;
  /** Two layers on the first token. */
  readonly classifier: Layer;

  constructor(config: Readonly<BertConfig & Labels>) {
    super(config);
    [this.roberta, this.classifier] = allOrNothing(() => [
      new BertModel(config, false),
      new RobertaClassificationHead(config),
    ]);
    initWeights(this.classifier, config.initializerRange);
  }

  override get base(): BertModel {
    return this.roberta;
  }

  override getInputEmbeddings(): Module {
    return this.roberta.getInputEmbeddings();
  }

  /** ids int32 [batch, steps] -> logits [batch, classes]. Errors as `BertModel.forward`; one text a row. */
  override forward(ids: Tensor, options: EncoderOptions = {}): Tensor {
    const x = this.roberta.forward(ids, options);
    return this.classifier.forward(firstTokens("Roberta.forward", x, options.attentionMask));
  }
}

/** What the table of families holds. @internal */
export const roberta: Family<BertConfig> = {
  ...bert,
  modelType: "roberta",
  parseConfig: (json, name) => parseBertConfig(json, name, "roberta"),
  heads: {
    none: { architectures: ["RobertaModel"], keys: [], create: (c, has) => new BertModel(c, has?.("pooler.")) },
    "sequence-classification": {
      architectures: ["RobertaForSequenceClassification"],
      keys: ["classifier."],
      unused: ["roberta.pooler."],
      create: (c) => new RobertaForSequenceClassification(c as BertConfig & Labels),
      std: (c) => c.initializerRange,
    },
  },
  prefix: "roberta.",
  headKeys: ["classifier.", "lm_head.", "qa_outputs."],
};

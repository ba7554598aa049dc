/** Classes and their losses: what every classifier's config.json says, whatever it classifies. */
import { binaryCrossEntropyWithLogits, crossEntropy, mseLoss, reshape } from "../../autograd/ops/index.js";
import { configReader, readModelType } from "../../io/config_reader.js";
import { asObject, show } from "../../io/json.js";
import { ArgumentError } from "../../runtime/errors.js";
import { className } from "../../runtime/shown.js";
import { checkInteger, checkTensor, shown } from "../../tensor/check.js";
import { Module } from "../../nn/module.js";
import { Tensor } from "../../tensor/tensor.js";
import type { EncoderOptions } from "./encoder.js";

const PROBLEM_TYPES = ["regression", "single_label_classification", "multi_label_classification"] as const;

/** What every classifier's configuration says, its classes apart. */
interface Sizes {
  /** transformers' model_type. */
  readonly modelType: string;
  /** Longest text. */
  maxPositionEmbeddings: number;
  /** Token that fills up shorter texts; null: the model has none. */
  padTokenId: number | null;
}

/** What a classifier of texts is on: a model without a head. */
export type ClassifierBase = Module & {
  /** Whether backward computes each layer's activations again, so that only its input is kept. */
  gradientCheckpointing: boolean;
};

/** A model that tells classes of texts: what they share, on whichever base. */
export abstract class SequenceClassifier<
  C = Sizes,
  O extends Pick<EncoderOptions, "attentionMask"> = EncoderOptions,
> extends Module {
  /** @internal */ static override readonly className: string = "SequenceClassifier";

  constructor(
    /** Its sizes and classes. */
    readonly config: Readonly<C & Labels>,
  ) {
    super();
    checkLabels(className(this), config);
  }

  /** All but what is on its states. */
  abstract get base(): ClassifierBase;

  /** The table of tokens (transformers' get_input_embeddings). */
  abstract getInputEmbeddings(): Module;

  /** ids int32 [batch, steps], a text a row -> logits [batch, classes]. */
  abstract forward(ids: Tensor, options?: O): Tensor;

  /** Without a language-model head there is none. */
  getOutputEmbeddings(): null {
    return null;
  }

  /** Whether backward computes each layer's activations again, so that only its input is kept. */
  get gradientCheckpointing(): boolean {
    return this.base.gradientCheckpointing;
  }

  /** Whether backward computes each layer's activations again, so that only its input is kept. */
  set gradientCheckpointing(wanted: boolean) {
    this.base.gradientCheckpointing = wanted;
  }

  /** The mean loss, of shape [], of predicting `labels` from `ids`; see `classificationLoss`. */
  loss(ids: Tensor, labels: Tensor, options?: O): Tensor {
    return classificationLoss(this.forward(ids, options), labels, this.config);
  }
}

/** Classes that a model may have: each is named. */
const MOST = 1_000_000;

/** transformers' problem_type. */
export type ProblemType = (typeof PROBLEM_TYPES)[number];

/** What a classifier's configuration says of its classes. */
export interface Labels {
  /** Names of the classes, of which each has a logit. */
  id2label: readonly string[];
  /** What the loss is; null: as the labels' dtype says, see `classificationLoss`. */
  problemType: ProblemType | null;
}

/** transformers' names of classes that have none. */
function unnamed(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `LABEL_${i}`);
}

/** What the head of a classifier takes from config.json. */
export interface ClassifierSettings extends Labels {
  /** Fills up shorter texts; null: the model has none. */
  padTokenId: number | null;
  /** Standard deviation of a new head's weights. */
  initializerRange: number;
}

/**
 * What config.json says of classes: id2label or else num_labels, and problem_type; and of the token that fills up texts
 * and of new weights.
 * Source: transformers, PretrainedConfig.
 * @param name of the file, for errors
 * @param numLabels what `loadModel` was asked for; undefined: what the file says
 * @throws FormatError naming the key that is wrong; ArgumentError for numLabels
 */
export function readLabels(json: unknown, name: string, numLabels?: number): ClassifierSettings {
  const readerOf = (of: unknown): ReturnType<typeof configReader> =>
    configReader(of, name, readModelType(of, name) as string);
  const { config, fail, count } = readerOf(json);
  const problemType = (config.problem_type ?? null) as ProblemType | null;
  if (problemType !== null && !PROBLEM_TYPES.includes(problemType))
    fail(`problem_type is ${show(problemType)}; expected ${PROBLEM_TYPES.map(show).join(", ")} or null`);
  const text = readerOf(asObject(config.text_config) ?? config);
  const rest = {
    problemType,
    padTokenId: text.config.pad_token_id == null ? null : text.token("pad_token_id", 0),
    initializerRange: text.positive("initializer_range", 0.02),
  };
  if (numLabels !== undefined) {
    checkInteger("loadModel", "numLabels", numLabels, 1, MOST);
    return { id2label: unnamed(numLabels), ...rest };
  }
  if (config.id2label == null) {
    const given = count("num_labels", 2);
    if (given > MOST) fail(`num_labels is ${given}; expected at most ${MOST}`);
    return { id2label: unnamed(given), ...rest };
  }
  const names = asObject(config.id2label) ?? fail(`id2label is ${show(config.id2label)}; expected an object`);
  const id2label = Object.keys(names).map((_, i) => {
    const label = names[i];
    return typeof label === "string" || typeof label === "number"
      ? String(label)
      : fail(`id2label has no name for ${i}`);
  });
  if (id2label.length === 0) fail("id2label is empty; expected a name for each class");
  return { id2label, ...rest };
}

/** @throws ArgumentError unless a program's own configuration names the classes */
export function checkLabels(where: string, config: Labels): void {
  const { id2label, problemType = null } = config;
  if (!Array.isArray(id2label) || id2label.length === 0)
    throw new ArgumentError(`${where}: id2label must be a list of the classes' names; got ${shown(id2label)}.`);
  if (problemType !== null && !PROBLEM_TYPES.includes(problemType))
    throw new ArgumentError(
      `${where}: problemType must be one of ${PROBLEM_TYPES.join(", ")}, or null; got ${shown(problemType)}.`,
    );
}

/**
 * The loss of a classifier, a mean of shape [], as transformers has it:
 *
 * - "single_label_classification", or null and int32 labels [batch]: `ops.crossEntropy`, which ignores -100
 * - "multi_label_classification", or null and float32 labels [batch, classes]: `ops.binaryCrossEntropyWithLogits`
 * - "regression", or null and one class, with float32 labels [batch, classes], or [batch] of one class: `ops.mseLoss`
 *
 * Source: transformers, loss/loss_utils.py (ForSequenceClassificationLoss).
 * @param logits [batch, classes]
 * @throws ArgumentError for a class that is none; ShapeError, DTypeError
 *
 * @example
 * const labels = { id2label: ["no", "yes"], problemType: null };
 * const loss = models.classificationLoss(zeros([1, 2]), tensor(new Int32Array([1])), labels);
 * console.log(loss.item().toFixed(4)); // 0.6931
 */
export function classificationLoss(logits: Tensor, labels: Tensor, { id2label, problemType }: Labels): Tensor {
  const where = "classificationLoss";
  checkTensor(where, "logits", logits, "float32", [null, id2label.length]);
  if (!(labels instanceof Tensor)) checkTensor(where, "labels", labels, "int32");
  const isOne = id2label.length === 1;
  const type =
    problemType ??
    (isOne ? "regression" : labels.dtype === "int32" ? "single_label_classification" : "multi_label_classification");
  if (type === "single_label_classification") return crossEntropy(logits, labels);
  if (type === "multi_label_classification") return binaryCrossEntropyWithLogits(logits, labels);
  return mseLoss(isOne && labels.rank === 1 ? reshape(logits, [logits.size]) : logits, labels);
}

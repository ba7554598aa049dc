/** The reference cases of model families (test/fixtures/families): which there are, and how one is computed. */
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { models, tensor, type nn, type Tensor } from "../../src/index.js";
import { f32, ints, readGolden, type Golden } from "./golden.js";
import { ROOT } from "./root.js";

const FAMILIES = new URL("test/fixtures/families/", ROOT);

/** A folder's path, or that of what is in it. */
export function familyPath(name: string): string {
  return fileURLToPath(new URL(name, FAMILIES));
}

/** The folders' names. */
export function familyCases(): string[] {
  return readdirSync(FAMILIES)
    .filter((name) => name !== "zoo")
    .sort();
}

/** Those of decoders that continue texts. */
export function decoderCases(): string[] {
  return familyCases().filter((name) => !/_cls|embed/.test(name));
}

/** A case, its model loaded. */
export interface FamilyCase extends Run {
  /** The folder of the model; its adapter is in adapter/. */
  path: string;
  model: nn.Module;
  reference: Golden;
}

export function loadFamilyCase(name: string): FamilyCase {
  const path = familyPath(name);
  const reference = readGolden(`families/${name}/reference`);
  const { model, head } = models.loadModel(path) as { model: nn.Module; head: string };
  return { path, model, reference, ...runOf({ head, model }, reference) };
}

/** How a case is computed: its logits, and the loss of them. */
interface Run {
  logits(): Tensor;
  loss(): Tensor;
}

/** What the model gives decides, and which inputs there are. */
function runOf({ head, model }: { head: string; model: unknown }, reference: Golden): Run {
  const int32 = (key: string): Tensor => {
    const { shape, data } = ints(reference, `in.${key}`);
    return tensor(data, shape);
  };
  const has = (key: string): boolean => reference.tensors.has(`in.${key}`);
  const options = (key = "attention_mask") => (has(key) ? { attentionMask: int32(key) } : {});
  if (head === "image-classification") {
    const vit = model as models.ViTForImageClassification;
    const { shape, data } = f32(reference, "in.pixel_values");
    const pixels = (): Tensor => tensor(data, shape);
    return { logits: () => vit.forward(pixels()), loss: () => vit.loss(pixels(), int32("labels")) };
  }
  if (head === "sequence-classification") {
    const classifier = model as models.SequenceClassifier;
    return {
      logits: () => classifier.forward(int32("input_ids"), options()),
      loss: () => classifier.loss(int32("input_ids"), int32("labels"), options()),
    };
  }
  if (head === "none") {
    const encoder = new models.SentenceEncoder(model as models.Encoder);
    const logits = (second = ""): Tensor =>
      encoder.forward(int32(`input_ids${second}`), options(`attention_mask${second}`));
    return { logits, loss: () => models.multipleNegativesRankingLoss(logits(), logits("2")) };
  }
  const lm = model as models.CausalLM;
  return {
    logits: () => lm.forward(int32("input_ids"), options()),
    loss: () => {
      // transformers takes the text itself as labels, and shifts it.
      const { shape, data } = ints(reference, "in.labels");
      const steps = shape[1]!;
      const targets = data.map((_, i) => (i % steps === steps - 1 ? -100 : data[i + 1]!));
      return lm.loss(int32("input_ids"), tensor(targets, shape), options());
    },
  };
}

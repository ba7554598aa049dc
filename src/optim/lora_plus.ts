/** LoRA+: B learns faster than A (Hayou, Ghosh & Yu 2024). */
import { Embedding, LayerNorm, RMSNorm } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { checkNumber, shown } from "../tensor/check.js";

/** Options of `loraPlusGroups`, named as in PEFT. */
export interface LoraPlusOptions {
  /** Learning rate of A and of everything else that is not listed below. */
  lr: number;
  /** What B's learning rate is of A's; the paper suggests 16 and a small `lr`. */
  loraplusLrRatio: number;
  /** Learning rate of the factors of embeddings. Default 1e-6. */
  loraplusLrEmbedding?: number | undefined;
  /** Decay of all but biases and norms. Default 0. */
  weightDecay?: number | undefined;
}

/** A group as optimisers take it. */
export interface LoraPlusGroup {
  /** May be empty. */
  params: Parameter[];
  /** Learning rate. */
  lr: number;
  /** Weight decay. */
  weightDecay: number;
}

/**
 * The trainable parameters in four groups, some of which may be empty, for any optimiser:
 *
 * | | parameters | lr | decay |
 * |---|---|---|---|
 * | 0 | the rest: A above all | lr | weightDecay |
 * | 1 | factors of embeddings | loraplusLrEmbedding | weightDecay |
 * | 2 | "lora_B" in the key, or one dimension | lr * loraplusLrRatio | weightDecay |
 * | 3 | of those, biases and what belongs to a norm | lr * loraplusLrRatio | 0 |
 *
 * PEFT before 0.21 looked for a module where it has a parameter, so there the factors of embeddings landed in
 * group 0.
 *
 * Source: PEFT, create_loraplus_optimizer.
 * @throws ArgumentError if nothing is trainable, or an option is unknown or not a finite number of at least 0
 *
 * @example
 * const model = new lora.Linear(8, 8, { r: 2 });
 * lora.markOnlyLoraAsTrainable(model);
 * const groups = optim.loraPlusGroups(model, { lr: 2e-4, loraplusLrRatio: 16 });
 * const optimizer = new optim.AdamW(groups);
 * const rates = groups.map(({ params, lr }) => [params.length, lr]);
 * console.log(rates); // [ [ 1, 0.0002 ], [ 0, 0.000001 ], [ 1, 0.0032 ], [ 0, 0.0032 ] ]
 */
export function loraPlusGroups(model: Module, options: LoraPlusOptions): LoraPlusGroup[] {
  checkOptions("loraPlusGroups", options, ["lr", "loraplusLrRatio", "loraplusLrEmbedding", "weightDecay"]);
  if (typeof (model as Partial<Module> | null | undefined)?.namedModules !== "function")
    throw new ArgumentError(
      `loraPlusGroups: model must be a module, whose names tell A and B apart; got ${shown(model)}.`,
    );
  const { lr, loraplusLrRatio, loraplusLrEmbedding = 1e-6, weightDecay = 0 } = options ?? ({} as LoraPlusOptions);
  for (const [name, value] of Object.entries({ lr, loraplusLrRatio, loraplusLrEmbedding, weightDecay }))
    checkNumber("loraPlusGroups", name, value, 0);
  const fast = lr * loraplusLrRatio;
  const groups = [
    [lr, weightDecay],
    [loraplusLrEmbedding, weightDecay],
    [fast, weightDecay],
    [fast, 0],
  ].map(([lr, weightDecay]): LoraPlusGroup => ({ params: [], lr: lr!, weightDecay: weightDecay! }));
  const modules = new Map(model.namedModules());
  for (const [key, p] of model.namedParameters()) {
    if (!p.requiresGrad) continue;
    const owner = ownerOf(key, modules);
    const ofNorm = owner instanceof LayerNorm || owner instanceof RMSNorm;
    if (key.includes("lora_embedding_") || (owner instanceof Embedding && key.includes("lora_")))
      groups[1]!.params.push(p);
    else if (!key.includes("lora_B") && p.rank !== 1) groups[0]!.params.push(p);
    else groups[ofNorm || key.includes("bias") ? 3 : 2]!.params.push(p);
  }
  if (groups.every((g) => g.params.length === 0))
    throw new ArgumentError("loraPlusGroups: no parameter of the model is trainable.");
  return groups;
}

/** The module with the longest path that the key starts with. */
function ownerOf(key: string, modules: ReadonlyMap<string, Module>): Module | undefined {
  for (let end = key.lastIndexOf("."); end > 0; end = key.lastIndexOf(".", end - 1)) {
    const module = modules.get(key.slice(0, end));
    if (module) return module;
  }
  return modules.get("");
}

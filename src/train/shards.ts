/** Shards of a step: what each is, and their sum. */
import type { Parameter, StateDict } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { isStateEntry } from "../runtime/state_entry.js";
import { tensor, type Tensor } from "../tensor/tensor.js";

/**
 * What a part of a step's rows adds to it: the sum of their losses, and its gradients, over the number of scored tokens
 * of the whole step.
 */
export interface Shard {
  /** The step's number, from 0 on. */
  step: number;
  /** Its place in the step, from 0 on. */
  index: number;
  /** Its part of the step's loss. */
  loss: number;
  /** Of what is trained, by its state-dict key. */
  gradients: StateDict;
}

/** Gradients that are added up in linear memory, one shard's after the other. */
export class GradientSum {
  readonly #sums = new Map<Parameter, Tensor>();

  /** Takes the gradients that the parameters have: they have none afterwards. */
  take(parameters: Iterable<Parameter>): void {
    const { kernels } = engine();
    for (const p of parameters) {
      const { grad } = p;
      if (!grad) continue;
      p.grad = null;
      const sum = this.#sums.get(p);
      if (sum) {
        kernels.saxpy(sum.address, grad.address, grad.size, 1);
        grad.dispose();
      } else this.#sums.set(p, grad);
    }
  }

  /** Gives the parameters the sums as their gradients. */
  give(): void {
    for (const [p, sum] of this.#sums) p.grad = sum;
    this.#sums.clear();
  }

  dispose(): void {
    for (const sum of this.#sums.values()) sum.dispose();
    this.#sums.clear();
  }
}

/**
 * The shards in ascending order.
 * @param count that the step has
 * @throws ArgumentError unless each of them is there once, of that step, and of those parameters
 */
export function checkShards(
  where: string,
  shards: unknown,
  { step, count, trained }: { step: number; count: number; trained: ReadonlyMap<string, Parameter> },
): Shard[] {
  if (!Array.isArray(shards)) throw new ArgumentError(`${where}: shards must be a list; got ${shown(shards)}.`);
  const ordered: Shard[] = [];
  for (const [i, shard] of (shards as unknown[]).entries()) {
    const { step: its, index, loss, gradients } = (shard ?? {}) as Partial<Shard>;
    const refuse = (what: string): never => {
      throw new ArgumentError(`${where}: shards[${i}] ${what}.`);
    };
    if (!(Number.isSafeInteger(its) && Number.isSafeInteger(index) && typeof loss === "number"))
      return refuse(`must be what computeShard gives; got ${shown(shard)}`);
    if (!(gradients instanceof Map)) return refuse(`has gradients that are no Map: ${shown(gradients)}`);
    if (its !== step) refuse(`is of step ${its}, counted from 0; the run is at step ${step}`);
    if (index! < 0 || index! >= count) refuse(`has the index ${index}; the step has ${count} shards`);
    if (ordered[index!]) refuse(`has the index ${index}, which another has, too`);
    for (const [key, gradient] of gradients as ReadonlyMap<string, unknown>) {
      const p = trained.get(key);
      if (!p) return refuse(`has a gradient ${key}; nothing of that name is trained`);
      if (!isStateEntry(gradient))
        return refuse(`has as gradient ${key} ${shown(gradient)}; expected { shape, data }, in a Float32Array`);
      if (gradient.shape.join() !== p.shape.join() || gradient.data.length !== p.size)
        refuse(`has a gradient ${key} of shape [${gradient.shape}]; expected [${p.shape}], in a Float32Array`);
    }
    const first = ordered.find(Boolean);
    if (first && [...first.gradients.keys()].sort().join() !== [...gradients.keys()].sort().join())
      refuse("has gradients of other parameters than the others");
    ordered[index!] = shard as Shard;
  }
  for (let index = 0; index < count; index++)
    if (!ordered[index]) throw new ArgumentError(`${where}: shard ${index} of ${count} is missing.`);
  return ordered;
}

/** Gives the parameters the gradients of a shard. @returns its loss */
export function giveGradients({ loss, gradients }: Shard, trained: ReadonlyMap<string, Parameter>): number {
  for (const [key, { shape, data }] of gradients) trained.get(key)!.grad = tensor(data, shape).keep();
  return loss;
}

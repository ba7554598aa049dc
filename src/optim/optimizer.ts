/** Optimisers with parameter groups (torch.optim). Kernels: assembly/optim/. */
import type { Parameter, StateDict } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkInteger, checkNumber } from "../tensor/check.js";
import { Tensor } from "../tensor/tensor.js";

/** Parameters with options of their own; an option left out is the optimiser's. */
export type ParamGroup<O> = {
  /** May be empty. */
  params: readonly Parameter[];
} & Partial<O>;
/** What an optimiser trains: parameters, or groups of them. Those without a gradient are passed over. */
export type Params<O> = readonly Parameter[] | readonly ParamGroup<O>[];

/** Options of every optimiser. */
export interface OptimizerOptions {
  /** Learning rate, at least 0. */
  lr: number;
  /** At least 0. */
  weightDecay: number;
}

/**
 * What all optimisers share: groups with their own options, a step count, and named state tensors that a
 * checkpoint can hold (torch.optim.Optimizer).
 */
export abstract class Optimizer<O extends OptimizerOptions> {
  /** Options may be changed between steps; schedules change `lr`. */
  readonly paramGroups: ({
    /** What this group trains. */
    params: readonly Parameter[];
  } & O)[];
  /** Steps taken. */
  steps = 0;
  readonly #state = new Map<Parameter, Record<string, Tensor>>();

  constructor(protected readonly name: string, params: Params<O>, defaults: O) {
    if (params.length === 0) throw new ArgumentError(`${name}: there are no parameters to train.`);
    const groups = "params" in params[0]! ? params as readonly ParamGroup<O>[] : [{ params: params as readonly Parameter[] } as ParamGroup<O>];
    this.paramGroups = groups.map((g) => ({ ...defaults, ...g }));
    const seen = new Set<Parameter>();
    for (const g of this.paramGroups) {
      this.check(g);
      for (const p of g.params) {
        if (seen.has(p)) throw new ArgumentError(`${name}: a parameter of shape [${p.shape}] is in two groups.`);
        seen.add(p);
      }
    }
  }

  protected check(g: O): void {
    checkNumber(this.name, "lr", g.lr, 0);
    checkNumber(this.name, "weightDecay", g.weightDecay, 0);
  }

  /** Updates every parameter that has a gradient. @throws ArgumentError if a group's options are out of range. */
  step(): void {
    for (const g of this.paramGroups) this.check(g);
    this.steps++;
    this.beforeUpdates();
    for (const g of this.paramGroups) {
      for (const p of g.params) if (p.grad) this.update(p, p.grad, g);
    }
  }

  /** Drops all gradients. */
  zeroGrad(): void {
    for (const g of this.paramGroups) {
      for (const p of g.params) {
        p.grad?.dispose();
        p.grad = null;
      }
    }
  }

  /** Called once a step, before the updates. */
  protected beforeUpdates(): void {}
  /** Names of the state tensors a parameter may have. */
  protected abstract readonly slots: readonly string[];
  protected abstract update(p: Parameter, g: Tensor, options: O): void;

  /** A parameter's state tensor, zero at first touch. */
  protected slot(p: Parameter, key: string): Tensor {
    let slots = this.#state.get(p);
    if (!slots) this.#state.set(p, slots = {});
    if (!slots[key]) {
      slots[key] = new Tensor(p.shape).keep();
      slots[key].data.fill(0);
    }
    return slots[key];
  }
  protected hasSlot(p: Parameter, key: string): boolean { return this.#state.get(p)?.[key] !== undefined; }

  /** Copies of the state by "<index of parameter>.<slot>". With `steps` it is all that a resumed run needs. */
  stateDict(): StateDict {
    const out: StateDict = new Map();
    for (const [i, p] of this.#all().entries()) {
      for (const [key, t] of Object.entries(this.#state.get(p) ?? {})) out.set(`${i}.${key}`, { shape: t.shape, data: t.data.slice() });
    }
    return out;
  }

  /**
   * Restores what `stateDict()` gave after that many steps. Nothing is changed if anything is wrong.
   * @throws ArgumentError unless steps is an integer of at least 0; FormatError if a key or shape does not fit these parameters
   */
  loadStateDict(state: StateDict, steps: number): void {
    checkInteger(`${this.name}.loadStateDict`, "steps", steps, 0);
    const all = this.#all();
    const found = [...state].map(([name, entry]) => {
      const [, index, key] = /^(\d+)\.(\w+)$/.exec(name) ?? [];
      const p = all[Number(index)];
      if (!p || !key || !this.slots.includes(key) || p.shape.join() !== entry.shape.join() || entry.data.length !== p.size) {
        throw new FormatError(`${this.name}: state ${name} of shape [${entry.shape}] fits none of ${all.length} parameters.`);
      }
      return { p, key, data: entry.data };
    });
    for (const { p, key, data } of found) this.slot(p, key).set(data);
    this.steps = 0;
    for (; this.steps < steps;) {
      this.steps++;
      this.beforeUpdates();
    }
  }

  /** Frees the state, not the parameters. */
  dispose(): void {
    for (const slots of this.#state.values()) for (const t of Object.values(slots)) t.dispose();
    this.#state.clear();
  }

  #all(): Parameter[] { return this.paramGroups.flatMap((g) => [...g.params]); }
}

/** Options of SGD. */
export interface SGDOptions extends OptimizerOptions {
  /** At least 0. */
  momentum: number;
  /** Whether momentum looks ahead; needs one above 0. */
  nesterov: boolean;
}

/**
 * Stochastic gradient descent (torch.optim.SGD, dampening 0). Defaults: lr 1e-3, no momentum, no decay.
 *
 * @throws ArgumentError on a NaN, negative or infinite option, nesterov without momentum, no parameters, or one that is
 * in two groups
 *
 * @example
 * const p = new nn.Parameter([1]).set([3]);
 * const optimizer = new optim.SGD([p], { lr: 0.5 });
 * ops.sum(ops.mul(p, p)).backward();
 * optimizer.step();
 * optimizer.zeroGrad();
 * console.log(p.item()); // 0
 */
export class SGD extends Optimizer<SGDOptions> {
  protected readonly slots = ["momentumBuffer"];
  constructor(params: Params<SGDOptions>, options: Partial<SGDOptions> = {}) {
    super("SGD", params, { lr: 1e-3, momentum: 0, weightDecay: 0, nesterov: false, ...options });
  }
  protected override check(g: SGDOptions): void {
    super.check(g);
    checkNumber(this.name, "momentum", g.momentum, 0);
    if (g.nesterov && g.momentum === 0) throw new ArgumentError("SGD: nesterov needs a momentum above 0.");
  }
  protected update(p: Parameter, g: Tensor, o: SGDOptions): void {
    const first = !this.hasSlot(p, "momentumBuffer");
    const buffer = o.momentum !== 0 ? this.slot(p, "momentumBuffer").address : 0;
    engine().kernels.sgdStep(p.address, g.address, buffer, p.size, o.lr, o.momentum, o.weightDecay, o.nesterov, first);
  }
}

/** Options of Adam and AdamW. */
export interface AdamOptions extends OptimizerOptions {
  /** Decay of the mean and of the mean square of gradients, each in 0 .. 1 without 1. */
  betas: readonly [number, number];
  /** Added to the root, at least 0. */
  eps: number;
}

/** The Adams: they differ in where the decay goes. beta^t are running products: no host `pow`. */
export abstract class AdamBase extends Optimizer<AdamOptions> {
  protected readonly slots = ["expAvg", "expAvgSq"];
  /** Per group: beta1^t and beta2^t. */
  #powers: [number, number][] = [];

  protected override check(g: AdamOptions): void {
    super.check(g);
    checkNumber(this.name, "eps", g.eps, 0);
    if (g.betas?.length !== 2) throw new ArgumentError(`${this.name}: betas must be two numbers; got ${JSON.stringify(g.betas)}.`);
    for (const b of g.betas) {
      checkNumber(this.name, "betas", b, 0, 1);
      if (b === 1) throw new ArgumentError(`${this.name}: betas must be below 1; got 1.`);
    }
  }
  protected override beforeUpdates(): void {
    if (this.steps === 1) this.#powers = this.paramGroups.map(() => [1, 1]);
    for (const [i, g] of this.paramGroups.entries()) {
      this.#powers[i]![0] *= g.betas[0];
      this.#powers[i]![1] *= g.betas[1];
    }
  }
  /**
   * p *= decay, then one step on the gradient at address g. torch corrects sqrt(v) before it adds eps; the older
   * form (Kingma & Ba 2015, end of section 2; Hugging Face's former AdamW) does not: `uncorrectedEps`.
   */
  protected adam(p: Parameter, g: number, o: AdamOptions, decay: number, l2: number, uncorrectedEps = false): void {
    const [power1, power2] = this.#powers[this.paramGroups.indexOf(o as never)]!;
    const [beta1, beta2] = o.betas;
    const stepSize = o.lr / (1 - power1), root = Math.sqrt(1 - power2);
    engine().kernels.adamStep(p.address, g, this.slot(p, "expAvg").address, this.slot(p, "expAvgSq").address, p.size,
      decay, l2, beta1, 1 - beta1, beta2, 1 - beta2, uncorrectedEps ? stepSize * root : stepSize, uncorrectedEps ? 1 : root, o.eps);
  }
}

/**
 * Adam with L2 decay in the gradient (torch.optim.Adam). Defaults: lr 1e-3, betas 0.9, 0.999, eps 1e-8, no decay.
 *
 * Source: Kingma & Ba 2015.
 * @throws ArgumentError on an option out of range, no parameters, or one that is in two groups
 *
 * @example
 * const p = new nn.Parameter([1]).set([3]);
 * const optimizer = new optim.Adam([p], { lr: 0.5 });
 * ops.sum(ops.mul(p, p)).backward();
 * optimizer.step();
 * console.log(p.item()); // 2.5
 */
export class Adam extends AdamBase {
  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super("Adam", params, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, ...options });
  }
  protected update(p: Parameter, g: Tensor, o: AdamOptions): void { this.adam(p, g.address, o, 1, o.weightDecay); }
}

/**
 * Adam with decoupled decay (torch.optim.AdamW). Defaults: lr 1e-3, betas 0.9, 0.999, eps 1e-8, decay 0.01.
 *
 * Source: Loshchilov & Hutter 2019.
 * @throws ArgumentError as Adam
 *
 * @example
 * const model = new lora.Linear(8, 8, { r: 2 });
 * lora.markOnlyLoraAsTrainable(model);
 * const optimizer = new optim.AdamW(model.parameters().filter((p) => p.requiresGrad), { lr: 1e-3 });
 */
export class AdamW extends AdamBase {
  constructor(params: Params<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super("AdamW", params, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, ...options });
  }
  protected update(p: Parameter, g: Tensor, o: AdamOptions): void { this.adam(p, g.address, o, 1 - o.lr * o.weightDecay, 0); }
}

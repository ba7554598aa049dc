/** Optimisers with parameter groups (torch.optim). Kernels: assembly/optim/. */
import { stateEntries, type Parameter, type StateDict } from "../nn/module.js";
import type { StateEntry } from "../runtime/state_entry.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkOptions, withDefaults, type Options } from "../runtime/options.js";
import { className } from "../runtime/shown.js";
import { checkInteger, checkNumber, shown } from "../tensor/check.js";
import { allOrNothing, settle } from "../tensor/scope.js";
import { Tensor } from "../tensor/tensor.js";
import { checkParameter, gradientOf, listOf } from "./params.js";

/** Parameters with options of their own; an option left out is the optimiser's. */
export type ParamGroup<O> = {
  /** May be empty. */
  params: Iterable<Parameter>;
} & Options<O>;
/** What an optimiser trains: parameters, or groups of them. Those without a gradient are passed over. */
export type Params<O> = Iterable<Parameter> | Iterable<ParamGroup<O>>;

/** Options of every optimiser. */
export interface OptimizerOptions {
  /** Learning rate, at least 0. */
  lr: number;
  /** At least 0. */
  weightDecay: number;
}

/** What an optimiser keeps of a parameter, from its first gradient on. */
interface State {
  /** Steps that the parameter has taken. */
  steps: number;
  /** beta1 and beta2 to the power of `steps`, multiplied up step by step: the host's `**` differs between engines. */
  powers: readonly [number, number];
  /** State tensors by name. */
  slots: Record<string, Tensor>;
}

/** One parameter's part in a step: p with gradient g and options o. `state` is what it will have after the step. */
export interface Update<O> {
  p: Tensor;
  g: Tensor;
  o: O;
  state: State;
  isFirst: boolean;
}

/** The most steps that a state may claim: the powers of beta take one multiplication for each. */
const MAX_STEPS = 0x80000000;
/** Half the largest float32: an update whose values stay below it overflows nowhere. */
const SAFE = 1.7e38;
/** How many values of an update are tried at a time. */
const CHUNK = 4096;

/**
 * What all optimisers share: groups with their own options, step counts, and named state tensors that a checkpoint can
 * hold (torch.optim.Optimizer). A step happens or, if it throws, nothing has changed.
 */
export abstract class Optimizer<O extends OptimizerOptions> {
  /** Options may be changed between steps; schedules change `lr`. */
  readonly paramGroups: ({
    /** What this group trains. */
    params: readonly Parameter[];
  } & O)[] = [];
  /** Steps taken. Each parameter counts its own, from its first gradient on. */
  steps = 0;
  #state = new Map<Tensor, State>();
  readonly #defaults: O;

  /** What messages call it. */
  protected readonly name = className(this);

  constructor(params: Params<O>, defaults: O, options: Options<O> = {}) {
    const { name } = this;
    checkOptions(name, options, Object.keys(defaults));
    this.#defaults = withDefaults(defaults, options);
    const list = listOf(name, params);
    if (list.length === 0) throw new ArgumentError(`${name}: there are no parameters to train.`);
    const isGroup = (item: unknown): boolean => typeof item === "object" && item !== null && "params" in item;
    for (const group of list.some(isGroup) ? list : [{ params: list }]) this.#add(name, group);
  }

  /**
   * Adds parameters to train, with options of their own; those left out are the optimiser's. Their counts begin with
   * their first gradients.
   *
   * Source: torch.optim.Optimizer.add_param_group.
   * @throws ArgumentError on an option that is unknown or out of range, what is no parameter, or one that is in a group
   *
   * @example
   * const model = new nn.Linear(2, 2), optimizer = new optim.AdamW([model.weight], { lr: 0.1 });
   * optimizer.addParamGroup({ params: [model.bias], lr: 0.01, weightDecay: 0 });
   * console.log(optimizer.paramGroups.map((g) => g.lr)); // [ 0.1, 0.01 ]
   */
  addParamGroup(group: ParamGroup<O>): void {
    this.#add(`${this.name}.addParamGroup`, group);
  }

  #add(where: string, group: unknown): void {
    if (typeof group !== "object" || group === null || !("params" in group)) {
      throw new ArgumentError(
        `${where}: a group must be { params: [...], ... }; got ${shown(group)}. Groups and parameters do not mix.`,
      );
    }
    checkOptions(where, group, ["params", ...Object.keys(this.#defaults)]);
    const list = listOf(where, group.params);
    const taken = new Set<unknown>(this.#all());
    for (const [i, p] of list.entries()) {
      checkParameter(where, p, i);
      if (taken.has(p))
        throw new ArgumentError(`${where}: params[${i}] of shape [${p.shape}] is in two groups, or twice in one.`);
      taken.add(p);
    }
    const full = { ...withDefaults(this.#defaults, group as Options<O>), params: list as Parameter[] };
    this.check(full);
    // What is updated must be float32; what is frozen stays as it is stored.
    for (const p of full.params) if (p.requiresGrad) p.widen();
    this.paramGroups.push(full);
  }

  protected check(g: O): void {
    checkOptions(this.name, g, ["params", ...Object.keys(this.#defaults)]);
    checkNumber(this.name, "lr", g.lr, 0);
    checkNumber(this.name, "weightDecay", g.weightDecay, 0);
  }

  /**
   * Updates every parameter that has a gradient. If it throws, nothing has changed: before the first update it
   * allocates all memory that it needs, and looks at all gradients and at what the updates would make.
   * @throws ArgumentError if a group's options are out of range, or a gradient, or what the step would make of a
   * parameter, is not finite; ShapeError for a gradient of another shape; DisposedError, OutOfMemoryError
   */
  step(): void {
    for (const g of this.paramGroups) this.check(g);
    const where = `${this.name}.step`;
    const updates: Update<O>[] = [];
    const names = new Map<Update<O>, string>();
    allOrNothing(() => {
      let index = 0;
      for (const o of this.paramGroups)
        for (const p of o.params) {
          const g = gradientOf(where, p, index);
          const name = `parameter ${index++} of shape [${p.shape}]`;
          if (!g) continue;
          p.widen();
          void p.address;
          const update = this.#prepare(p, g, o);
          updates.push(update);
          names.set(update, name);
        }
      this.withWork(updates, () => {
        for (const update of updates) this.#tryOut(where, names.get(update)!, update);
        for (const update of updates) {
          const { p, state } = update;
          this.kernel(
            update,
            p.size,
            p.address,
            this.gradient(update),
            Object.values(state.slots).map((t) => t.address),
          );
          this.#state.set(p, state);
        }
        this.steps++;
      });
    });
    settle();
  }

  /** A parameter's next state. State tensors that it lacks are made, of zeros. */
  #prepare(p: Tensor, g: Tensor, o: O): Update<O> {
    const { steps = 0, powers: [power1, power2] = [1, 1], slots: old = {} } = this.#state.get(p) ?? {};
    const [beta1, beta2] = this.betasOf(o);
    const slots = { ...old };
    for (const key of this.slotsOf(o)) slots[key] ??= zeroSlot(p);
    const isFirst = Object.keys(slots).length > Object.keys(old).length;
    return { p, g, o, isFirst, state: { steps: steps + 1, powers: [power1 * beta1, power2 * beta2], slots } };
  }

  /** @throws ArgumentError if the gradient is not finite, or the update would make something that is not */
  #tryOut(where: string, name: string, update: Update<O>): void {
    const { kernels, memory } = engine();
    const {
      p,
      g,
      o,
      state: { slots },
    } = update;
    const norm = (address: number): number => Math.sqrt(kernels.sumSquares(address, p.size));
    const skip = "Nothing was changed; call zeroGrad() before you go on with another batch.";
    if (!Number.isFinite(norm(g.address))) {
      throw new ArgumentError(
        `${where}: the gradient of ${name} holds values that are not finite. Lower the learning rate or look at ` +
          `the data. ${skip}`,
      );
    }
    const at = this.gradient(update);
    const held = Object.values(slots).map((t) => t.address);
    if (this.largest(update, norm(p.address), norm(at), norm(held[0] ?? p.address)) < SAFE) return;
    // By its norms the update may overflow: made on copies first, it shows whether it does.
    memory.withBlocks(
      [p.address, ...held].map(() => CHUNK * 4),
      (...copies) => {
        for (let from = 0; from < p.size; from += CHUNK) {
          const n = Math.min(CHUNK, p.size - from);
          for (const [i, source] of [p.address, ...held].entries())
            memory.f32(copies[i]!, n).set(memory.f32(source + from * 4, n));
          this.kernel(update, n, copies[0]!, at + from * 4, copies.slice(1));
          if (copies.some((copy) => kernels.countNonFinite(copy, n) > 0)) {
            throw new ArgumentError(
              `${where}: ${name} or its state would hold values that are not finite after this step (lr = ${o.lr}). ` +
                `Lower the learning rate or clip the gradients (clipGradNorm_). ${skip}`,
            );
          }
        }
      },
    );
  }

  /** Drops all gradients. */
  zeroGrad(): void {
    for (const p of this.#all()) {
      p.grad?.dispose();
      p.grad = null;
    }
  }

  /** Names of the state tensors that a parameter has with these options. @internal */
  protected abstract slotsOf(options: O): readonly string[];
  /** Names of all there may be. @internal */
  protected abstract readonly slots: readonly string[];
  /** @internal */
  protected betasOf(_options: O): readonly [number, number] {
    return [1, 1];
  }
  /**
   * Runs fn, the updates, with the memory that they need besides the state. If it throws, nothing was updated.
   * @internal
   */
  protected withWork(_updates: readonly Update<O>[], fn: () => void): void {
    fn();
  }
  /** Address of the gradient that the update takes. @internal */
  protected gradient({ g }: Update<O>): number {
    return g.address;
  }
  /**
   * A bound of all that the update makes, from 2-norms of the parameter, the gradient and the first state tensor.
   * @internal
   */
  protected abstract largest(update: Update<O>, p: number, g: number, slot: number): number;
  /** Updates n values at these addresses. @internal */
  protected abstract kernel(update: Update<O>, n: number, p: number, g: number, slots: readonly number[]): void;

  /**
   * Copies of the state by "<index of parameter>.<slot>"; the Adams' also have "<index>.step", the parameter's own
   * count. With `steps` it is all that a resumed run needs.
   */
  stateDict(): StateDict {
    const out: StateDict = new Map();
    for (const [i, p] of this.#all().entries()) {
      const state = this.#state.get(p);
      if (state && this.countsSteps) out.set(`${i}.step`, { shape: [], data: Float32Array.of(state.steps) });
      for (const [key, t] of Object.entries(state?.slots ?? {}))
        out.set(`${i}.${key}`, { shape: t.shape, data: t.data.slice() });
    }
    return out;
  }

  /** Whether steps of a parameter are part of its state. @internal */
  protected readonly countsSteps: boolean = false;

  /**
   * Restores what `stateDict()` gave after that many steps. Nothing is changed if anything is wrong. Parameters without
   * an own count ("<index>.step": older states had none) have taken all steps.
   * @throws ArgumentError unless steps is an integer of at least 0; FormatError if a key, shape or value does not fit
   * these parameters; OutOfMemoryError
   */
  loadStateDict(state: StateDict | Readonly<Record<string, StateEntry>>, steps: number): void {
    const where = `${this.name}.loadStateDict`;
    checkInteger(where, "steps", steps, 0, MAX_STEPS);
    const all = this.#all();
    const found = new Map<Tensor, { steps: number; slots: Record<string, ArrayLike<number>> }>();
    for (const [name, { shape, data }] of stateEntries(where, state)) {
      const [, index, key] = /^(\d+)\.(\w+)$/.exec(name) ?? [];
      const p = all[Number(index)];
      const isCount = key === "step" && this.countsSteps;
      if (
        !p ||
        !key ||
        !(isCount
          ? data.length === 1
          : this.slots.includes(key) && p.shape.join() === shape.join() && data.length === p.size)
      ) {
        throw new FormatError(`${where}: state ${name} of shape [${shape}] fits none of ${all.length} parameters.`);
      }
      if (
        isCount
          ? !(Number.isInteger(data[0]) && data[0]! >= 0 && data[0]! <= MAX_STEPS)
          : data.some((v) => !Number.isFinite(v))
      ) {
        throw new FormatError(
          `${where}: state ${name} holds ${isCount ? `${data[0]}, which is no count` : "values that are not finite"}.`,
        );
      }
      const entry = found.get(p) ?? { steps, slots: {} };
      found.set(p, isCount ? { ...entry, steps: data[0]! } : { ...entry, slots: { ...entry.slots, [key]: data } });
    }
    for (const [p, { slots }] of found) {
      const missing = this.slots.find((key) => !(key in slots));
      if (missing) throw new FormatError(`${where}: state ${all.indexOf(p as Parameter)}.${missing} is missing.`);
    }
    const next = allOrNothing(
      () =>
        new Map(
          [...found].map(([p, entry]): [Tensor, State] => {
            const held = this.#state.get(p)?.slots ?? {};
            const slots = Object.fromEntries(this.slots.map((key) => [key, held[key] ?? zeroSlot(p)]));
            return [p, { steps: entry.steps, powers: [1, 1], slots }];
          }),
        ),
    );
    for (const o of this.paramGroups) {
      // Multiplied as steps multiply them, so that bits are theirs; parameters of equal counts share the product.
      const powers = new Map<number, readonly [number, number]>();
      for (const p of o.params) {
        const entry = next.get(p);
        if (!entry) continue;
        if (!powers.has(entry.steps))
          powers.set(entry.steps, this.betasOf(o).map((beta) => power(beta, entry.steps)) as [number, number]);
        entry.powers = powers.get(entry.steps)!;
      }
    }
    for (const [p, { slots }] of found)
      for (const [key, values] of Object.entries(slots)) next.get(p)!.slots[key]!.set(values);
    for (const [p, { slots }] of this.#state)
      for (const [key, t] of Object.entries(slots)) if (next.get(p)?.slots[key] !== t) t.dispose();
    this.#state = next;
    this.steps = steps;
  }

  /** Frees the state, not the parameters. */
  dispose(): void {
    for (const { slots } of this.#state.values()) for (const t of Object.values(slots)) t.dispose();
    this.#state.clear();
  }

  #all(): Parameter[] {
    return this.paramGroups.flatMap((g) => [...g.params]);
  }
}

function zeroSlot(p: Tensor): Tensor {
  const t = new Tensor(p.shape).keep();
  t.data.fill(0);
  return t;
}

function power(beta: number, steps: number): number {
  let product = 1;
  for (let i = 0, before = 0; i < steps && product !== before; i++) [before, product] = [product, product * beta];
  return product;
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
 * @throws ArgumentError on an unknown option, a NaN, negative or infinite one, nesterov without momentum, no
 * parameters, what is no parameter, or one that is in two groups
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
  /** @internal */ static readonly className: string = "SGD";
  protected readonly slots = ["momentumBuffer"];
  constructor(params: Params<SGDOptions>, options: Options<SGDOptions> = {}) {
    super(params, { lr: 1e-3, momentum: 0, weightDecay: 0, nesterov: false }, options);
  }
  protected override check(g: SGDOptions): void {
    super.check(g);
    checkNumber(this.name, "momentum", g.momentum, 0);
    if (typeof g.nesterov !== "boolean")
      throw new ArgumentError(`SGD: nesterov must be true or false; got ${shown(g.nesterov)}.`);
    if (g.nesterov && g.momentum === 0) throw new ArgumentError("SGD: nesterov needs a momentum above 0.");
  }
  protected slotsOf({ momentum }: SGDOptions): readonly string[] {
    return momentum !== 0 ? this.slots : [];
  }
  protected largest({ o }: Update<SGDOptions>, p: number, g: number, buffer: number): number {
    const d = g + o.weightDecay * p;
    const b = o.momentum * (o.momentum + 1) * (buffer + d);
    return p + b + d + o.lr * (d + b);
  }
  protected kernel(
    { o, isFirst }: Update<SGDOptions>,
    n: number,
    p: number,
    g: number,
    [buffer = 0]: readonly number[],
  ): void {
    engine().kernels.sgdStep({
      p,
      buf: o.momentum !== 0 ? buffer : 0,
      g,
      n,
      lr: o.lr,
      momentum: o.momentum,
      weightDecay: o.weightDecay,
      nesterov: o.nesterov,
      first: isFirst,
    });
  }
}

/** Options of Adam and AdamW. */
export interface AdamOptions extends OptimizerOptions {
  /** Decay of the mean and of the mean square of gradients, each in 0 .. 1 without 1. */
  betas: readonly [number, number];
  /** Added to the root, at least 0. */
  eps: number;
}

/** The Adams: they differ in where the decay goes. */
export abstract class AdamBase extends Optimizer<AdamOptions> {
  protected readonly slots = ["expAvg", "expAvgSq"];
  protected override readonly countsSteps = true;

  protected override check(g: AdamOptions): void {
    super.check(g);
    checkNumber(this.name, "eps", g.eps, 0);
    if (!Array.isArray(g.betas) || g.betas.length !== 2)
      throw new ArgumentError(`${this.name}: betas must be two numbers; got ${shown(g.betas)}.`);
    for (const b of g.betas as readonly number[]) {
      checkNumber(this.name, "betas", b, 0, 1);
      if (b === 1) throw new ArgumentError(`${this.name}: betas must be below 1; got 1.`);
    }
  }
  protected slotsOf(): readonly string[] {
    return this.slots;
  }
  protected override betasOf({ betas }: AdamOptions): readonly [number, number] {
    return betas;
  }

  /** What the weight is multiplied with, and how much of it is added to the gradient. */
  protected abstract decays(options: AdamOptions): [decay: number, l2: number];
  /**
   * torch corrects sqrt(v) before it adds eps; the older form (Kingma & Ba 2015, end of section 2; Hugging Face's
   * former AdamW) does not.
   */
  protected readonly correctsEps: boolean = true;

  protected largest(
    {
      o,
      state: {
        powers: [power1],
      },
    }: Update<AdamOptions>,
    p: number,
    g: number,
    mean: number,
  ): number {
    const [decay, l2] = this.decays(o);
    const d = g + l2 * (p + Math.abs(decay) * p);
    return Math.max(d * d, Math.abs(decay) * p + p + (o.lr / (1 - power1)) * ((mean + d) / o.eps));
  }
  protected kernel(
    {
      o,
      state: {
        powers: [power1, power2],
      },
    }: Update<AdamOptions>,
    n: number,
    p: number,
    g: number,
    [m, v]: readonly number[],
  ): void {
    const [beta1, beta2] = o.betas;
    const [decay, l2] = this.decays(o);
    const stepSize = o.lr / (1 - power1);
    const root = Math.sqrt(1 - power2);
    engine().kernels.adamStep({
      p,
      m: m!,
      v: v!,
      g,
      n,
      decay,
      l2,
      beta1,
      rest1: 1 - beta1,
      beta2,
      rest2: 1 - beta2,
      stepSize: this.correctsEps ? stepSize : stepSize * root,
      rootCorrection2: this.correctsEps ? root : 1,
      eps: o.eps,
    });
  }
}

/**
 * Adam with L2 decay in the gradient (torch.optim.Adam). Defaults: lr 1e-3, betas 0.9, 0.999, eps 1e-8, no decay. Each
 * parameter's corrections count from its first gradient on, as torch's.
 *
 * Source: Kingma & Ba 2015.
 * @throws ArgumentError on an option that is unknown or out of range, no parameters, what is no parameter, or one that
 * is in two groups
 *
 * @example
 * const p = new nn.Parameter([1]).set([3]);
 * const optimizer = new optim.Adam([p], { lr: 0.5 });
 * ops.sum(ops.mul(p, p)).backward();
 * optimizer.step();
 * console.log(p.item()); // 2.5
 */
export class Adam extends AdamBase {
  /** @internal */ static readonly className: string = "Adam";
  constructor(params: Params<AdamOptions>, options: Options<AdamOptions> = {}) {
    super(params, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 }, options);
  }
  protected decays({ weightDecay }: AdamOptions): [number, number] {
    return [1, weightDecay];
  }
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
 * const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 });
 */
export class AdamW extends AdamBase {
  /** @internal */ static readonly className: string = "AdamW";
  constructor(params: Params<AdamOptions>, options: Options<AdamOptions> = {}) {
    super(params, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 }, options);
  }
  protected decays({ lr, weightDecay }: AdamOptions): [number, number] {
    return [1 - lr * weightDecay, 0];
  }
}

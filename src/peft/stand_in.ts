/** Parameters in the places of a module's own, for as long as it computes or for good. */
import type { Layer } from "../nn/layers.js";
import { Module, Parameter } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";
import type { Tensor } from "../tensor/tensor.js";

/** Where a module keeps a parameter. */
interface Slot {
  /** The parameter's name in the module that is stood in for. */
  name: string;
  holder: Record<string, unknown>;
  property: string;
}

/** A module's parameters: properties of it and of the modules in it. @throws ArgumentError for others */
function slotsOf(where: string, module: Module): Slot[] {
  const slots: Slot[] = [];
  for (const [path, part] of module.namedModules()) {
    const names = new Map([...part.ownParameters()].map(([name, p]) => [p, name]));
    const holder = part as unknown as Record<string, unknown>;
    for (const [property, value] of Object.entries(holder)) {
      const name = value instanceof Parameter ? names.get(value) : undefined;
      if (name !== undefined) slots.push({ name: path ? `${path}.${name}` : name, holder, property });
    }
    const inProperties = Object.values(holder).filter((value) => value instanceof Parameter).length;
    if (inProperties !== [...part.ownParameters()].length)
      throw new ArgumentError(
        `${where}${path && `.${path}`} holds parameters that are not its properties; it cannot be copied.`,
      );
  }
  return slots;
}

/** One adapter's copies of a module's parameters, with which the module computes in its place. */
export class StandIn extends Module {
  /** @internal */ static override readonly className: string = "StandIn";
  readonly #module: Layer;
  readonly #slots: readonly Slot[];
  #parameters: Parameter[] = [];

  /**
   * Float32 copies that train.
   * @param shared copies of parameters that are copied once for all modules that have them
   * @throws ArgumentError for a module whose parameters are elsewhere; OutOfMemoryError, and then nothing is left
   */
  constructor(where: string, module: Layer, shared: Map<Parameter, Parameter> | null = null) {
    super();
    this.#module = module;
    this.training = module.training;
    this.#slots = slotsOf(where, module);
    const known = shared ?? new Map<Parameter, Parameter>();
    const made: Parameter[] = [];
    try {
      for (const { holder, property } of this.#slots) {
        const original = holder[property] as Parameter;
        let copy = known.get(original);
        if (!copy) {
          copy = new Parameter(original.shape);
          made.push(copy);
          known.set(original, copy.set(original.toFloat32()));
        }
        this.#parameters.push(copy);
      }
    } catch (error) {
      for (const p of made) p.dispose();
      throw error;
    }
  }

  override *ownParameters(): IterableIterator<[string, Parameter]> {
    for (const [i, { name }] of this.#slots.entries()) yield [name, this.#parameters[i]!];
  }

  /** The copy of a layer's weight. */
  get weight(): Parameter {
    return this.#parameters[this.#slots.findIndex(({ name }) => name === "weight")]!;
  }

  /** What the module computes with these parameters. */
  forward(...args: [x: Tensor]): Tensor {
    this.#swap();
    try {
      return this.#module.forward(...args);
    } finally {
      this.#swap();
    }
  }

  /** Gives the module these parameters for good: this has its own then. */
  install(): void {
    this.#swap();
  }

  #swap(): void {
    this.#parameters = this.#slots.map(({ holder, property }, i) => {
      const before = holder[property] as Parameter;
      holder[property] = this.#parameters[i];
      return before;
    });
  }
}

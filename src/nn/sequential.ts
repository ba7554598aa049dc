/** Layers one after another, and layers without parameters to put among them. */
import { gelu, geluTanh, relu, sigmoid, tanh } from "../autograd/ops/elementwise.js";
import { dropoutBy } from "../autograd/ops/dropout.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { checkCount, checkNumber, checkTensor, shown } from "../tensor/check.js";
import { attempt } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Layer } from "./layers.js";
import { Module } from "./module.js";

/**
 * Layers that each take what the one before gives (torch.nn.Sequential). They are its properties "0", "1", ..., and so
 * the beginnings of its keys.
 *
 * @throws ArgumentError for what is no module with a `forward`
 *
 * @example
 * const model = new nn.Sequential(new nn.Linear(4, 8), new nn.ReLU(), new nn.Linear(8, 1));
 * console.log([...model.stateDict().keys()].join(" ")); // 0.weight 0.bias 2.weight 2.bias
 * const y = model.forward(ones([5, 4])); // [5, 1]
 */
export class Sequential extends Module {
  /** @internal */ static override readonly className: string = "Sequential";
  /** The layers, by their place. */
  [place: number]: Layer;
  /** Number of layers. */
  readonly length: number;

  constructor(...layers: Layer[]) {
    super();
    for (const [i, layer] of layers.entries()) {
      if (!(layer instanceof Module) || typeof layer.forward !== "function") {
        const advice = Array.isArray(layer) ? " Write new nn.Sequential(...layers)." : "";
        throw new ArgumentError(
          `Sequential: layer ${i} must be a module with a forward; got ${shown(layer)}.${advice}`,
        );
      }
    }
    this.length = layers.length;
    Object.assign(this, layers);
  }

  /** x through all layers. @throws what they throw */
  forward(x: Tensor): Tensor {
    for (let i = 0; i < this.length; i++) x = this[i]!.forward(x);
    return x;
  }
}

/**
 * `ops.relu` as a layer (torch.nn.ReLU).
 *
 * @example
 * console.log(new nn.ReLU().forward(tensor([-1, 2])).data); // Float32Array(2) [ 0, 2 ]
 */
export class ReLU extends Module {
  /** @internal */ static override readonly className: string = "ReLU";
  /** Of x's shape. @throws DTypeError, DisposedError */
  forward(x: Tensor): Tensor {
    return relu(x);
  }
}

/**
 * `ops.tanh` as a layer (torch.nn.Tanh).
 *
 * @example
 * console.log(new nn.Tanh().forward(tensor([0, 20])).data); // Float32Array(2) [ 0, 1 ]
 */
export class Tanh extends Module {
  /** @internal */ static override readonly className: string = "Tanh";
  /** Of x's shape. @throws DTypeError, DisposedError */
  forward(x: Tensor): Tensor {
    return tanh(x);
  }
}

/**
 * `ops.sigmoid` as a layer (torch.nn.Sigmoid).
 *
 * @example
 * console.log(new nn.Sigmoid().forward(tensor([0])).data); // Float32Array(1) [ 0.5 ]
 */
export class Sigmoid extends Module {
  /** @internal */ static override readonly className: string = "Sigmoid";
  /** Of x's shape. @throws DTypeError, DisposedError */
  forward(x: Tensor): Tensor {
    return sigmoid(x);
  }
}

/** Options of nn.GELU. */
export interface GELUOptions {
  /** "none", the default, for `ops.gelu`; "tanh" for `ops.geluTanh`. */
  approximate?: "none" | "tanh" | undefined;
}

/**
 * `ops.gelu` or `ops.geluTanh` as a layer (torch.nn.GELU).
 *
 * @throws ArgumentError for another approximation
 *
 * @example
 * console.log(new nn.GELU({ approximate: "tanh" }).forward(tensor([0])).data); // Float32Array(1) [ 0 ]
 */
export class GELU extends Module {
  /** @internal */ static override readonly className: string = "GELU";
  /** "none" or "tanh". */
  readonly approximate: "none" | "tanh";
  constructor(options: GELUOptions = {}) {
    super();
    checkOptions("GELU", options, ["approximate"]);
    this.approximate = options.approximate ?? "none";
    if (this.approximate !== "none" && this.approximate !== "tanh") {
      throw new ArgumentError(`GELU: approximate must be "none" or "tanh"; got ${shown(this.approximate)}.`);
    }
  }
  /** Of x's shape. @throws DTypeError, DisposedError */
  forward(x: Tensor): Tensor {
    return (this.approximate === "tanh" ? geluTanh : gelu)(x);
  }
}

/**
 * Dropout in training, nothing after `eval()` (torch.nn.Dropout). Its masks are those of the run that it was made in.
 *
 * @throws ArgumentError for a p outside 0 .. 1
 *
 * @example
 * const layer = new nn.Dropout(0.5);
 * console.log(layer.forward(ones([4])).data.every((v) => v === 0 || v === 2)); // true
 * console.log(layer.eval().forward(ones([2])).data); // Float32Array(2) [ 1, 1 ]
 */
export class Dropout extends Module {
  /** @internal */ static override readonly className: string = "Dropout";
  constructor(
    /** Probability of an element to become 0. */
    readonly p = 0.5,
  ) {
    super();
    checkCount("Dropout", arguments, 1);
    checkNumber("Dropout", "p", p, 0, 1);
  }
  /** Of x's shape; x itself in evaluation. @throws DTypeError, DisposedError */
  forward(x: Tensor): Tensor {
    checkTensor("Dropout.forward", "x", x);
    return this.training && this.p > 0 ? attempt(() => dropoutBy(x, this.newMask(this.p))) : x;
  }
}

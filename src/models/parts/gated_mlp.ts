/** The MLP that most decoders have: one projection is the gate of another. */
import { gelu, geluTanh, mul, siluMul } from "../../autograd/ops/index.js";
import { Linear, type Layer } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";

/** What passes a gate, by transformers' names. */
export type Gate = "silu" | "gelu" | "gelu_pytorch_tanh";

/** act(gate) * up */
export function gated(gate: Tensor, up: Tensor, act: Gate): Tensor {
  return act === "silu" ? siluMul(gate, up) : mul(act === "gelu" ? gelu(gate) : geluTanh(gate), up);
}

/** down(act(gate(x)) * up(x)) */
export class GatedMLP extends Module {
  /** @internal */ static override readonly className: string = "GatedMLP";
  /** [intermediateSize, hiddenSize] */
  readonly gateProj: Layer;
  /** [intermediateSize, hiddenSize] */
  readonly upProj: Layer;
  /** [hiddenSize, intermediateSize] */
  readonly downProj: Layer;
  readonly #act: Gate;

  constructor(
    { hiddenSize, intermediateSize }: { readonly hiddenSize: number; readonly intermediateSize: number },
    { bias = false, act = "silu" }: { bias?: boolean | undefined; act?: Gate | undefined } = {},
  ) {
    super();
    this.gateProj = new Linear(hiddenSize, intermediateSize, { bias });
    this.upProj = new Linear(hiddenSize, intermediateSize, { bias });
    this.downProj = new Linear(intermediateSize, hiddenSize, { bias });
    this.#act = act;
  }

  /** x [..., hiddenSize] -> x's shape. */
  forward(x: Tensor): Tensor {
    return graphScope(() => this.downProj.forward(gated(this.gateProj.forward(x), this.upProj.forward(x), this.#act)));
  }
}

/**
 * Reverse-mode differentiation. An op that has an input with `requiresGrad` leaves a node: its
 * inputs, the tensors it saved, and how to turn its output's gradient into theirs. `loss.backward()`
 * walks the nodes in reverse order of creation, once, and frees them and the activations on its way.
 */
import { ShapeError, StateError } from "../runtime/errors.js";
import { checkCallback, refuseLazy } from "../runtime/synchronous.js";
import type { GraphNode } from "../tensor/node.js";
import { Tensor } from "../tensor/tensor.js";

let created = 0;
let enabled = true;
/** While `watched` runs: the tensors requiring a gradient that ops have used in it. */
let used: Set<Tensor> | null = null;

class TapeNode implements GraphNode<Tensor> {
  readonly id = created++;
  /**
   * @param saved tensors that only backward needs; they are freed with the node
   * @param reads tensors whose values `run` reads, but for `saved`
   */
  constructor(
    readonly inputs: readonly Tensor[],
    readonly run: (dy: Tensor) => void,
    private readonly saved: readonly Tensor[],
    readonly reads: readonly Tensor[],
  ) {}

  releaseSaved(): void {
    for (const t of this.saved) t.free("backward");
  }
}

/** Whether an op on these inputs must leave a node. */
export function needsGrad(inputs: readonly (Tensor | null)[]): boolean {
  return enabled && inputs.some((t) => t?.requiresGrad);
}

/**
 * Links `output` to its inputs if one of them needs a gradient; otherwise frees what was saved.
 * `backward(dy)` must add to `gradient(input)` of each input that needs it.
 * @param reads tensors whose values `backward` reads; the others may be gone by then. Default: the inputs.
 */
export function record(
  output: Tensor,
  inputs: readonly (Tensor | null)[],
  backward: (dy: Tensor) => void,
  saved: readonly Tensor[] = [],
  reads = inputs,
): Tensor {
  if (used) for (const t of inputs) if (t?.requiresGrad) used.add(t);
  if (!needsGrad(inputs)) {
    for (const t of saved) t.dispose();
    return output;
  }
  for (const t of saved) t.keep();
  output.requiresGrad = true;
  output.isLeaf = false;
  const present = (all: readonly (Tensor | null)[]): Tensor[] => all.filter((t) => t !== null);
  output.node = new TapeNode(present(inputs), backward, saved, present(reads));
  return output;
}

/** Address of the buffer to add t's gradient to (made and zeroed at first touch), or 0 if none is wanted. */
export function gradient(t: Tensor | null): number {
  if (t === null || !t.requiresGrad) return 0;
  if (t.grad === null) {
    t.grad = new Tensor(t.shape).keep();
    t.grad.data.fill(0);
  }
  if (t.grad.size !== t.size)
    throw new ShapeError(
      `backward: a tensor of shape [${t.shape}] has a gradient of shape [${t.grad.shape}]; set it to null.`,
    );
  return t.grad.address;
}

/**
 * Runs fn without recording: what it computes has no graph, and no activations are kept (torch.no_grad).
 *
 * @throws ArgumentError if fn is no function; StateError if it is asynchronous or returns what runs later (a promise, a
 * generator): that would go on with recording
 *
 * @example
 * const layer = new nn.Linear(3, 2);
 * const y = noGrad(() => layer.forward(tensor([[1, 2, 3]])));
 * console.log(y.requiresGrad); // false
 */
export function noGrad<T>(fn: () => T): T {
  return within("noGrad", false, fn);
}

/** Runs fn recording, also where noGrad is running (torch.enable_grad). */
export function enableGrad<T>(fn: () => T): T {
  return within("enableGrad", true, fn);
}

function within<T>(where: string, on: boolean, fn: () => T): T {
  checkCallback(where, fn);
  const result = recording(on, null, fn);
  refuseLazy(where, result, "It would go on outside.");
  return result;
}

/** Runs fn as `noGrad` does; also returns the tensors requiring a gradient that its ops used. */
export function watched<T>(fn: () => T): [result: T, used: Tensor[]] {
  const own = new Set<Tensor>();
  return [recording(false, own, fn), [...own]];
}

function recording<T>(on: boolean, into: Set<Tensor> | null, fn: () => T): T {
  const before = [enabled, used] as const;
  [enabled, used] = [on, into];
  try {
    return fn();
  } finally {
    [enabled, used] = before;
  }
}

/** Whether ops leave nodes now. */
export function isRecording(): boolean {
  return enabled;
}

/**
 * Runs fn recording. Also returns a function that takes a gradient of fn's result back to the tensors that were there
 * before, and frees the graph between.
 */
export function recorded(fn: () => Tensor): [result: Tensor, backpropagate: (dy: Tensor) => void] {
  const first = created;
  const y = enableGrad(fn);
  return [
    y,
    (dy) => {
      if (y.node === null) return;
      y.grad = dy;
      walk(y, reachable(y, first));
    },
  ];
}

// A method of Tensor, as in PyTorch. tensor/ declares it and does not know the tape, so it gets its body from here.
Tensor.prototype.backward = function (this: Tensor): void {
  if (this.size !== 1) throw new ShapeError(`backward: the tensor has shape [${this.shape}]; expected one element.`);
  if (this.node === null) {
    throw new StateError(
      "backward: the tensor has no graph: nothing it depends on has requiresGrad, it was computed under noGrad(), " +
        "or backward() already ran.",
    );
  }
  const outputs = reachable(this, 0);
  this.grad = new Tensor(this.shape).keep();
  this.grad.data[0] = 1;
  walk(this, outputs);
};

/**
 * Propagates root.grad along `outputs`, and frees them on the way. If it fails, it frees the rest too: a graph that is
 * half consumed can give no gradient.
 */
function walk(root: Tensor, outputs: readonly Tensor[]): void {
  const consume = (output: Tensor): void => {
    output.grad?.dispose();
    output.grad = null;
    output.node?.releaseSaved();
    output.node = null;
    if (output !== root && !output.kept) output.free("backward");
  };
  try {
    for (const output of outputs) {
      const node = output.node!;
      // The caller may have switched off a leaf's requiresGrad since. With no input left that wants a gradient, the
      // kernel has nothing to write, and those with one output take no null pointer for it.
      if (output.grad !== null && node.inputs.some((t) => t.requiresGrad)) node.run(output.grad);
      consume(output);
    }
  } catch (error) {
    for (const output of outputs) consume(output);
    throw error;
  }
}

/**
 * Tensors with a node, from number `first` on, that root depends on, the latest first.
 * @throws DisposedError or StateError if one of them is gone, before anything is changed
 */
function reachable(root: Tensor, first: number): Tensor[] {
  const seen = new Set<Tensor>([root]);
  for (const t of seen) {
    for (const read of t.node!.reads) void read.address;
    for (const input of t.node!.inputs) {
      if (input.node !== null) {
        if (input.node.id >= first) seen.add(input);
        continue;
      }
      if (!input.requiresGrad) continue;
      void input.address;
      if (!input.isLeaf) {
        throw new StateError(
          `backward: an activation of shape [${input.shape}] was already consumed by another backward(); add the ` +
            `losses and call it once.`,
        );
      }
    }
  }
  return [...seen].sort((a, b) => b.node!.id - a.node!.id);
}

/** Gradient checkpointing: activations that backward computes again instead of keeping them. */
import { type DropoutMask, recordMasks, repeatMasks } from "../random/seed.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import { checkCallback, refuseLazy } from "../runtime/synchronous.js";
import { checkTensor } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { Tensor } from "../tensor/tensor.js";
import { isRecording, record, recorded, watched } from "./tape.js";

/**
 * fn(...inputs), of which only the inputs and the result are kept: backward runs fn again, with the dropout masks of
 * the first time, and then goes back through it. Gradients have the bits that they have without it; they also reach
 * parameters and other tensors that fn uses without being given them. Calls may be nested.
 *
 * fn runs as in a scope, must return a tensor that it computes, and must compute the same bits again: backward checks
 * it. So what fn depends on (weights, mode, the adapters at work) must still be as it was, and draws other than
 * dropout's do not repeat: call `backward()` inside of `withAdapterNames` and its like, before the optimiser's step.
 *
 * Source: Chen et al. 2016; torch.utils.checkpoint.checkpoint, use_reentrant=False.
 * @returns of fn's result
 * @throws ArgumentError if fn is no function or returns a tensor that it did not compute; DTypeError if it returns
 * none; StateError if it is asynchronous, and in `backward()` if it computes something else
 *
 * @example
 * const layer = new nn.Linear(8, 8), x = ones([2, 8]);
 * const y = gradientCheckpoint((t) => ops.relu(layer.forward(t)), x); // [2, 8]
 * ops.sum(y).backward();
 * console.log(layer.weight.grad.shape); // [ 8, 8 ]
 */
export function gradientCheckpoint<Inputs extends readonly unknown[]>(
  fn: (...inputs: Inputs) => Tensor,
  ...inputs: Inputs
): Tensor {
  checkCallback("gradientCheckpoint", fn);
  const run = (): Tensor => {
    const y = fn(...inputs);
    refuseLazy("gradientCheckpoint", y, "Backward runs it again.");
    checkTensor("gradientCheckpoint", "fn's result", y);
    return y;
  };
  const masks: DropoutMask[] = [];
  const isNeeded = isRecording();
  const [y, used] = isNeeded ? recordMasks(masks, () => watched(() => scope(run))) : [scope(run), []];
  if (isNeeded && (y.kept || y.requiresGrad || inputs.includes(y))) {
    throw new ArgumentError(`gradientCheckpoint: fn returned a tensor of shape [${y.shape}] that it did not compute.`);
  }
  const constants = inputs.filter((t) => t instanceof Tensor && !t.requiresGrad) as Tensor[];
  return record(
    y,
    [...used, ...constants],
    (dy) =>
      scope(() => {
        const [again, backpropagate] = repeatMasks(masks, () => recorded(run));
        checkSame(y, again);
        backpropagate(dy);
      }),
    [],
    [...used, ...constants, y],
  );
}

/** Throws if backward's run of fn gave other bits: kernels are deterministic, so fn computed something else. */
function checkSame(y: Tensor, again: Tensor): void {
  if (again.shape.join() === y.shape.join() && sameBits(y.data, again.data)) return;
  throw new StateError(
    "gradientCheckpoint: fn computed something else when backward ran it again; what it depends on (weights, mode, " +
      "active adapters) must be as it was, and it may draw nothing but dropout masks.",
  );
}

function sameBits(a: Float32Array, b: Float32Array): boolean {
  const x = new Int32Array(a.buffer, a.byteOffset, a.byteLength / 4);
  const y = new Int32Array(b.buffer, b.byteOffset, b.byteLength / 4);
  for (let i = 0; i < x.length; i++) {
    // WebAssembly lets engines choose the bits of a NaN.
    if (x[i] !== y[i] && !(Number.isNaN(a[i]) && Number.isNaN(b[i]))) return false;
  }
  return true;
}

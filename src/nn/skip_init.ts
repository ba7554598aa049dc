/**
 * Modules without their initial values, for code that sets every parameter anyway. Nothing is drawn then, so the random
 * streams are as if the modules had not been made, and a parameter has no memory before it is known what it is stored
 * as (`materialize`).
 *
 * Source: torch.nn.utils.skip_init; transformers' no_init_weights.
 */
let skipped = false;

/**
 * Runs make, in which parameters have shapes and no memory. Whoever calls it gives them that by `materialize()`, and
 * sets them, before anybody else sees them. @internal
 */
export function skipInit<T>(make: () => T): T {
  const before = skipped;
  skipped = true;
  try {
    return make();
  } finally {
    skipped = before;
  }
}

/** Whether a `skipInit` is running. @internal */
export function isInitSkipped(): boolean {
  return skipped;
}

/** Values into a type of fewer bits, and how far the farthest of them moved. */
import { ArgumentError } from "../runtime/errors.js";
import type { ModelDType } from "./targets.js";
import { fromBytes, toBytes } from "./values.js";

/** The largest rounding of all values so far. */
export class Rounding {
  readonly dtype: ModelDType;
  readonly #whole: Rounding;
  /** The largest distance of a value from what was written. */
  largest = 0;
  /** The largest magnitude of the values that were rounded. */
  magnitude = 0;

  /** @param whole that of all tensors, which is told too */
  constructor(dtype: ModelDType, whole?: Rounding) {
    this.dtype = dtype;
    this.#whole = whole ?? this;
  }

  /**
   * The bytes of each part.
   * @param name the tensor's, for errors
   * @throws ArgumentError for a value that is beyond the type
   */
  *round(name: string, parts: Iterable<Float32Array>): Generator<Uint8Array, void> {
    const { dtype } = this;
    for (const values of parts) {
      const bytes = toBytes(values, dtype);
      if (dtype !== "float32") this.#compare(name, values, fromBytes(bytes, dtype));
      yield bytes;
    }
  }

  #compare(name: string, values: Float32Array, rounded: Float32Array): void {
    const whole = this.#whole;
    for (let i = 0; i < values.length; i++) {
      if (!Number.isFinite(rounded[i]!) && Number.isFinite(values[i]!))
        throw new ArgumentError(
          `${name} has a weight of ${values[i]}, which ${this.dtype} cannot hold; write another type.`,
        );
      whole.largest = Math.max(whole.largest, Math.abs(values[i]! - rounded[i]!));
      whole.magnitude = Math.max(whole.magnitude, Math.abs(values[i]!));
    }
  }
}

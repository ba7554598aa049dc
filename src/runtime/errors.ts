import { printable } from "./printable.js";

/** Characters of a message, of which the last say what to do. */
const LONGEST = 2000;

/**
 * Typed errors. Every message names the place, the argument, what was expected and what came:
 * `ShapeError: lora.Linear.forward: x has shape [4, 512]; its last dimension must be inFeatures = 768.`
 * `code` is stable across releases; the wording is not.
 *
 * @example
 * try {
 *   tensor([1, 2, 3], [2, 2]);
 * } catch (error) {
 *   console.log(error instanceof ShapeError, error.code); // true ERR_SHAPE
 * }
 */
export class WasmLoraError extends Error {
  /** "ERR_SHAPE", "ERR_DTYPE", ...: one for each class. */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    // Names from files stand in messages, and messages on terminals: no control characters, and no megabytes.
    super(
      printable(message.length > LONGEST ? `${message.slice(0, LONGEST - 500)} ... ${message.slice(-500)}` : message),
      options,
    );
    this.code = code;
    this.name = NAMES[code] ?? "WasmLoraError";
  }
}

/** A tensor's shape or rank is not what the operation needs. */
export class ShapeError extends WasmLoraError {
  constructor(message: string) {
    super("ERR_SHAPE", message);
  }
}

/** A tensor's dtype, or a value's type, is not what the operation needs. */
export class DTypeError extends WasmLoraError {
  constructor(message: string) {
    super("ERR_DTYPE", message);
  }
}

/** An argument is out of its range: NaN learning rate, token id beyond the vocabulary, negative rank. */
export class ArgumentError extends WasmLoraError {
  constructor(message: string) {
    super("ERR_ARGUMENT", message);
  }
}

/** A tensor, module or engine was used after it was disposed, or belongs to another engine. */
export class DisposedError extends WasmLoraError {
  constructor(message: string) {
    super("ERR_DISPOSED", message);
  }
}

/** An operation is not allowed in the present state (for example: backward() twice over one graph). */
export class StateError extends WasmLoraError {
  constructor(message: string) {
    super("ERR_STATE", message);
  }
}

/**
 * Linear memory could not grow. What ran out of it has changed nothing, but for `backward()`, whose graph is used up:
 * drop the gradients (`zeroGrad()`) and do the step again.
 */
export class OutOfMemoryError extends WasmLoraError {
  constructor(
    /** Bytes that were asked for. */
    readonly requested: number,
    /** Bytes in use then. */
    readonly live: number,
    /** Limit of linear memory in bytes: `maximumBytes` of `init`. */
    readonly limit: number,
  ) {
    super(
      "ERR_OUT_OF_MEMORY",
      `${requested} bytes were requested with ${live} live; the limit is ${limit} bytes. ` +
        `Free tensors (scope, dispose), use a smaller batch, or raise maximumBytes in init().`,
    );
  }
}

/** The engine cannot be used: not initialised, or a kernel trapped and left memory in doubt. */
export class EngineError extends WasmLoraError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_ENGINE", message, options);
  }
}

/**
 * A loss, a gradient or a weight of a training is not finite, mostly since the learning rate is too high. Nothing was
 * updated; what comes of it is not worth keeping.
 */
export class DivergedError extends WasmLoraError {
  constructor(
    message: string,
    /** What is not finite, as a clause: "the loss of step 3 is NaN". */
    readonly reason: string,
    options?: ErrorOptions,
  ) {
    super("ERR_DIVERGED", message, options);
  }
}

/** A file's bytes are not what its format demands. */
export class FormatError extends WasmLoraError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_FORMAT", message, options);
  }
}

/** A file is missing, unreadable or unwritable. */
export class FileError extends WasmLoraError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_FILE", message, options);
  }
}

/** Written out, since minifiers rename classes and messages start with the name. */
const NAMES: Readonly<Record<string, string>> = {
  ERR_SHAPE: "ShapeError",
  ERR_DTYPE: "DTypeError",
  ERR_ARGUMENT: "ArgumentError",
  ERR_DISPOSED: "DisposedError",
  ERR_STATE: "StateError",
  ERR_OUT_OF_MEMORY: "OutOfMemoryError",
  ERR_ENGINE: "EngineError",
  ERR_DIVERGED: "DivergedError",
  ERR_FORMAT: "FormatError",
  ERR_FILE: "FileError",
};

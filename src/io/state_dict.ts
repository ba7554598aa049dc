/** Any module's or optimiser's state as one safetensors file: torch.save(model.state_dict(), path) and torch.load. */
import { ArgumentError, FormatError } from "../runtime/errors.js";
import type { StateEntry } from "../runtime/state_entry.js";
import { digestOfTensors } from "./digest.js";
import { readBytes, writeAtomic } from "./files.js";
import { show } from "./json.js";
import { parseSafetensors, serializeSafetensors, toFloat32 } from "./safetensors.js";

/**
 * Writes a state dict, the same bytes for the same state in any order; a file there is replaced as a whole. A parameter
 * that has two names is written under both, as safetensors in Python asks for. In Python:
 * `safetensors.torch.load_file(path)`.
 *
 * @param state what `stateDict()` of a module or an optimiser gives
 * @throws ArgumentError, before anything is written, for a value that is not finite, naming its place, or what is no
 * state dict; FileError
 *
 * @example
 * const model = new nn.Linear(8, 4);
 * io.saveStateDict("head.safetensors", model.stateDict());
 * model.loadStateDict(io.loadStateDict("head.safetensors"));
 */
export function saveStateDict(path: string, state: ReadonlyMap<string, StateEntry>): void {
  const tensors = finiteTensors("saveStateDict", state);
  const digest = digestOfTensors(
    tensors.map((tensor) => ({ ...tensor, bytes: tensor.data })),
    { format: "pt" },
  );
  writeAtomic(path, serializeSafetensors(tensors, { format: "pt", digest }));
}

/**
 * Reads a state dict, ours or Python's; F16, BF16 and F64 become float32. A digest of the contents, which
 * `saveStateDict` writes, is checked.
 *
 * @returns tensors by name, for `loadStateDict` of a module
 * @throws FileError; FormatError for a damaged file or a tensor of another dtype
 *
 * @example
 * const model = new nn.Linear(8, 4);
 * io.saveStateDict("head.safetensors", model.stateDict());
 * console.log([...io.loadStateDict("head.safetensors").keys()].join(" ")); // bias weight
 */
export function loadStateDict(path: string): Map<string, StateEntry> {
  const { metadata, tensors } = parseSafetensors(readBytes(path), { name: path });
  if (metadata["digest"] !== undefined && metadata["digest"] !== digestOfTensors(tensors.values(), metadata)) {
    throw new FormatError(
      `${path}: its contents are not what was written (their SHA-256 is another); restore the file from a copy.`,
    );
  }
  return new Map([...tensors].map(([key, view]) => [key, { shape: view.shape, data: toFloat32(view) }]));
}

/**
 * A state dict for `serializeSafetensors`.
 * @throws ArgumentError for a value that is not finite, naming its place, or what is no state dict
 */
export function finiteTensors(
  where: string,
  state: ReadonlyMap<string, StateEntry>,
): { name: string; dtype: "F32"; shape: readonly number[]; data: Float32Array }[] {
  if (!(state instanceof Map))
    throw new ArgumentError(`${where}: state is ${typeof state}; expected a Map, as model.stateDict() gives it.`);
  return [...state].map(([name, entry]) => {
    const { shape, data } = entry ?? {};
    if (!Array.isArray(shape) || !(data instanceof Float32Array))
      throw new ArgumentError(`${where}: ${show(name)} has no shape and data (a Float32Array).`);
    const bad = data.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0)
      throw new ArgumentError(
        `${where}: ${show(name)} holds ${data[bad]} at position ${bad}; nothing that is not finite is written. ` +
          `Save a state from before it diverged.`,
      );
    return { name, dtype: "F32", shape, data };
  });
}

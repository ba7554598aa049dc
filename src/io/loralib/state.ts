/**
 * loralib's checkpoints, lora_state_dict(model), as one safetensors file:
 *
 *   <module>.lora_A, <module>.lora_B   two-dimensional; the shapes are those of the layer's class
 *   ...bias                            with bias "all" or "lora_only"
 *
 * A single layer's keys have no <module>. In Python: `model.load_state_dict(safetensors.torch.load_file(path),
 * strict=False)`, and `safetensors.torch.save_file(lora.lora_state_dict(model), path)`.
 * Source: microsoft/LoRA, loralib/utils.py (lora_state_dict), loralib/layers.py.
 */
import { ArgumentError, FormatError } from "../../runtime/errors.js";
import type { StateEntry } from "../../runtime/state_entry.js";
import { readBytes, writeAtomic } from "../files.js";
import { checkText, show } from "../json.js";
import { parseSafetensors, serializeSafetensors, toFloat32 } from "../safetensors.js";
import { finiteTensors } from "../state_dict.js";

/** What a state dict holds by its keys. */
export type LoralibState = Map<string, StateEntry>;

/**
 * Writes a state dict, the same bytes for the same state in any order; a file there is replaced as a whole.
 *
 * @throws ArgumentError, before anything is written, for what loadLoralib would refuse and for what is not finite;
 * FileError
 *
 * @example
 * const model = new lora.Linear(8, 8, { r: 2 });
 * io.saveLoralib("lora.safetensors", lora.loraStateDict(model));
 */
export function saveLoralib(path: string, state: LoralibState): void {
  checkText("saveLoralib", "path", path);
  checkLoralib(state, (message) => {
    throw new ArgumentError(`saveLoralib: ${message}.`);
  });
  writeAtomic(path, serializeSafetensors(finiteTensors("saveLoralib", state), { format: "pt" }));
}

/**
 * Reads a state dict; F16, BF16 and F64 become float32.
 *
 * @throws FileError; FormatError for a damaged file, a key that is not loralib's, a factor without its partner or
 * of another shape than loralib gives it
 *
 * @example
 * const model = new lora.Linear(8, 8, { r: 2 });
 * io.saveLoralib("lora.safetensors", lora.loraStateDict(model));
 * model.loadStateDict(io.loadLoralib("lora.safetensors"), false);
 */
export function loadLoralib(path: string): LoralibState {
  checkText("loadLoralib", "path", path);
  const file = parseSafetensors(readBytes(path), { name: path });
  checkLoralib(file.tensors, (message) => {
    throw new FormatError(`${path}: ${message}.`);
  });
  return new Map([...file.tensors].map(([key, view]) => [key, { shape: view.shape, data: toFloat32(view) }]));
}

/** The path of a key's module ("" if it is the model itself), and which factor it is; null if it is none. */
export function loralibFactor(key: string): { module: string; factor: "A" | "B" } | null {
  const match = /^(?:(.*)\.)?lora_([AB])$/s.exec(key);
  return match && { module: match[1] ?? "", factor: match[2] as "A" | "B" };
}

/** Every key is loralib's, every factor has its partner, and their shapes are those of one layer. */
export function checkLoralib(
  state: ReadonlyMap<string, { shape: readonly number[] }>,
  fail: (message: string) => never,
): void {
  if (!((state as unknown) instanceof Map))
    fail(`state is ${show(state)}; expected a Map from keys to { shape, data }`);
  for (const [key, entry] of state) {
    const { shape } = ((entry as unknown) ?? {}) as { shape?: readonly number[] };
    if (!Array.isArray(shape)) return fail(`tensor ${show(key)} has no shape`);
    const which = `tensor ${show(key)}`;
    const factor = loralibFactor(key);
    if (!factor) {
      if (key.startsWith("base_model.model.") || /\.lora_/.test(key))
        fail(`${which} has a name of PEFT's; readPeftAdapter reads PEFT's folders`);
      if (!key.includes("bias"))
        fail(`${which} is neither lora_A nor lora_B of a module, nor a bias; a loralib checkpoint holds nothing else`);
      continue;
    }
    const partner = key.slice(0, -1) + (factor.factor === "A" ? "B" : "A");
    const partnerShape = state.get(partner)?.shape ?? fail(`${which} has no partner ${show(partner)}`);
    if (shape.length !== 2 || shape.includes(0))
      fail(`${which} has shape ${show(shape)}; expected two dimensions, none of them 0`);
    // MergedLinear's A has the rows of each of its blocks, B the columns of one.
    if (factor.factor === "A" && shape[0]! % partnerShape[1]! !== 0) {
      fail(
        `${which} has shape ${show(shape)}; its first dimension must be a multiple of ${partnerShape[1]}, the ` +
          `second of ${show(partner)}`,
      );
    }
  }
}

/**
 * A run's state as one safetensors file, and back: the factors, the optimiser's moments and the losses as tensors, the
 * rest in the metadata's entry "run", and a digest over it all in "digest". Where the bytes go is the caller's affair:
 * a disk, a page's IndexedDB, a Worker's storage.
 */
import { digestOfTensors } from "../io/digest.js";
import { asObject } from "../io/json.js";
import { parseSafetensors, serializeSafetensors, toFloat32 } from "../io/safetensors.js";
import type { StateDict } from "../nn/module.js";
import { ArgumentError, DivergedError, FormatError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { checkState, type FinetuningState } from "./finetuning.js";

const FORMAT = "wasm-lora-run";

/** A state read from a file. */
export interface Checkpoint {
  /** For `Finetuning.restore`. */
  state: FinetuningState;
  /** What was written beside it, as JSON has it. Whoever wrote it knows what it must be. */
  notes: Record<string, unknown>;
}

/**
 * A run's state as bytes, with a digest (SHA-256) that `decodeCheckpoint` compares.
 *
 * @param notes what is to be found beside the state, such as the settings: anything that JSON holds, by names other
 * than "step" and "dropoutStream"
 * @throws DivergedError if a value is not finite; ArgumentError on what is no state, or notes that cannot be kept
 *
 * @example
 * const { model, tokenizer } = await models.loadBase();
 * const tokens = tokenizer.encode("Fresh bread comes out of the oven at seven. ".repeat(8));
 * const settings = { steps: 4, batch: 2, seq: 8 };
 * const run = new train.Finetuning(model, tokens, settings);
 * run.step();
 * const bytes = train.encodeCheckpoint(run.state(), { settings });
 * // later, perhaps elsewhere
 * const { state, notes } = train.decodeCheckpoint(bytes);
 * const again = new train.Finetuning((await models.loadBase()).model, tokens, notes.settings);
 * again.restore(state);
 * console.log(again.step() === run.step()); // true
 */
export function encodeCheckpoint(state: FinetuningState, notes: Readonly<Record<string, unknown>> = {}): Uint8Array {
  const where = "encodeCheckpoint";
  checkState(where, state);
  const { losses, factors, optimizer, dropoutStream } = state;
  const run = runOf(where, notes, { step: losses.length, dropoutStream });
  const reason = whereNotFinite({ losses, factors, optimizer });
  if (reason) throw new DivergedError(`${where}: ${reason}: the run diverged, and must not go on from here.`, reason);
  const entries = (prefix: string, state: StateDict) =>
    [...state].map(([name, { shape, data }]) => ({ name: `${prefix}.${name}`, dtype: "F32" as const, shape, data }));
  const tensors = [
    { name: "losses", dtype: "F32" as const, shape: [losses.length], data: Float32Array.from(losses) },
    ...entries("factors", factors),
    ...entries("optimizer", optimizer),
  ];
  const metadata = { format: FORMAT, run };
  const digest = digestOfTensors(
    tensors.map((t) => ({ ...t, bytes: t.data })),
    metadata,
  );
  return serializeSafetensors(tensors, { ...metadata, digest });
}

/**
 * What `encodeCheckpoint` wrote.
 * @param name of the file, for errors
 * @throws FormatError if it is not a run's checkpoint, or is damaged, or its run had diverged
 *
 * @example
 * const state = { losses: [2.5], factors: new Map(), optimizer: new Map(), dropoutStream: 0 };
 * const bytes = train.encodeCheckpoint(state, { prompt: "We" });
 * console.log(train.decodeCheckpoint(bytes).notes); // { prompt: 'We' }
 */
export function decodeCheckpoint(bytes: Uint8Array, name = "checkpoint"): Checkpoint {
  const fail = (message: string): never => {
    throw new FormatError(`${name}: ${message}.`);
  };
  const { metadata, tensors } = parseSafetensors(bytes, { name });
  const losses = tensors.get("losses");
  if (metadata["format"] !== FORMAT || !losses)
    return fail(`not the checkpoint of a run (its metadata's format is ${metadata["format"] ?? "absent"})`);
  // Files of before have none.
  if (metadata["digest"] !== undefined && metadata["digest"] !== digestOfTensors(tensors.values(), metadata))
    fail("it is damaged: its contents are not those that were written, by their digest");
  const pick = (prefix: string): StateDict =>
    new Map(
      [...tensors.values()]
        .filter((t) => t.name.startsWith(`${prefix}.`))
        .map((t) => [t.name.slice(prefix.length + 1), { shape: t.shape, data: toFloat32(t) }]),
    );
  const { step, dropoutStream, ...notes } = parseRun(metadata["run"] ?? "", fail);
  const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  if (!isCount(step) || !isCount(dropoutStream))
    return fail("its metadata's run lacks step or dropoutStream, which are counts");
  const state = {
    losses: [...toFloat32(losses)],
    factors: pick("factors"),
    optimizer: pick("optimizer"),
    dropoutStream,
  };
  if (step !== state.losses.length)
    fail(`it holds ${state.losses.length} losses; expected one for each of ${step} steps`);
  const reason = whereNotFinite(state);
  if (reason) fail(`${reason}: the run had diverged`);
  return { state, notes };
}

/** The metadata's entry "run". */
function runOf(where: string, notes: unknown, own: Readonly<Record<string, number>>): string {
  if (!asObject(notes)) throw new ArgumentError(`${where}: notes must be an object; got ${shown(notes)}.`);
  const taken = Object.keys(own).find((name) => Object.hasOwn(notes as object, name));
  if (taken !== undefined) throw new ArgumentError(`${where}: notes must not have "${taken}": it is the state's own.`);
  try {
    return JSON.stringify({ ...(notes as object), ...own });
  } catch (cause) {
    throw new ArgumentError(`${where}: notes must be what JSON can hold: ${(cause as Error).message}.`);
  }
}

function parseRun(text: string, fail: (message: string) => never): Record<string, unknown> {
  let run: unknown;
  try {
    run = JSON.parse(text);
  } catch {
    fail("its metadata's run is not JSON");
  }
  return asObject(run) ?? fail("its metadata's run is no object");
}

/** What must not be kept, in words; undefined where all is finite. */
function whereNotFinite({
  losses,
  factors,
  optimizer,
}: Pick<FinetuningState, "losses" | "factors" | "optimizer">): string | undefined {
  const bad = losses.findIndex((loss) => !Number.isFinite(loss));
  if (bad >= 0) return `the loss of step ${bad + 1} is ${losses[bad]}`;
  for (const [what, state] of [
    ["factor", factors],
    ["the optimiser's state", optimizer],
  ] as const) {
    for (const [name, { data }] of state) {
      const value = data.find((v) => !Number.isFinite(v));
      if (value !== undefined) return `${what} ${name} holds ${value}`;
    }
  }
  return undefined;
}

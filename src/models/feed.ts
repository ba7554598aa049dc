/** Brings a folder's weights from its files into linear memory, a few MB at a time: no file is ever there whole. */
import type { OpenWeights, PlacedTensor, WeightIndex } from "../io/huggingface.js";
import type { StreamedWeights } from "../io/streamed_weights.js";
import { FormatError } from "../runtime/errors.js";
import { Tensor } from "../tensor/tensor.js";
import type { OnProgress } from "./load_progress.js";
import { TensorWriter } from "./tensor_writer.js";

/** Bytes that are read at a time: few reads, and next to nothing beside the weights. */
const PIECE_BYTES = 4 << 20;
/** A stream is begun anew rather than read on, where so much of it would be left out: a head that is the table. */
const FAR_BYTES = 16 << 20;

/** The tensors of the files that are loaded, with what they become. @internal */
export type Destinations = ReadonlyMap<PlacedTensor, Destination>;
/** A tensor, or what makes one of several of the files. @internal */
export type Destination = Tensor | Pick<TensorWriter, "write">;

/** @throws FileError; FormatError naming the folder for a value that cannot be taken @internal */
export function feed(
  directory: string,
  files: OpenWeights,
  destinations: Destinations,
  onProgress: OnProgress | undefined,
): void {
  const buffer = new Uint8Array(PIECE_BYTES);
  for (const [path, tensors] of byFile(files)) {
    const told = progressOf(files, path, onProgress);
    for (const stored of tensors) {
      const writer = writerOf(directory, stored, destinations);
      for (let from = 0; writer && from < stored.length; ) {
        const piece = buffer.subarray(0, Math.min(PIECE_BYTES, stored.length - from));
        files.read(stored, from, piece);
        writer(piece);
        from += piece.length;
        told(stored.begin + from);
      }
    }
  }
}

/**
 * As `feed`, from streams.
 * @throws FormatError also for a file that is cut off, or goes on behind its last tensor
 * @internal
 */
export async function feedStreams(
  directory: string,
  files: StreamedWeights,
  destinations: Destinations,
  onProgress: OnProgress | undefined,
): Promise<void> {
  for (const [path, tensors] of byFile(files)) {
    const told = progressOf(files, path, onProgress);
    const size = files.sizes.get(path)!;
    let reader = files.data(path);
    let at = tensors[0]?.begin ?? size;
    const take = async (most: number): Promise<Uint8Array> => {
      const piece = await reader.part(most);
      if (!piece)
        throw new FormatError(`${path}: it ends after ${at} of ${size} bytes: it is cut off, so fetch it again.`);
      at += piece.length;
      told(at);
      return piece;
    };
    try {
      for (const stored of tensors) {
        const writer = writerOf(directory, stored, destinations);
        if (!writer) continue;
        if (stored.begin - at > FAR_BYTES) {
          await reader.close();
          reader = files.from(path, (at = stored.begin));
        }
        while (at < stored.begin) await take(stored.begin - at);
        while (at < stored.begin + stored.length) writer(await take(stored.begin + stored.length - at));
      }
      // What is left out at a file's end need not come.
      if (size - at > FAR_BYTES) {
        told(size);
        continue;
      }
      while (at < size) await take(size - at);
      const { padding = 0 } = files;
      if ((await reader.take(padding + 1)).length > padding)
        throw new FormatError(`${path}: the tensors end at byte ${size}, and the file goes on.`);
    } finally {
      await reader.close();
    }
  }
}

/** Whether two tensors have the same bytes. @throws FileError @internal */
export function areEqual(files: OpenWeights, a: PlacedTensor, b: PlacedTensor): boolean {
  if (!mayBeEqual(a, b)) return false;
  const [one, other] = [new Uint8Array(PIECE_BYTES / 2), new Uint8Array(PIECE_BYTES / 2)];
  for (let from = 0; from < a.length; from += one.length) {
    const length = Math.min(one.length, a.length - from);
    const pieces = [one.subarray(0, length), other.subarray(0, length)] as const;
    files.read(a, from, pieces[0]);
    files.read(b, from, pieces[1]);
    if (!haveSameBytes(...pieces)) return false;
  }
  return true;
}

/** As `areEqual`, in two streams side by side. @internal */
export async function areStreamsEqual(files: StreamedWeights, a: PlacedTensor, b: PlacedTensor): Promise<boolean> {
  if (!mayBeEqual(a, b)) return false;
  const readers = [files.from(a.file, a.begin), files.from(b.file, b.begin)] as const;
  try {
    for (let from = 0; from < a.length; ) {
      const one = await readers[0].part(a.length - from);
      const other = one && (await readers[1].take(one.length));
      if (!one || !haveSameBytes(one, other!)) return false;
      from += one.length;
    }
    return true;
  } finally {
    for (const reader of readers) await reader.close();
  }
}

function mayBeEqual(a: PlacedTensor, b: PlacedTensor): boolean {
  return a.dtype === b.dtype && a.length === b.length;
}

function haveSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Each file's tensors in the order of their data. */
function byFile({ tensors, sizes }: WeightIndex): Map<string, PlacedTensor[]> {
  const files = new Map(Array.from(sizes, ([path]) => [path, [] as PlacedTensor[]]));
  for (const tensor of tensors.values()) files.get(tensor.file)!.push(tensor);
  return files;
}

function progressOf({ sizes }: WeightIndex, path: string, onProgress?: OnProgress): (loaded: number) => void {
  const progress = { file: path.slice(path.lastIndexOf("/") + 1), total: sizes.get(path)! };
  return (loaded) => onProgress?.({ ...progress, loaded });
}

/** Takes a tensor's bytes; undefined for one that is left out. */
function writerOf(
  directory: string,
  stored: PlacedTensor,
  destinations: Destinations,
): ((bytes: Uint8Array) => void) | undefined {
  const destination = destinations.get(stored);
  if (!destination) return undefined;
  const writer = destination instanceof Tensor ? new TensorWriter(destination, stored) : destination;
  return (bytes) => {
    try {
      writer.write(bytes);
    } catch (cause) {
      if (!(cause instanceof FormatError)) throw cause;
      throw new FormatError(`${directory}: ${cause.message}`, { cause });
    }
  };
}

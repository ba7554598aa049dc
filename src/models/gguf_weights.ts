/** The weights of GGUF files, as those of a folder; gguf.ts says what is what in them. */
import { openGguf, openStreamedGguf, type GgufIndex } from "../io/gguf/files.js";
import type { GgufTensor } from "../io/gguf/header.js";
import type { GgufMetadata } from "../io/gguf/types.js";
import type { OpenWeights } from "../io/huggingface.js";
import type { StreamedFile } from "../io/streamed_file.js";
import type { StreamedWeights } from "../io/streamed_weights.js";
import { FormatError } from "../runtime/errors.js";
import { baseOfGguf, configOfGguf, weightsOfGguf } from "./gguf.js";
import { FACTORS, type Factors } from "./gguf_rope.js";

/** A model's weights, its config.json and all that the file says of itself. @internal */
export type WithConfig<W> = W & { readonly json: Record<string, unknown>; readonly gguf: GgufMetadata };

/**
 * Opens a GGUF file, or all parts of one that was split.
 * @throws FileError, FormatError
 * @internal
 */
export function openGgufWeights(path: string): WithConfig<OpenWeights> {
  const file = openGguf(path);
  try {
    const factors: Factors = {};
    for (const [name, tensor] of factorsOf(file)) {
      const bytes = new Uint8Array(tensor.length);
      file.read(tensor.file, tensor.begin, bytes);
      factors[name] = valuesOf(bytes);
    }
    const json = configOfGguf(file, factors);
    return {
      ...weightsOfGguf(file, json),
      json,
      gguf: file.metadata,
      read: (tensor, from, into) => file.read(tensor.file, tensor.begin + from, into),
      close: () => file.close(),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * As `openGgufWeights`, from files that come as streams.
 * @param open the file of a path
 * @throws FileError, FormatError
 * @internal
 */
export async function openStreamedGgufWeights(
  path: string,
  open: (path: string) => Promise<StreamedFile>,
): Promise<WithConfig<StreamedWeights>> {
  const file = await openStreamedGguf(path, open);
  try {
    const factors: Factors = {};
    for (const [name, tensor] of factorsOf(file)) {
      const reader = file.from(tensor.file, tensor.begin);
      try {
        factors[name] = valuesOf(await reader.take(tensor.length));
      } finally {
        await reader.close();
      }
    }
    const json = configOfGguf(file, factors);
    return {
      ...weightsOfGguf(file, json),
      json,
      gguf: file.metadata,
      data: file.data,
      from: file.from,
      close: file.close,
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** `baseOfGguf` of a file. @throws FileError, FormatError @internal */
export function baseOfGgufFile(path: string): string | undefined {
  const file = openGguf(path);
  file.close();
  return baseOfGguf(file.metadata);
}

/** No model's heads are wider. */
const MOST_FACTORS = 4096;

/** @throws FormatError for one that is no list of float32 */
function factorsOf({ tensors }: GgufIndex): [(typeof FACTORS)[number], GgufTensor & { file: string }][] {
  return FACTORS.flatMap((name) => {
    const tensor = tensors.get(name);
    if (!tensor) return [];
    if (tensor.dtype !== "float32" || tensor.shape.length !== 1 || tensor.shape[0]! > MOST_FACTORS)
      throw new FormatError(
        `${tensor.file}: tensor ${name} is ${tensor.dtype} of shape [${tensor.shape.join(", ")}]; expected a list of ` +
          `float32, one for each pair of a head's values.`,
      );
    return [[name, tensor]];
  });
}

function valuesOf(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

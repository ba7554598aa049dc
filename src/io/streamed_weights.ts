/** The weights of a folder whose files come as streams; huggingface.ts has those on disk. */
import { FileError } from "../runtime/errors.js";
import { INDEX_FILE, joinHeaders, MODEL_FILE, parseWeightMap, type WeightIndex } from "./huggingface.js";
import { headerEnd, parseHeader, START_BYTES, type SafetensorsHeader } from "./safetensors_header.js";
import { readStreamed, StreamReader, type StreamedFile, type StreamedFolder } from "./streamed_file.js";

/** A folder's weights, of which the headers have come. @internal */
export interface StreamedWeights extends WeightIndex {
  /**
   * The bytes of a file's tensors, from the first tensor's on. Of a model in one file the stream goes on that the
   * header came with.
   */
  data(path: string): StreamReader;
  /** The bytes of a file from there on, in a stream of its own. */
  from(path: string, at: number): StreamReader;
  /** Ends what has not been asked for. */
  close(): Promise<void>;
}

/**
 * Reads the headers of a folder's weights, and nothing of their data.
 * @throws FileError if there are no weights or a file is missing; FormatError as `openWeights`
 * @internal
 */
export async function openStreamedWeights(folder: StreamedFolder): Promise<StreamedWeights> {
  const whole = await folder.open(MODEL_FILE, true);
  let shardOf: Map<string, string> | undefined;
  const files = new Map<string, StreamedFile>();
  if (whole) files.set(whole.path, whole);
  else {
    const index = await folder.open(INDEX_FILE, true);
    if (!index)
      throw new FileError(
        `cannot read weights from ${folder.path}: neither ${MODEL_FILE} nor ${INDEX_FILE} is there; check the path, ` +
          `and save pickled weights (.bin) as safetensors.`,
      );
    shardOf = parseWeightMap(await readStreamed(index), index.path);
  }
  const headers = new Map<string, SafetensorsHeader>();
  let open: StreamReader | undefined;
  for (const shard of shardOf ? new Set(shardOf.values()) : [MODEL_FILE]) {
    const file = whole ?? (await folder.open(shard, false))!;
    files.set(file.path, file);
    const reader = new StreamReader(file.stream(0));
    try {
      headers.set(file.path, await streamedHeader(file, reader));
      if (whole) open = reader;
    } finally {
      if (!open) await reader.close();
    }
  }
  return {
    ...joinHeaders(folder.path, headers, shardOf),
    data: (path) => {
      const reader = open ?? new StreamReader(files.get(path)!.stream(headers.get(path)!.dataStart));
      open = undefined;
      return reader;
    },
    from: (path, at) => new StreamReader(files.get(path)!.stream(at)),
    close: async () => open?.close(),
  };
}

async function streamedHeader({ path, size }: StreamedFile, reader: StreamReader): Promise<SafetensorsHeader> {
  const start = await reader.take(START_BYTES);
  const end = headerEnd(start, start.length < START_BYTES ? start.length : size, path);
  reader.giveBack(start);
  const header = await reader.take(end);
  // Cut off before its end, as a stream may be whose length nobody knew.
  if (header.length < end) headerEnd(header, header.length, path);
  return parseHeader(header, size, path);
}

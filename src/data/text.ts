/** The text of a file, whatever editor wrote it. */
import { ArgumentError, FormatError } from "../runtime/errors.js";

/** The byte order mark of each encoding, at the start of a file. */
const MARKS: Readonly<Record<Encoding, readonly number[]>> = {
  "utf-8": [0xef, 0xbb, 0xbf],
  "utf-16le": [0xff, 0xfe],
  "utf-16be": [0xfe, 0xff],
};
/** How much of a file without a mark is looked at to tell UTF-16 from UTF-8. */
const SAMPLE_BYTES = 4096;
/** The longest string of V8 has so many characters; other engines' are longer. */
const MOST_BYTES = 536_870_888;

/**
 * The text of a file: UTF-8 or UTF-16, with or without a byte order mark, which is left out. UTF-16 without a mark is
 * told by its NULs: each space has one there, and UTF-8 has none. A file that is neither is
 * refused: nobody learns from bytes that were read as the wrong letters.
 *
 * @param name of the file, for errors
 * @throws FormatError naming the file and the first byte that is no text; ArgumentError if bytes are none
 *
 * @example
 * console.log(data.decodeText(Uint8Array.of(0x43, 0, 0x61, 0, 0x66, 0, 0xe9, 0), "menu.txt")); // Café
 */
export function decodeText(bytes: Uint8Array, name = "text"): string {
  if (!(bytes instanceof Uint8Array))
    throw new ArgumentError(`decodeText: bytes must be a Uint8Array; got ${bytes === null ? "null" : typeof bytes}.`);
  if (bytes.length > MOST_BYTES)
    throw new FormatError(
      `${name}: the file has ${bytes.length} bytes; at most ${MOST_BYTES} of text are taken. Take a part of it.`,
    );
  const encoding = encodingOf(bytes);
  const mark = MARKS[encoding].every((byte, i) => bytes[i] === byte) ? MARKS[encoding].length : 0;
  // The copy is for browsers, whose TextDecoder refuses shared memory.
  const text = new Uint8Array(bytes.subarray(mark));
  const fault = encoding === "utf-8" ? faultOfUtf8(text) : faultOfUtf16(text, encoding === "utf-16le");
  if (fault >= 0) {
    const at = fault + mark;
    const byte = bytes[at]!;
    const lines = decode(text.subarray(0, fault), encoding).split("\n");
    const what =
      byte === 0 && encoding === "utf-8"
        ? "a NUL, as in no text"
        : `0x${byte.toString(16).padStart(2, "0")}, which is not ${encoding.toUpperCase()}`;
    throw new FormatError(
      `${name}: byte ${at} (line ${lines.length}, column ${lines.at(-1)!.length + 1}) is ${what}; expected a text in ` +
        `UTF-8 or UTF-16. Save it as UTF-8, or name a file of text.`,
    );
  }
  return decode(text, encoding);
}

function decode(bytes: Uint8Array, encoding: Encoding): string {
  return encoding === "utf-8"
    ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)
    : decodeUtf16(bytes, encoding === "utf-16le");
}

/** Decodes by itself, since not every runtime's TextDecoder knows both orders of bytes. */
function decodeUtf16(bytes: Uint8Array, littleEndian: boolean): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts: string[] = [];
  for (let start = 0; start < bytes.length; start += 16384) {
    const units = Array.from({ length: Math.min(bytes.length - start, 16384) / 2 }, (_, i) =>
      view.getUint16(start + 2 * i, littleEndian),
    );
    parts.push(String.fromCharCode(...units));
  }
  return parts.join("");
}

/** An encoding by the name that TextDecoder knows it by. */
export type Encoding = "utf-8" | "utf-16le" | "utf-16be";

/** How a text's bytes are to be read, by its mark or its NULs. */
export function encodingOf(bytes: Uint8Array): Encoding {
  const [a, b] = bytes;
  if (a === 0xff && b === 0xfe) return "utf-16le";
  if (a === 0xfe && b === 0xff) return "utf-16be";
  const sample = bytes.subarray(0, SAMPLE_BYTES);
  const pairs = sample.length >> 1;
  let even = 0;
  let odd = 0;
  for (let i = 0; i < 2 * pairs; i += 2) {
    if (sample[i] === 0) even++;
    if (sample[i + 1] === 0) odd++;
  }
  // Spaces, digits and ends of lines are ASCII in any script, so in UTF-16 one half of them is zero, always the same
  // one; characters whose other half is zero are rare. A single zero in a longer text proves nothing.
  if (bytes.length % 2 === 0 && Math.max(even, odd) >= Math.max(Math.min(2, pairs), pairs / 50) && even !== odd) {
    if (20 * even <= odd) return "utf-16le";
    if (20 * odd <= even) return "utf-16be";
  }
  return "utf-8";
}

/** Where the bytes cease to be text in UTF-8, or -1. */
function faultOfUtf8(bytes: Uint8Array): number {
  const nul = bytes.indexOf(0);
  const valid = validUtf8(bytes) ? bytes.length : firstInvalid(bytes);
  return nul >= 0 && nul < valid ? nul : valid < bytes.length ? valid : -1;
}

function validUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** By halves: the longest beginning that is valid, but for a character that is cut at its end. */
function firstInvalid(bytes: Uint8Array): number {
  let low = 0;
  let high = bytes.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (beginsWell(bytes.subarray(0, middle))) low = middle;
    else high = middle - 1;
  }
  // What is cut at the end of the file, or by the byte that is wrong, begins up to three bytes before.
  while (low > 0 && (bytes[low - 1]! & 0xc0) === 0x80 && !validUtf8(bytes.subarray(0, low))) low--;
  return low > 0 && !validUtf8(bytes.subarray(0, low)) ? low - 1 : low;
}

function beginsWell(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return true;
  } catch {
    return false;
  }
}

/** Where a NUL, a lone surrogate or half a unit stands in UTF-16, or -1. */
function faultOfUtf16(bytes: Uint8Array, littleEndian: boolean): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const units = bytes.length >> 1;
  for (let i = 0; i < units; i++) {
    const unit = view.getUint16(2 * i, littleEndian);
    if (unit >= 0xd800 && unit <= 0xdfff) {
      const paired = unit < 0xdc00 && i + 1 < units && (view.getUint16(2 * i + 2, littleEndian) & 0xfc00) === 0xdc00;
      if (!paired) return 2 * i;
      i++;
    } else if (unit === 0) return 2 * i;
  }
  return bytes.length % 2 === 1 ? bytes.length - 1 : -1;
}

/**
 * GPT-2's characters for bytes: printable Latin-1 stands for itself, the other bytes for U+0100 onwards.
 * Source: Radford et al. 2019, encoder.py (bytes_to_unicode).
 */
const CHARACTERS: string[] = [];
const BYTES = new Map<string, number>();
for (let byte = 0, next = 256; byte < 256; byte++) {
  const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  CHARACTERS[byte] = String.fromCharCode(printable ? byte : next++);
  BYTES.set(CHARACTERS[byte]!, byte);
}
const encoder = new TextEncoder();

/** A character for each byte of the text's UTF-8. */
export function toByteCharacters(text: string): string {
  let characters = "";
  for (const byte of encoder.encode(text)) characters += CHARACTERS[byte];
  return characters;
}

/** The bytes of a token; one with any other character stands for itself. */
export function tokenBytes(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => BYTES.get(character));
  return bytes.includes(undefined) ? encoder.encode(token) : Uint8Array.from(bytes as number[]);
}

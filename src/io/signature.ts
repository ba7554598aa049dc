/** What a file is that is not what its name says: the cause behind most "damaged" downloads. */

const SIGNATURES: readonly [readonly number[], string][] = [
  [[0x50, 0x4b, 0x03, 0x04], "a zip archive; if torch.save wrote it (.bin, .pt), save the weights as safetensors"],
  [[0x80, 0x02], "a pickle; save the weights as safetensors"],
  [[0x80, 0x03], "a pickle; save the weights as safetensors"],
  [[0x80, 0x04], "a pickle; save the weights as safetensors"],
  [[0x80, 0x05], "a pickle; save the weights as safetensors"],
  [[0x47, 0x47, 0x55, 0x46], "a GGUF file; give it a name that ends with .gguf, and name the file itself"],
  [[0x1f, 0x8b], "compressed by gzip; unpack it"],
  [[0xff, 0xfe], "UTF-16; save it as UTF-8"],
  [[0xfe, 0xff], "UTF-16; save it as UTF-8"],
];

/** Bytes at a file's start that are looked at. */
const LOOKED_AT = 512;

/** What the bytes are, with what to do, or undefined if nothing tells. Only asked for a file that was refused. */
export function signatureOf(bytes: Uint8Array): string | undefined {
  if (bytes.length === 0) return "empty; its download or its writer failed, so fetch it again";
  const text = Array.from(bytes.subarray(0, LOOKED_AT), (byte) => String.fromCharCode(byte)).join("");
  if (text.startsWith("version https://git-lfs.github.com/spec/"))
    return "a git-lfs pointer, not the file that it stands for; run `git lfs pull`, or download the file itself";
  if (/^(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml|!--)/i.test(text))
    return (
      "a web page (HTML), which a server answered in place of the file; download it again, from a link to the " +
      "file itself"
    );
  return SIGNATURES.find(([start]) => start.every((byte, i) => bytes[i] === byte))?.[1];
}

/** Whether the bytes begin as text does: for files that never do. */
export function beginsAsText(bytes: Uint8Array): boolean {
  const start = bytes.subarray(0, 64);
  return (
    start.length > 0 &&
    start.every((byte) => (byte >= 0x20 && byte < 0x7f) || byte === 0x09 || byte === 0x0a || byte === 0x0d)
  );
}

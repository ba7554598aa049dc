/**
 * SHA-256 (FIPS 180-4), synchronous in every runtime: crypto.subtle answers later, node:crypto is Node's.
 */

/**
 * floor(2^32 x), mod 2^32, of the square (n = 2) or cube root (n = 3) x of p, found bit by bit: doubles hold these
 * products well enough.
 */
function rootBits(p: number, n: number): number {
  let x = 0;
  for (let bit = 16; bit >= 1 / 4294967296; bit /= 2)
    if ((x + bit) * (x + bit) * (n === 3 ? x + bit : 1) <= p) x += bit;
  return (x * 4294967296) | 0;
}

/** The first 64 primes: the constants are the fractional parts of their roots (FIPS 180-4, 4.2.2 and 5.3.3). */
const PRIMES: number[] = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((p) => n % p !== 0)) PRIMES.push(n);
const K = Int32Array.from(PRIMES, (p) => rootBits(p, 3));

/** What takes bytes in parts and gives a digest of them: `Sha256`, and node:crypto's Hash. */
export interface Hash {
  /** Takes the bytes of these values. */
  update(data: Uint8Array | Int32Array): unknown;
  /** Ends it: all digits in hexadecimal. */
  digest(encoding: "hex"): string;
}

/**
 * A digest of bytes that come in parts.
 *
 * `new Sha256().update(bytes).update(more).digest()`
 */
export class Sha256 implements Hash {
  readonly #state = Int32Array.from(PRIMES.slice(0, 8), (p) => rootBits(p, 2));
  readonly #words = new Int32Array(64);
  /** The bytes that came since the last whole block of 64. */
  readonly #block = new Uint8Array(64);
  #length = 0;

  /** Text is taken as UTF-8, a typed array as its bytes. */
  update(data: ArrayBufferView | string): this {
    const bytes =
      typeof data === "string"
        ? new TextEncoder().encode(data)
        : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    let at = 0;
    let filled = this.#length % 64;
    this.#length += bytes.length;
    if (filled > 0) {
      at = Math.min(bytes.length, 64 - filled);
      this.#block.set(bytes.subarray(0, at), filled);
      if ((filled += at) < 64) return this;
      this.#compress(this.#block, 0);
    }
    for (; at + 64 <= bytes.length; at += 64) this.#compress(bytes, at);
    this.#block.set(bytes.subarray(at));
    return this;
  }

  /** The digest in 64 hexadecimal digits. It ends this digest: nothing more can be added. */
  digest(): string {
    const end = new Uint8Array((this.#length % 64 < 56 ? 64 : 128) - (this.#length % 64));
    const bits = this.#length * 8;
    end[0] = 0x80;
    new DataView(end.buffer).setBigUint64(end.length - 8, BigInt(bits));
    this.update(end);
    return Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  #compress(bytes: Uint8Array, at: number): void {
    const w = this.#words;
    const s = this.#state;
    for (let i = 0; i < 16; i++, at += 4)
      w[i] = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15]!;
      const y = w[i - 2]!;
      w[i] =
        w[i - 16]! +
        w[i - 7]! +
        (((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)) +
        (((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10));
    }
    let a = s[0]!;
    let b = s[1]!;
    let c = s[2]!;
    let d = s[3]!;
    let e = s[4]!;
    let f = s[5]!;
    let g = s[6]!;
    let h = s[7]!;
    for (let i = 0; i < 64; i++) {
      const t =
        (h +
          (((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))) +
          ((e & f) ^ (~e & g)) +
          K[i]! +
          w[i]!) |
        0;
      const u =
        ((((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))) +
          ((a & b) ^ (a & c) ^ (b & c))) |
        0;
      h = g;
      g = f;
      f = e;
      e = (d + t) | 0;
      d = c;
      c = b;
      b = a;
      a = (t + u) | 0;
    }
    s[0]! += a;
    s[1]! += b;
    s[2]! += c;
    s[3]! += d;
    s[4]! += e;
    s[5]! += f;
    s[6]! += g;
    s[7]! += h;
  }
}

/**
 * One digest (SHA-256, FIPS 180-4) of what a safetensors file says: its tensors, by name, and its metadata but the
 * entry
 * `digest`, where a writer keeps this; a reader that finds the entry compares. 64 hexadecimal digits.
 *
 * @example
 * const weights = { name: "w", dtype: "F32", shape: [2], bytes: Float32Array.of(1, 2) };
 * const digest = io.digestOfTensors([weights], { step: "7" });
 * console.log(digest.length, digest === io.digestOfTensors([weights], { step: "8" })); // 64 false
 */
export function digestOfTensors(
  tensors: Iterable<{ name: string; dtype: string; shape: readonly number[]; bytes: ArrayBufferView }>,
  metadata: Readonly<Record<string, string>>,
): string {
  const digest = new Sha256();
  // The order that a file has them in says nothing. Lengths first, so that no two contents give the same bytes.
  const put = (header: string): void => {
    digest.update(`${header.length}:${header}`);
  };
  const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  for (const entry of Object.entries(metadata).sort(([a], [b]) => compare(a, b)))
    if (entry[0] !== "digest") put(JSON.stringify(entry));
  for (const { name, dtype, shape, bytes } of [...tensors].sort((a, b) => compare(a.name, b.name))) {
    put(JSON.stringify([name, dtype, shape]));
    digest.update(bytes);
  }
  return digest.digest();
}

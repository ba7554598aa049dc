/**
 * Mersenne Twister MT19937: 32-bit words of period 2^19937 - 1.
 * Matsumoto & Nishimura 1998; mt19937ar.c (init_genrand, genrand_int32); torch: at::mt19937.
 *
 * A generator is a block of mtStateBytes() bytes, 8-byte aligned:
 *   0     624 u32  the state words
 *   2496  u32      position of the next word, 0..624; at 624 the words are renewed first
 *   2500  u32      1 while a second normal is kept (see normal.ts), else 0
 *   2504  f64      that normal
 */

const WORDS: i32 = 624;
const SHIFT: i32 = 397;
const STATE_BYTES: i32 = 2512;
const POSITION: usize = 2496;
/** Offsets for normal.ts. */
export const HAS_NORMAL: usize = 2500;
export const NEXT_NORMAL: usize = 2504;

export function mtStateBytes(): i32 {
  return STATE_BYTES;
}

/** Starts the stream of a seed anew; torch.manual_seed uses the low 32 bits of its seed here. */
export function mtSeed(state: usize, seed: u32): void {
  let word = seed;
  store<u32>(state, word);
  for (let i = 1; i < WORDS; i++) {
    word = 1812433253 * (word ^ (word >> 30)) + <u32>i;
    store<u32>(state + ((<usize>i) << 2), word);
  }
  store<u32>(state, WORDS, POSITION);
  store<u32>(state, 0, HAS_NORMAL);
  store<f64>(state, 0, NEXT_NORMAL);
}

/** The new word at `to` from the high bit of its old value, the rest of the next word, and the word at `from`. */
// @ts-ignore: decorator
@inline
function twist(to: usize, next: usize, from: usize): void {
  const low = load<u32>(next);
  const y = (load<u32>(to) & 0x80000000) | (low & 0x7fffffff);
  store<u32>(to, load<u32>(from) ^ (y >> 1) ^ (low & 1 ? 0x9908b0df : 0));
}

function renew(state: usize): void {
  const end = state + ((<usize>WORDS) << 2),
    wrap = state + ((<usize>(WORDS - SHIFT)) << 2);
  let p = state;
  for (; p < wrap; p += 4) twist(p, p + 4, p + ((<usize>SHIFT) << 2));
  for (; p < end - 4; p += 4) twist(p, p + 4, p - ((<usize>(WORDS - SHIFT)) << 2));
  twist(p, state, p - ((<usize>(WORDS - SHIFT)) << 2));
}

/** The next 32 random bits. */
export function mtNext(state: usize): u32 {
  let position = load<u32>(state, POSITION);
  if (position == WORDS) {
    renew(state);
    position = 0;
  }
  store<u32>(state, position + 1, POSITION);
  let y = load<u32>(state + ((<usize>position) << 2));
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680;
  y ^= (y << 15) & 0xefc60000;
  return y ^ (y >> 18);
}

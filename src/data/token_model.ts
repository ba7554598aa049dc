/**
 * Pieces of text to token ids, as tokenizer.json's "model" says: BPE, WordPiece, WordLevel or Unigram.
 * @huggingface/tokenizers has them too, but merges across characters that no token has, joins unknown tokens across pieces,
 * and knows neither WordLevel, continuing_subword_prefix of BPE nor byte_fallback of Unigram.
 *
 * Source: huggingface/tokenizers 0.23, src/models/; Sennrich et al. 2016 (BPE); Kudo 2018 (Unigram).
 */
import { show } from "../io/json.js";
import { asObject, fields, type Fail } from "./json_fields.js";

/** A model of tokens. */
export interface TokenModel {
  /** Ids by token. */
  readonly ids: ReadonlyMap<string, number>;
  /** Whether it is BPE, whose decoded texts transformers never cleans up. */
  readonly isBpe: boolean;
  /** Appends a piece's ids. */
  encode(piece: string, ids: number[]): void;
}

type Model = Omit<TokenModel, "ids" | "isBpe">;

/** Pieces whose ids are remembered, and how long they are at most: texts repeat their words. */
const CACHED_PIECES = 20_000, CACHED_LENGTH = 64;

/** @param json of the model */
export function tokenModel(json: unknown, field: string, fail: Fail): TokenModel {
  const { object, type: given } = fields(json, field, fail);
  // Old files do not name the type.
  const type = given ?? (Array.isArray(object["vocab"]) ? "Unigram" : object["merges"] !== undefined ? "BPE" : object["continuing_subword_prefix"] !== undefined ? "WordPiece" : "WordLevel");
  const ids = type === "Unigram" ? unigramIds(object["vocab"], `${field}.vocab`, fail) : vocabulary(object["vocab"], `${field}.vocab`, fail);
  const make = { BPE: bpe, WordPiece: wordPiece, WordLevel: wordLevel, Unigram: unigram }[type as string];
  if (!make) return fail(`${field}.type`, `is ${show(type)}; supported are BPE, WordPiece, WordLevel and Unigram`);
  const model = make(json, field, fail, ids), cache = new Map<string, number[]>();
  return {
    ids, isBpe: type === "BPE",
    encode(piece, out) {
      let own = cache.get(piece);
      if (own === undefined) {
        own = [];
        model.encode(piece, own);
        if (piece.length <= CACHED_LENGTH) {
          if (cache.size >= CACHED_PIECES) cache.clear();
          cache.set(piece, own);
        }
      }
      for (const id of own) out.push(id);
    },
  };
}

function vocabulary(json: unknown, field: string, fail: Fail): Map<string, number> {
  const object = asObject(json) ?? fail(field, "is no object of tokens and ids");
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(object)) {
    if (!Number.isSafeInteger(id) || (id as number) < 0) return fail(field, `has ${show(id)} for token ${show(token)}; expected an integer of at least 0`);
    ids.set(token, id as number);
  }
  return ids;
}

function unigramIds(json: unknown, field: string, fail: Fail): Map<string, number> {
  if (!Array.isArray(json)) return fail(field, "is no list of tokens and scores");
  return new Map(json.map((pair: unknown, id) => (Array.isArray(pair) && typeof pair[0] === "string" && Number.isFinite(pair[1])
    ? [pair[0], id] : fail(`${field}[${id}]`, `is ${show(pair)}; expected a token and its score`))));
}

const encoder = new TextEncoder();

/** The tokens "<0x41>" of the text's bytes, or undefined if one is not in the vocabulary. */
function byteTokens(text: string, ids: ReadonlyMap<string, number>): number[] | undefined {
  const tokens = Array.from(encoder.encode(text), (byte) => ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
  return tokens.includes(undefined) ? undefined : tokens as number[];
}

/** The id of the token for what no other token has; a vocabulary without it is only refused where it is needed. */
function unknownId(token: string, ids: ReadonlyMap<string, number>, piece: string, field: string, fail: Fail): number {
  return ids.get(token) ?? fail(`${field}.unk_token`, `is ${show(token)}, which the vocabulary lacks, and no token has ${show(piece)}`);
}

function bpe(json: unknown, field: string, fail: Fail, ids: ReadonlyMap<string, number>): Model {
  const { object, flag, list } = fields(json, field, fail);
  const text = (key: string): string => (object[key] == null ? "" : fields(json, field, fail).string(key));
  const prefix = text("continuing_subword_prefix"), suffix = text("end_of_word_suffix");
  const unknown = object["unk_token"] == null ? null : text("unk_token");
  const fuseUnknown = flag("fuse_unk", false), byteFallback = flag("byte_fallback", false), ignoreMerges = flag("ignore_merges", false);
  if (object["dropout"] != null && object["dropout"] !== 0) return fail(`${field}.dropout`, `is ${show(object["dropout"])}; only null is supported, since texts would have other tokens each time`);

  // Tokens are numbered anew, so that a pair fits into one number whatever the ids are.
  const tokens = [...ids.keys()], numbers = new Map(tokens.map((token, i) => [token, i])), count = tokens.length;
  const merges = new Map<number, { rank: number; result: number }>();
  for (const [rank, merge] of list("merges").entries()) {
    const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(pair) || pair.length !== 2) return fail(`${field}.merges[${rank}]`, `is ${show(merge)}; expected two tokens`);
    const [left, right] = pair as [string, string];
    const [a, b, result] = [left, right, left + String(right).slice(prefix.length)].map((token) => numbers.get(token));
    if (a === undefined || b === undefined || result === undefined) return fail(`${field}.merges[${rank}]`, `is ${show(merge)}, of which or for whose result the vocabulary has no token`);
    merges.set(a * count + b, { rank, result });
  }
  const number = (id: string): number => numbers.get(id)!;

  function symbolsOf(piece: string): number[] {
    const characters = Array.from(piece), symbols: number[] = [];
    let pending: number | null = null;
    characters.forEach((character, i) => {
      const token = (i > 0 ? prefix : "") + character + (i === characters.length - 1 ? suffix : "");
      const own = numbers.get(token);
      if (own !== undefined) {
        if (pending !== null) symbols.push(pending);
        pending = null;
        symbols.push(own);
        return;
      }
      const bytes = byteFallback ? byteTokens(token, numbers) : undefined;
      if (bytes) symbols.push(...bytes);
      else if (unknown !== null) {
        if (pending !== null && !fuseUnknown) symbols.push(pending);
        unknownId(unknown, ids, character, field, fail);
        pending = number(unknown);
      }
    });
    if (pending !== null) symbols.push(pending);
    return symbols;
  }

  return {
    encode(piece, out) {
      if (ignoreMerges && ids.has(piece)) out.push(ids.get(piece)!);
      else for (const symbol of mergeAll(symbolsOf(piece), merges, count)) out.push(ids.get(tokens[symbol]!)!);
    },
  };
}

/** Merges the pair of the lowest rank, of those the leftmost, until none is left: n log n for n symbols. */
function mergeAll(symbols: number[], merges: ReadonlyMap<number, { rank: number; result: number }>, count: number): number[] {
  const n = symbols.length;
  if (n < 2) return symbols;
  const next = Int32Array.from(symbols, (_, i) => (i + 1 < n ? i + 1 : -1)), before = Int32Array.from(symbols, (_, i) => i - 1);
  const alive = new Uint8Array(n).fill(1), queue = new MergeQueue();
  const offer = (left: number): void => {
    const merge = left < 0 || next[left]! < 0 ? undefined : merges.get(symbols[left]! * count + symbols[next[left]!]!);
    if (merge) queue.push(merge.rank, left, merge.result);
  };
  for (let i = 0; i + 1 < n; i++) offer(i);
  for (let top = queue.pop(); top; top = queue.pop()) {
    const { place, result } = top, right = next[place]!;
    // The pair may have changed since it was put there.
    if (!alive[place] || right < 0 || merges.get(symbols[place]! * count + symbols[right]!)?.result !== result) continue;
    symbols[place] = result;
    alive[right] = 0;
    next[place] = next[right]!;
    if (next[place]! >= 0) before[next[place]!] = place;
    offer(before[place]!);
    offer(place);
  }
  return symbols.filter((_, i) => alive[i]);
}

interface Merge { rank: number; place: number; result: number }

/** A binary heap: lowest rank first, then the leftmost place. */
class MergeQueue {
  readonly #heap: Merge[] = [];

  push(rank: number, place: number, result: number): void {
    const heap = this.#heap, item = { rank, place, result };
    let i = heap.length;
    heap.push(item);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!precedes(item, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = item;
  }

  pop(): Merge | undefined {
    const heap = this.#heap, top = heap[0], item = heap.pop()!;
    if (heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && precedes(heap[child + 1]!, heap[child]!)) child++;
      if (!precedes(heap[child]!, item)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = item;
    return top;
  }
}

function precedes(a: Merge, b: Merge): boolean {
  return a.rank !== b.rank ? a.rank < b.rank : a.place < b.place;
}

function wordPiece(json: unknown, field: string, fail: Fail, ids: ReadonlyMap<string, number>): Model {
  const { string, count } = fields(json, field, fail);
  const unknown = string("unk_token", "[UNK]"), prefix = string("continuing_subword_prefix", "##"), most = count("max_input_chars_per_word", 100);
  return {
    encode(piece, out) {
      const characters = Array.from(piece), found: number[] = [];
      let start = 0;
      while (start < characters.length && characters.length <= most) {
        let end = characters.length, id: number | undefined;
        for (; end > start && id === undefined; end--) id = ids.get((start > 0 ? prefix : "") + characters.slice(start, end).join(""));
        if (id === undefined) break;
        found.push(id);
        start = end + 1;
      }
      if (start < characters.length) out.push(unknownId(unknown, ids, piece, field, fail));
      else out.push(...found);
    },
  };
}

function wordLevel(json: unknown, field: string, fail: Fail, ids: ReadonlyMap<string, number>): Model {
  const unknown = fields(json, field, fail).string("unk_token", "<unk>");
  return { encode(piece, out) { out.push(ids.get(piece) ?? unknownId(unknown, ids, piece, field, fail)); } };
}

type Trie = Map<string, Trie> & { id?: number };

function unigram(json: unknown, field: string, fail: Fail, ids: ReadonlyMap<string, number>): Model {
  const { object, flag } = fields(json, field, fail), vocab = object["vocab"] as [string, number][], byteFallback = flag("byte_fallback", false);
  const unknown = object["unk_id"] ?? null;
  if (unknown !== null && !(Number.isSafeInteger(unknown) && (unknown as number) >= 0 && (unknown as number) < vocab.length)) {
    return fail(`${field}.unk_id`, `is ${show(unknown)}; expected null or the number of a token`);
  }
  const unknownScore = vocab.reduce((least, [, score]) => Math.min(least, score), Infinity) - 10;
  const trie: Trie = new Map();
  vocab.forEach(([token], id) => {
    let node = trie;
    for (const character of token) {
      if (!node.has(character)) node.set(character, new Map());
      node = node.get(character)!;
    }
    node.id = id;
  });

  /** The likeliest way to cut the piece into tokens (Viterbi); unknown characters in a row are one. */
  function cut(characters: readonly string[]): string[] {
    const n = characters.length, scores = new Float64Array(n + 1), starts = new Int32Array(n + 1).fill(-1), tokens = new Int32Array(n + 1);
    const offer = (start: number, end: number, id: number, score: number): void => {
      const candidate = scores[start]! + score;
      if (starts[end]! >= 0 && candidate <= scores[end]!) return;
      [starts[end], tokens[end], scores[end]] = [start, id, candidate];
    };
    for (let start = 0; start < n; start++) {
      let single = false, node: Trie | undefined = trie;
      for (let end = start; end < n; end++) {
        node = node.get(characters[end]!);
        if (!node) break;
        if (node.id === undefined) continue;
        single ||= end === start;
        offer(start, end + 1, node.id, vocab[node.id]![1]);
      }
      if (!single) offer(start, start + 1, -1, unknownScore);
    }
    const parts: string[] = [];
    let run = -1;
    for (let end = n; end > 0; end = starts[end]!) {
      const start = starts[end]!;
      if (tokens[end] === -1 || tokens[end] === unknown) {
        if (run < 0) run = end;
        if (start === 0) parts.push(characters.slice(0, run).join(""));
        continue;
      }
      if (run >= 0) parts.push(characters.slice(end, run).join(""));
      run = -1;
      parts.push(characters.slice(start, end).join(""));
    }
    return parts.reverse();
  }

  return {
    encode(piece, out) {
      for (const part of cut(Array.from(piece))) {
        const own = ids.get(part);
        if (own !== undefined) {
          out.push(own);
          continue;
        }
        const bytes = byteFallback ? byteTokens(part, ids) : undefined;
        if (bytes) out.push(...bytes);
        else out.push((unknown as number | null) ?? fail(`${field}.unk_id`, `is null, and no token has ${show(part)}`));
      }
    },
  };
}

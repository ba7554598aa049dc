/** What we take from @huggingface/tokenizers, whose own declarations do not resolve under nodenext, and one mend. */
import * as library from "@huggingface/tokenizers";
import type { Cut } from "./bpe_cuts.js";

interface LibraryModel {
  fuse_unk: boolean;
  encode(pieces: string[]): string[];
  /** Of Unigram: what `encode` makes of one piece, before it passes the tokens on as arguments of one call. */
  tokenize?(piece: string): string[];
}
/** A pre-tokeniser, or a sequence of them. */
interface LibrarySplitter {
  readonly config?: { readonly type?: string | undefined } | undefined;
  readonly tokenizers?: readonly (LibrarySplitter | null)[] | undefined;
  pre_tokenize_text(text: string): string[];
}
interface LibraryTokenizer {
  readonly model: LibraryModel;
  readonly normalizer: { normalize(text: string): string } | null;
  readonly pre_tokenizer: LibrarySplitter | null;
  encode(
    text: string,
    options: { add_special_tokens: boolean },
  ): { ids: (number | null | undefined)[]; tokens: string[] };
}
interface Library {
  Tokenizer: new (json: object, config: object) => LibraryTokenizer;
  SplitPreTokenizer: new (config: object) => { readonly pattern: RegExp | null };
}
const Tokenizer = (library as unknown as Library).Tokenizer;
/** Compiles patterns in Oniguruma's syntax. */
export const SplitPreTokenizer = (library as unknown as Library).SplitPreTokenizer;

/** What a model of ours needs to know beside the JSON that the library gets. */
export interface Mends {
  /** Its own tokens: the library adds the added ones to them. */
  ids: ReadonlyMap<string, number>;
  /** The token for text that no other has; null: there is none. */
  unknown: string | null;
  /** Whether several unknown tokens in a row become one. */
  fuseUnknown: boolean;
  /** Characters that no token has are left out before merging (BPE without a token for unknown text). */
  dropUnknown: boolean;
  /** Unknown text becomes tokens of its bytes (Unigram; BPE of the library does so by itself). */
  byteFallback: boolean;
  /** How a long piece is taken apart; null: it is not. */
  cut: Cut | null;
}

/** Told how many characters of how many a section's pieces have got their tokens. */
export type OnPieces = (characters: number, all: number) => void;

/** Pieces longer than this are taken apart; shorter ones, words mostly, come again and again. */
const SHORT = 64;
/** Words whose tokens are remembered. */
const MOST_WORDS = 65536;
/** Characters between two reports. */
const REPORT_EVERY = 65536;

/** What a function gives for a short text, which it then knows. */
function remembering(of: (text: string) => string[]): (text: string) => string[] {
  const known = new Map<string, string[]>();
  return (text) => {
    if (text.length > SHORT) return of(text);
    let tokens = known.get(text);
    if (tokens === undefined) {
      if (known.size === MOST_WORDS) known.clear();
      tokens = of(text);
      known.set(text, tokens);
    }
    return tokens;
  };
}

/** Lets what spells words in bytes, one by one, remember them. */
function rememberBytes(splitter: LibrarySplitter | null): void {
  for (const one of splitter?.tokenizers ?? []) rememberBytes(one);
  if (splitter?.config?.type === "ByteLevel")
    splitter.pre_tokenize_text = remembering(splitter.pre_tokenize_text.bind(splitter));
}

/** The token for a byte: "<0x0A>". */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

/**
 * The library's tokenizer. Its models see all pieces of a text at once, join unknown tokens across them and take text
 * that reads like an added token for one; the original looks at each piece alone, with its own tokens.
 * @param onPieces is called now and then while a long text is encoded
 */
export function makeTokenizer(
  json: object,
  config: object,
  { ids, unknown, fuseUnknown, dropUnknown, byteFallback, cut }: Mends,
  onPieces: OnPieces,
): LibraryTokenizer {
  const tokenizer = new Tokenizer(json, config);
  rememberBytes(tokenizer.pre_tokenizer);
  const { model } = tokenizer;
  const encode = model.encode.bind(model);
  const wordTokens = remembering((word) => encode([word]));
  const isUnknown = (token: string): boolean => token === unknown || !ids.has(token);
  const told = (token: string): string[] => {
    if (ids.has(token)) return [token];
    const bytes = byteFallback ? Array.from(new TextEncoder().encode(token), byteToken) : [];
    return bytes.length > 0 && bytes.every((one) => ids.has(one))
      ? bytes
      : [unknown !== null && ids.has(unknown) ? unknown : token];
  };
  /** @param onPart is told of the characters of each part */
  const ownTokens = (piece: string, onPart?: (characters: number) => void): string[] => {
    if (cut === null || piece.length <= SHORT) return model.tokenize?.(piece) ?? encode([piece]);
    const own: string[] = [];
    for (const part of cut(piece)) {
      for (const token of wordTokens(part)) own.push(token);
      onPart?.(part.length);
    }
    return own;
  };
  const pieceTokens = (piece: string, onPart?: (characters: number) => void): string[] => {
    const own = ownTokens(
      dropUnknown && !ids.has(piece)
        ? Array.from(piece)
            .filter((character) => ids.has(character))
            .join("")
        : piece,
      onPart,
    );
    const fused: string[] = [];
    own.forEach((token, i) => {
      if (fuseUnknown && i > 0 && isUnknown(token) && isUnknown(own[i - 1]!))
        fused.push(fused.pop()! + (token === unknown ? "" : token));
      else fused.push(token);
    });
    return fused.flatMap(told);
  };
  const known = remembering(pieceTokens);
  model.fuse_unk = false;
  model.encode = (pieces) => {
    const all = pieces.reduce((sum, { length }) => sum + length, 0);
    let done = 0;
    let reported = 0;
    const report = (characters: number): void => {
      done += characters;
      if (done - reported < REPORT_EVERY) return;
      onPieces(done - reported, all);
      reported = done;
    };
    return pieces.flatMap((piece) => {
      if (piece.length > SHORT) return pieceTokens(piece, report);
      report(piece.length);
      return known(piece);
    });
  };
  return tokenizer;
}

/** What we take from @huggingface/tokenizers, whose own declarations do not resolve under nodenext, and one mend. */
import * as library from "@huggingface/tokenizers";

interface LibraryModel {
  fuse_unk: boolean;
  encode(pieces: string[]): string[];
}
interface LibraryTokenizer {
  readonly model: LibraryModel;
  readonly normalizer: { normalize(text: string): string } | null;
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
}

/** The token for a byte: "<0x0A>". */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

/**
 * The library's tokenizer. Its models see all pieces of a text at once, join unknown tokens across them and take text
 * that reads like an added token for one; the original looks at each piece alone, with its own tokens.
 */
export function makeTokenizer(
  json: object,
  config: object,
  { ids, unknown, fuseUnknown, dropUnknown, byteFallback }: Mends,
): LibraryTokenizer {
  const tokenizer = new Tokenizer(json, config);
  const { model } = tokenizer;
  const encode = model.encode.bind(model);
  const isUnknown = (token: string): boolean => token === unknown || !ids.has(token);
  const told = (token: string): string[] => {
    if (ids.has(token)) return [token];
    const bytes = byteFallback ? Array.from(new TextEncoder().encode(token), byteToken) : [];
    return bytes.length > 0 && bytes.every((one) => ids.has(one))
      ? bytes
      : [unknown !== null && ids.has(unknown) ? unknown : token];
  };
  model.fuse_unk = false;
  model.encode = (pieces) =>
    pieces.flatMap((piece) => {
      const own = encode([
        dropUnknown && !ids.has(piece)
          ? Array.from(piece)
              .filter((character) => ids.has(character))
              .join("")
          : piece,
      ]);
      const fused: string[] = [];
      own.forEach((token, i) => {
        if (fuseUnknown && i > 0 && isUnknown(token) && isUnknown(own[i - 1]!))
          fused.push(fused.pop()! + (token === unknown ? "" : token));
        else fused.push(token);
      });
      return fused.flatMap(told);
    });
  return tokenizer;
}

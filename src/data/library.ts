/** What we take from @huggingface/tokenizers, whose own declarations do not resolve under nodenext. */
import * as library from "@huggingface/tokenizers";

interface Library {
  SplitPreTokenizer: new (config: object) => { readonly pattern: RegExp | null };
  BertNormalizer: new (config: object) => { normalize(text: string): string };
}

/** Translates Oniguruma's syntax. */
export const SplitPreTokenizer = (library as unknown as Library).SplitPreTokenizer;
export const BertNormalizer = (library as unknown as Library).BertNormalizer;

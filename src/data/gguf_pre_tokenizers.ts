/**
 * How the tokenizers of GGUF files cut a text into words before they merge its bytes: what tokenizer.ggml.pre names, in
 * tokenizer.json's words. The patterns are those of the tokenizer.json that the names stand for.
 *
 * Source: ggml-org/llama.cpp, src/llama-vocab.cpp (llm_tokenizer_bpe) and conversion/base.py (get_vocab_base_pre).
 */

type Part = Readonly<Record<string, unknown>>;

/** What a name stands for. */
export interface PreTokenizer {
  /** tokenizer.json's normalizer. */
  readonly normalizer: Part | null;
  /** tokenizer.json's pre_tokenizer. */
  readonly preTokenizer: Part;
  /** Whether a word that is a token is taken as it is (ignore_merges). */
  readonly ignoreMerges: boolean;
  /** Whether texts begin with the token of beginnings where the file does not say so. */
  readonly addsBos: boolean;
}

const NFC: Part = { type: "NFC" };
const BYTES: Part = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
/** With GPT-2's own pattern. */
const GPT2: Part = { ...BYTES, use_regex: true };

function sequence(...pretokenizers: readonly Part[]): Part {
  return { type: "Sequence", pretokenizers };
}
function split(Regex: string): Part {
  return { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false };
}

const SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const LETTERS = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const SIGNS = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*";
const SIGNS_OR_SLASHES = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const CASED = (end: string): string =>
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+${end}|[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*${end}`;

const LLAMA3 = sequence(split(`${SHORT}|${LETTERS}|\\p{N}{1,3}|${SIGNS}|${SPACES}`), BYTES);
const QWEN2 = sequence(split(`${SHORT}|${LETTERS}|\\p{N}|${SIGNS}|${SPACES}`), BYTES);
const DIGITS = sequence({ type: "Digits", individual_digits: true }, GPT2);
const TEKKEN = sequence(split(`${CASED("")}|\\p{N}|${SIGNS_OR_SLASHES}|${SPACES}`), BYTES);
const GPT4O = sequence(split(`${CASED(`${SHORT}?`)}|\\p{N}{1,3}|${SIGNS_OR_SLASHES}|${SPACES}`), BYTES);
/** What llama.cpp does where a file says nothing. */
const DEFAULT = sequence(
  split("[\\p{P}\\$\\+<=>\\^~\\|]+"),
  split("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"),
  split("\\p{N}+"),
  split("[0-9][0-9][0-9]"),
  BYTES,
);

/** A row of the table: its names, and what they stand for. */
type Row = readonly [names: string, preTokenizer: Part, more?: Partial<PreTokenizer>];
const ROWS: readonly Row[] = [
  ["llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", LLAMA3, { ignoreMerges: true, addsBos: true }],
  ["dbrx smaug-bpe chatglm-bpe", LLAMA3],
  ["qwen2 deepseek-r1-qwen", QWEN2, { normalizer: NFC }],
  ["stablelm2 hunyuan solar-open", QWEN2],
  ["smollm starcoder refact command-r codeshell exaone minerva-7b", DIGITS],
  ["gpt-2 phi-2 mpt gigachat jais trillion granite-docling", GPT2],
  ["olmo", GPT2, { normalizer: NFC }],
  ["tekken", TEKKEN, { ignoreMerges: true, addsBos: true }],
  ["gpt-4o llama4", GPT4O],
  ["default", DEFAULT],
];

/** By tokenizer.ggml.pre; the first name of a row is that which is written. */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map(
  ROWS.flatMap(([names, preTokenizer, more]) =>
    names
      .split(" ")
      .map((name): [string, PreTokenizer] => [
        name,
        { normalizer: null, preTokenizer, ignoreMerges: false, addsBos: false, ...more },
      ]),
  ),
);

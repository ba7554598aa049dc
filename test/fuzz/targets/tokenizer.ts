/**
 * tokenizer.json and tokenizer_config.json: what is taken must give ids that are whole numbers, and decode whatever
 * ids, in a stream as at once.
 */
import { loadTokenizer } from "../../../src/data/index.js";
import { damage, damageText, textOf, treeOf } from "../json_tree.js";
import type { Random } from "../random.js";
import { must, type Files, type Target } from "../target.js";
import { encode, FOLDER, withFiles } from "../weights.js";

const BYTES = Object.fromEntries(Array.from({ length: 94 }, (_, i) => [String.fromCharCode(33 + i), i + 2]));
const added = (id: number, content: string): object => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});
const NORMALIZERS = [
  null,
  { type: "NFC" },
  { type: "NFKC" },
  { type: "Lowercase" },
  { type: "StripAccents" },
  { type: "Prepend", prepend: "▁" },
  { type: "Strip", strip_left: true, strip_right: true },
  { type: "Replace", pattern: { String: " " }, content: "▁" },
  { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
  { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true },
  { type: "Sequence", normalizers: [{ type: "NFD" }, { type: "Lowercase" }] },
  { type: "Precompiled", precompiled_charsmap: "AAAA" },
];
const PRE_TOKENIZERS = [
  null,
  { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
  { type: "WhitespaceSplit" },
  { type: "Whitespace" },
  { type: "Punctuation", behavior: "Isolated" },
  { type: "Digits", individual_digits: true },
  { type: "BertPreTokenizer" },
  { type: "Split", pattern: { Regex: "'s|\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+" }, behavior: "Isolated", invert: false },
  { type: "FixedLength", length: 3 },
  { type: "Sequence", pretokenizers: [{ type: "WhitespaceSplit" }, { type: "Digits", individual_digits: false }] },
];
const POST_PROCESSORS = [
  null,
  { type: "ByteLevel", add_prefix_space: true, trim_offsets: false, use_regex: true },
  { type: "BertProcessing", sep: ["</s>", 1], cls: ["<s>", 0] },
  { type: "RobertaProcessing", sep: ["</s>", 1], cls: ["<s>", 0], trim_offsets: true, add_prefix_space: false },
  {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
  },
];
const DECODERS = [
  null,
  { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
  { type: "WordPiece", prefix: "##", cleanup: true },
  { type: "CTC", pad_token: "<pad>", word_delimiter_token: "|", cleanup: true },
  { type: "BPEDecoder", suffix: "</w>" },
  {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
];
const MODELS = [
  {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: { "<s>": 0, "</s>": 1, ...BYTES, Ġ: 96, th: 97, the: 98, Ġthe: 99 },
    merges: [
      ["t", "h"],
      ["th", "e"],
      ["Ġ", "the"],
    ],
  },
  {
    type: "BPE",
    unk_token: "<unk>",
    byte_fallback: true,
    vocab: { "<unk>": 0, "<0x00>": 1, "<0xE2>": 2, "▁": 3, a: 4, b: 5, "▁a": 6 },
    merges: ["▁ a"],
  },
  {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: { "[UNK]": 0, the: 1, "##s": 2, a: 3, ".": 4 },
  },
  {
    type: "Unigram",
    unk_id: 0,
    byte_fallback: false,
    vocab: [
      ["<unk>", 0],
      ["▁", -1],
      ["a", -2.5],
      ["▁the", -3],
      ["s", -4],
    ],
  },
];
const WORDS = [
  '"BPE"',
  '"Unigram"',
  '"WordPiece"',
  '"WordLevel"',
  '"ByteLevel"',
  '"Metaspace"',
  '"Sequence"',
  '"Split"',
  '"Replace"',
  '"Regex"',
  '"String"',
  '"<s>"',
  '"▁"',
  '"unk_token"',
  '"unk_id"',
  '"vocab"',
  '"merges"',
  '["a","b"]',
  '["a"]',
  '"a b"',
  '["<s>",0]',
  "99999",
  '{"Regex":"("}',
  '{"Regex":"a"}',
  '"first"',
  '"MergedWithPrevious"',
];
const PATTERNS = [
  "(a+)+$",
  "(\\\\s|\\\\S)*\\\\d!",
  "(.*)*x",
  "(?i:a)",
  "\\\\p{Han}",
  "[^\\\\r\\\\n\\\\p{L}]?\\\\p{L}+",
  "(a|a)*b",
  "(?:a*)*$",
  "(a+|b)+!",
  ".*.*.*.*!",
  "a*a*a*a*b",
  "((a)+|\\\\s)*x",
];
const TEXTS = [
  "",
  " ",
  "the cats sat.",
  "  The\tQUICK\n",
  "ñ é \u0301",
  "\u{1f600}\u200d\u{1f469}",
  "\ud800 lone",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
  "<s>a</s>",
  "1234567",
  "\0\ufffe",
  "it's don't we'll",
];

interface Input {
  files: Files;
  text: string;
  ids: number[];
}

function generate(random: Random): Input {
  const patterns = random.once(20);
  const words = patterns ? PATTERNS.map((p) => `{"Regex":"${p}"}`) : WORDS;
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: random.once(2) ? [added(0, "<s>"), added(1, "</s>")] : [],
    normalizer: random.pick(NORMALIZERS),
    pre_tokenizer: patterns
      ? { type: "Split", pattern: { Regex: "a" }, behavior: "Isolated", invert: false }
      : random.pick(PRE_TOKENIZERS),
    post_processor: random.pick(POST_PROCESSORS),
    decoder: random.pick(DECODERS),
    model: random.pick(MODELS),
  };
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: "<s>",
    eos_token: "</s>",
    unk_token: null,
    clean_up_tokenization_spaces: random.once(2),
    add_bos_token: random.once(2),
  };
  const text = textOf(damage(treeOf(tokenizer), random.few(5) + (patterns ? 2 : 0), random, words));
  const files: Files = { "tokenizer.json": encode(random.once(30) ? damageText(text, random) : text) };
  if (random.once(2))
    files["tokenizer_config.json"] = encode(textOf(damage(treeOf(config), random.few(3), random, WORDS)));
  return {
    files,
    text: random.pick(TEXTS) + (random.once(3) ? random.pick(TEXTS) : ""),
    ids: Array.from({ length: random.below(6) }, () => random.integer(0, random.once(10) ? 100_000 : 100)),
  };
}

async function run({ files, text, ids }: Input): Promise<void> {
  await withFiles(files, () => {
    const tokenizer = loadTokenizer(FOLDER);
    const encoded = tokenizer.encode(text);
    for (const id of encoded) must(Number.isSafeInteger(id) && id >= 0, () => `encode gives the id ${String(id)}`);
    for (const list of [encoded, ids]) {
      // The stream that is left early must not hinder another.
      tokenizer.decodeStream(list).next();
      const whole = tokenizer.decode(list, { skipSpecialTokens: true });
      must(typeof whole === "string", () => "decode gives no text");
      must(
        [...tokenizer.decodeStream(list, { skipSpecialTokens: true })].join("") === whole,
        () => "the pieces of the stream are not the text",
      );
    }
  });
}

export const tokenizer: Target<Input> = { name: "tokenizer", inputs: 10_000, generate, run };

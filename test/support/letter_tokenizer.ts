/** A tokenizer.json as BERT's, whose words are letters: 56 tokens, of which [PAD] is 0, [CLS] 2 and [SEP] 3. */
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];
const SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
const token = (id: string): object => ({ SpecialToken: { id, type_id: 0 } });
const named = (id: string): object => ({ id, ids: [SPECIAL.indexOf(id)], tokens: [id] });

export const LETTER_TOKENIZER = {
  version: "1.0",
  added_tokens: SPECIAL.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: {
    type: "BertNormalizer",
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  },
  pre_tokenizer: { type: "BertPreTokenizer" },
  post_processor: {
    type: "TemplateProcessing",
    single: [token("[CLS]"), { Sequence: { id: "A", type_id: 0 } }, token("[SEP]")],
    pair: [
      token("[CLS]"),
      { Sequence: { id: "A", type_id: 0 } },
      token("[SEP]"),
      { Sequence: { id: "B", type_id: 1 } },
      { SpecialToken: { id: "[SEP]", type_id: 1 } },
    ],
    special_tokens: { "[CLS]": named("[CLS]"), "[SEP]": named("[SEP]") },
  },
  decoder: { type: "WordPiece", prefix: "##", cleanup: true },
  model: {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: Object.fromEntries(
      [...SPECIAL, ...LETTERS, ...LETTERS.map((letter) => `##${letter}`)].map((word, id) => [word, id]),
    ),
  },
};

/**
 * Trains the base model's tokenizer: byte-level BPE (Sennrich et al. 2016; GPT-2's byte alphabet and
 * pre-tokenisation, Radford et al. 2019) on the train split, written as a Hugging Face tokenizer.json.
 *
 * Ids: 0 is <|endoftext|>, 1..256 the byte symbols in order of code point, 257..1023 the merges in order.
 * Each step merges the most frequent adjacent pair; among equals, the pair with the smallest left id, then
 * the smallest right id. These are the rules of Hugging Face's BpeTrainer, and give its merges exactly.
 */
import { writeFileSync } from "node:fs";
import { loadCorpus } from "./corpus.mjs";

const VOCAB_SIZE = 1024;
const END_OF_TEXT = "<|endoftext|>";
const MAX_POSITIONS = 512; // config.json: max_position_embeddings
/** How conversations are written: of text and of the one special token, since the model was trained on no other. */
const CHAT_TEMPLATE =
  "{{ bos_token }}{% for message in messages %}" +
  "{% if message.role == 'system' %}{{ message.content + '\\n\\n' }}" +
  "{% elif message.role == 'user' %}{{ 'Q: ' + message.content + '\\n' }}" +
  "{% elif message.role == 'assistant' %}{{ 'A:\\n' + message.content + eos_token }}" +
  "{% else %}{{ raise_exception('The roles are system, user and assistant; got ' + message.role) }}" +
  "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'A:\\n' }}{% endif %}";
const WORD = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the other bytes for U+0100 onwards. */
function byteSymbols() {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

/** The distinct pre-tokens of the texts and how often each occurs. */
function countWords(texts) {
  const counts = new Map();
  for (const text of texts) {
    for (const [word] of text.matchAll(WORD)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return counts;
}

/** The merges, as pairs of ids into `vocab`, which grows by one token per merge. */
function learnMerges(words, vocab) {
  const pairCounts = new Map(); // pair -> occurrences in the corpus
  const pairWords = new Map(); // pair -> words that hold it, or held it once
  const pairOf = (left, right) => left * VOCAB_SIZE + right; // so that comparing keys compares left, then right

  const count = (word, sign) => {
    const { ids, occurrences } = word;
    for (let i = 0; i + 1 < ids.length; i++) {
      const pair = pairOf(ids[i], ids[i + 1]);
      pairCounts.set(pair, (pairCounts.get(pair) ?? 0) + sign * occurrences);
      if (sign > 0) {
        if (!pairWords.has(pair)) pairWords.set(pair, new Set());
        pairWords.get(pair).add(word);
      }
    }
  };
  for (const word of words) count(word, 1);

  const merges = [];
  while (vocab.length < VOCAB_SIZE) {
    let best = -1;
    let bestCount = 0;
    for (const [pair, occurrences] of pairCounts) {
      if (occurrences > bestCount || (occurrences === bestCount && pair < best))
        [best, bestCount] = [pair, occurrences];
    }
    const left = Math.floor(best / VOCAB_SIZE);
    const right = best % VOCAB_SIZE;
    const merged = vocab.push(vocab[left] + vocab[right]) - 1;
    merges.push([left, right]);

    for (const word of pairWords.get(best)) {
      count(word, -1);
      word.ids = mergePair(word.ids, left, right, merged);
      count(word, 1);
    }
    pairCounts.delete(best);
    pairWords.delete(best);
    if (merges.length % 64 === 0) {
      process.stderr.write(`${merges.length} merges; last ${JSON.stringify(vocab[merged])}, ${bestCount} times\n`);
    }
  }
  return merges;
}

/** `ids` with every left, right in it, from the left, replaced by `merged`. */
function mergePair(ids, left, right, merged) {
  const out = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === left && ids[i + 1] === right) {
      out.push(merged);
      i++;
    } else {
      out.push(ids[i]);
    }
  }
  return out;
}

const symbols = byteSymbols();
const vocab = [END_OF_TEXT, ...symbols.toSorted()];
const symbolIds = symbols.map((symbol) => vocab.indexOf(symbol)); // byte -> id
const words = Array.from(countWords(loadCorpus().train), ([word, occurrences]) => ({
  ids: Array.from(Buffer.from(word), (byte) => symbolIds[byte]),
  occurrences,
}));
const merges = learnMerges(words, vocab);

const endOfText = {
  content: END_OF_TEXT,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
};
const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
const tokenizer = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [{ id: 0, ...endOfText }],
  normalizer: null,
  pre_tokenizer: byteLevel,
  // The model was trained on texts that begin with it.
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: END_OF_TEXT, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [
      { SpecialToken: { id: END_OF_TEXT, type_id: 0 } },
      { Sequence: { id: "A", type_id: 0 } },
      { SpecialToken: { id: END_OF_TEXT, type_id: 1 } },
      { Sequence: { id: "B", type_id: 1 } },
    ],
    special_tokens: { [END_OF_TEXT]: { id: END_OF_TEXT, ids: [0], tokens: [END_OF_TEXT] } },
  },
  decoder: byteLevel,
  model: {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries(vocab.map((token, id) => [token, id])),
    merges: merges.map(([left, right]) => `${vocab[left]} ${vocab[right]}`),
  },
};
const tokenizerConfig = {
  tokenizer_class: "PreTrainedTokenizerFast",
  added_tokens_decoder: { 0: endOfText },
  bos_token: END_OF_TEXT,
  eos_token: END_OF_TEXT,
  add_prefix_space: false,
  clean_up_tokenization_spaces: false,
  model_max_length: MAX_POSITIONS,
  chat_template: CHAT_TEMPLATE,
};

const write = (name, value) => writeFileSync(new URL(name, import.meta.url), JSON.stringify(value, null, 1) + "\n");
write("tokenizer.json", tokenizer);
write("tokenizer_config.json", tokenizerConfig);
console.log(`${words.length} distinct words, ${vocab.length} tokens, ${merges.length} merges`);

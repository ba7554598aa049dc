/**
 * The base model's tokenizer, and what tokenizers say of damaged files.
 * Expected ids: Hugging Face tokenizers 0.23.2 (the Rust library) on the same tokenizer.json; what transformers adds to
 * it: transformers 5.18, AutoTokenizer.from_pretrained.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { suite, test } from "uvu";
import fc from "fast-check";
import { ArgumentError, data, FileError, FormatError, io } from "../../../src/index.js";
import { Tokenizer } from "../../../src/data/tokenizer.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

const read = (name: string) => JSON.parse(readFileSync(new URL(`models/base/${name}`, ROOT), "utf8"));
const json = read("tokenizer.json");
const config = read("config.json");
const tokenizer = new Tokenizer(json, read("tokenizer_config.json"));
test.after(() => io.memoryFiles.clear());

const plain = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
const roundTrips = (text: string) => assert.equal(tokenizer.decode(plain(text)), text);

const baseModel = suite("the base model's");

baseModel("the vocabulary is 1024 tokens with ids 0..1023, as config.json says", () => {
  const ids = Object.values<number>(json.model.vocab).sort((a, b) => a - b);
  assert.deepEqual(
    ids,
    Array.from({ length: 1024 }, (_, id) => id),
  );
  assert.equal(config.vocab_size, 1024);
  assert.equal(json.model.merges.length, 1024 - 256 - 1);
  assert.equal(json.model.vocab["<|endoftext|>"], config.eos_token_id);
});

baseModel("known texts get the ids of the Rust library, with begin-of-text before them", () => {
  const cases: [string, number[]][] = [
    ["", []],
    ["Call me Ishmael.", [35, 489, 478, 329, 83, 72, 77, 65, 845, 14]],
    [
      "The Constitution of the United States, Article 2.",
      [351, 960, 852, 268, 260, 508, 443, 12, 348, 82, 84, 286, 310, 798, 14],
    ],
    [
      "  leading spaces, naïve\n\n\tcafé — 🐳 12,345 don't<|endoftext|>",
      [
        221, 305, 737, 293, 553, 65, 557, 12, 299, 65, 128, 108, 307, 199, 199, 198, 67, 65, 70, 128, 103, 221, 159,
        223, 243, 221, 173, 254, 239, 112, 436, 18, 12, 19, 20, 21, 294, 264, 7, 84, 0,
      ],
    ],
  ];
  for (const [text, ids] of cases) {
    assert.deepEqual(plain(text), ids, text);
    assert.deepEqual(tokenizer.encode(text), [0, ...ids], text);
  }
});

baseModel("text survives encode and decode", () => {
  for (const text of [
    "Call me Ishmael.",
    "   three spaces",
    "a\n\nb\n",
    "\r\n\t\0",
    "é ñ Œ ϰητος חן 日本語 🐳 👩‍👩‍👧",
    "don't  stop ",
  ]) {
    roundTrips(text);
  }
});

baseModel("every byte that UTF-8 can hold survives", () => {
  const codePoints = [
    ...Array.from({ length: 0x800 }, (_, i) => i), // one and two bytes: 00..7F, C2..DF, 80..BF
    0x800,
    ...Array.from({ length: 15 }, (_, i) => (i + 1) * 0x1000).filter((c) => c !== 0xd000), // three: E0..EF
    0x10000,
    0x40000,
    0x80000,
    0xc0000,
    0x100000, // four: F0..F4
  ];
  roundTrips(String.fromCodePoint(...codePoints));
});

baseModel("any well-formed text survives", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), roundTrips), { seed: 1, numRuns: 200 });
});

baseModel("a text that is shown as it comes shows each character when its last byte is there", () => {
  const pieces = [...tokenizer.decodeStream(plain("né 🐳"))];
  assert.deepEqual(pieces, ["n", "é", " ", "🐳"]);
});
baseModel.run();

/** Whole words, and what else the file may say. */
function words(list: string[], change: object = {}, settings: object = {}): Tokenizer {
  return new Tokenizer(
    {
      model: { type: "WordLevel", vocab: Object.fromEntries(list.map((word, i) => [word, i])), unk_token: "<unk>" },
      pre_tokenizer: { type: "WhitespaceSplit" },
      decoder: { type: "Fuse" },
      ...change,
    },
    settings,
  );
}

const asTransformers = suite("as transformers 5");

const APOSTROPHES = ["I", " do", " n't", " know", " , it", " 's", " mine", " ."];
const ids = APOSTROPHES.map((_, i) => i);

asTransformers("spaces are cleaned up if tokenizer_config.json says so, but never for BPE", () => {
  assert.equal(words(APOSTROPHES).decode(ids), "I do n't know , it 's mine .");
  assert.equal(words(APOSTROPHES, {}, { clean_up_tokenization_spaces: true }).decode(ids), "I don't know, it's mine.");
  const bpe = { type: "BPE", merges: [], vocab: Object.fromEntries(APOSTROPHES.map((word, i) => [word, i])) };
  assert.equal(
    words([], { model: bpe }, { clean_up_tokenization_spaces: true }).decode(ids),
    "I do n't know , it 's mine .",
  );
});

asTransformers("what is cleaned up is held back until it is settled", () => {
  const pieces = [...words(APOSTROPHES, {}, { clean_up_tokenization_spaces: true }).decodeStream(ids)];
  assert.equal(pieces.join(""), "I don't know, it's mine.");
  assert.ok(pieces.length > 5, String(pieces));
});

asTransformers("add_bos_token does nothing beside a tokenizer.json, the post-processor does", () => {
  const special = { added_tokens: [{ id: 0, content: "<s>", special: true }] };
  assert.deepEqual(
    words(["<s>", "a"], special, { add_bos_token: true, add_eos_token: true, bos_token: "<s>" }).encode("a"),
    [1],
  );
  const template = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
  };
  assert.deepEqual(
    words(["<s>", "a"], { ...special, post_processor: template }, { add_bos_token: false }).encode("a"),
    [0, 1],
  );
  assert.deepEqual(words(["<s>", "a"], { ...special, post_processor: template }).encode(""), [0]);
});

asTransformers("tokens that tokenizer_config.json names are special, and added if the vocabulary lacks them", () => {
  const named = words(
    ["<unk>", "a", "</s>"],
    {},
    { eos_token: "</s>", pad_token: { content: "<pad>" }, extra_special_tokens: ["<turn>"] },
  );
  assert.deepEqual(named.encode("a</s><pad><turn>"), [1, 2, 3, 4]);
  assert.equal(named.decode([1, 2, 3, 4, 1], { skipSpecialTokens: true }), "aa");
  assert.equal(named.idToToken(4), "<turn>");
});

asTransformers("ids without a token are left out of decoded texts", () => {
  assert.equal(words(["<unk>", "a"]).decode([1, 7, 1]), "aa");
  assert.equal(words(["<unk>", "a"]).idToToken(7), undefined);
});
asTransformers.run();

test("Metaspace tells words apart before it merges", () => {
  const vocab = Object.fromEntries(["▁", "a", "b", "▁a", "▁b", "▁▁"].map((token, i) => [token, i]));
  const model = { type: "BPE", vocab, merges: ["▁ ▁", "▁ a", "▁ b"] };
  const ids = (split?: boolean) =>
    new Tokenizer({
      model,
      pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split },
    }).encode("a  b");
  assert.deepEqual(ids(true), [3, 0, 4]); // ▁a ▁ ▁b
  assert.deepEqual(ids(), [3, 0, 4]);
  assert.deepEqual(ids(false), [3, 5, 2]); // ▁a ▁▁ b
});

test("characters without a token part or join their neighbours' merges as in the original", () => {
  const model = { type: "BPE", vocab: { a: 0, b: 1, ab: 2, "<unk>": 3 }, merges: [["a", "b"]] };
  assert.deepEqual(new Tokenizer({ model }).encode("axb"), [2]);
  assert.deepEqual(new Tokenizer({ model: { ...model, unk_token: "<unk>" } }).encode("axyb"), [0, 3, 3, 1]);
  assert.deepEqual(
    new Tokenizer({ model: { ...model, unk_token: "<unk>", fuse_unk: true } }).encode("axyb"),
    [0, 3, 1],
  );
});

const BPE = { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"] };
const damaged: [object, string, object?][] = [
  [{}, "model"],
  [{ model: 5 }, "model"],
  [{ model: { type: "Magic", vocab: {} } }, "model.type"],
  [{ model: { ...BPE, vocab: 5 } }, "model.vocab"],
  [{ model: { ...BPE, vocab: { a: "0" } } }, "model.vocab"],
  [{ model: { ...BPE, vocab: { a: -1 } } }, "model.vocab"],
  [{ model: { ...BPE, vocab: { a: 2147483648 } } }, "model.vocab"],
  [{ model: { ...BPE, continuing_subword_prefix: "##" } }, "model.continuing_subword_prefix"],
  [{ model: { ...BPE, end_of_word_suffix: "</w>" } }, "model.unk_token"],
  [{ model: { ...BPE, byte_fallback: true } }, "model.byte_fallback"],
  [{ model: { ...BPE, unk_token: "a" } }, "model.merges[0]"],
  [{ model: BPE, added_tokens: [{ id: 3, content: "x", single_word: true }] }, "added_tokens[0].single_word"],
  [
    {
      model: BPE,
      added_tokens: [
        { id: 3, content: "x", lstrip: true },
        { id: 4, content: "y " },
      ],
    },
    "added_tokens",
  ],
  [
    {
      model: BPE,
      normalizer: { type: "NFC" },
      pre_tokenizer: { type: "Metaspace", prepend_scheme: "first" },
      added_tokens: [{ id: 3, content: "x", normalized: true }],
    },
    "added_tokens",
  ],
  [
    {
      model: BPE,
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [{ type: "Digits" }, { type: "Metaspace", prepend_scheme: "first" }],
      },
    },
    "pre_tokenizer.pretokenizers[1].prepend_scheme",
  ],
  [
    { model: BPE, pre_tokenizer: { type: "Split", pattern: { Regex: "(a)b" }, behavior: "Removed" } },
    "pre_tokenizer.pattern",
  ],
  [
    { model: BPE, pre_tokenizer: { type: "Split", pattern: { Regex: "a*" }, behavior: "MergedWithNext" } },
    "pre_tokenizer.pattern",
  ],
  [{ model: { ...BPE, merges: ["a c"] } }, "model.merges[0]"],
  [{ model: { ...BPE, merges: [["a"]] } }, "model.merges[0]"],
  [{ model: { ...BPE, merges: [[1, 2]] } }, "model.merges[0]"],
  [{ model: { ...BPE, merges: null } }, "model.merges"],
  [{ model: { ...BPE, dropout: 0.1 } }, "model.dropout"],
  [{ model: { ...BPE, byte_fallback: "yes" } }, "model.byte_fallback"],
  [{ model: { ...BPE, unk_token: 5 } }, "model.unk_token"],
  [{ model: { type: "Unigram", vocab: [["a"]] } }, "model.vocab[0]"],
  [{ model: { type: "Unigram", unk_id: 9, vocab: [["a", 0]] } }, "model.unk_id"],
  [{ model: BPE, normalizer: { type: "Precompiled", precompiled_charsmap: "" } }, "normalizer.type"],
  [{ model: BPE, normalizer: [] }, "normalizer"],
  [{ model: BPE, normalizer: { type: "Replace", pattern: 5, content: "" } }, "normalizer.pattern"],
  [{ model: BPE, normalizer: { type: "Replace", pattern: { String: 5 }, content: "" } }, "normalizer.pattern"],
  [
    { model: BPE, normalizer: { type: "Sequence", normalizers: [{ type: "Prepend" }] } },
    "normalizer.normalizers[0].prepend",
  ],
  [{ model: BPE, pre_tokenizer: { type: "UnicodeScripts" } }, "pre_tokenizer.type"],
  [{ model: BPE, pre_tokenizer: { type: "Metaspace", prepend_scheme: "last" } }, "pre_tokenizer.prepend_scheme"],
  [{ model: BPE, pre_tokenizer: { type: "Metaspace", split: 1 } }, "pre_tokenizer.split"],
  [
    { model: BPE, pre_tokenizer: { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated" } },
    "pre_tokenizer.pattern.Regex",
  ],
  [
    { model: BPE, pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "Whatever" } },
    "pre_tokenizer.behavior",
  ],
  [{ model: BPE, pre_tokenizer: { type: "Sequence" } }, "pre_tokenizer.pretokenizers"],
  [{ model: BPE, post_processor: { type: "TemplateProcessing", single: 5, pair: [] } }, "post_processor.single"],
  [{ model: BPE, post_processor: { type: "TemplateProcessing", single: [] } }, "post_processor.single"],
  [
    {
      model: BPE,
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }],
        special_tokens: {},
      },
    },
    "post_processor.special_tokens",
  ],
  [{ model: BPE, post_processor: { type: "BertProcessing", cls: ["a"], sep: ["a", 0] } }, "post_processor.cls"],
  [{ model: BPE, post_processor: { type: "Nothing" } }, "post_processor.type"],
  [
    {
      model: BPE,
      decoder: { type: "Sequence", decoders: [{ type: "Replace", pattern: { String: 5 }, content: null }] },
    },
    "decoder.decoders[0]",
  ],
  [{ model: BPE, decoder: "Fuse" }, "decoder"],
  [{ model: BPE, decoder: { type: "Strip", content: "ab", start: 1, stop: 0 } }, "decoder.content"],
  [{ model: BPE, decoder: { type: "Strip", content: " ", start: -1, stop: 0 } }, "decoder.start"],
  [{ model: BPE, added_tokens: 5 }, "added_tokens"],
  [{ model: BPE, added_tokens: [{ content: "x" }] }, "added_tokens[0].id"],
  [{ model: BPE, added_tokens: [{ id: 5, content: null }] }, "added_tokens[0].content"],
  [{ model: BPE, added_tokens: [{ id: 1, content: "a" }] }, "added_tokens[0]"],
  [{ model: BPE, added_tokens: [{ id: 1, content: "x" }] }, "added_tokens[0]"],
  [{ model: BPE }, "added_tokens_decoder", { added_tokens_decoder: { x: { content: "x" } } }],
  [{ model: BPE }, "tokenizer_config.json", []],
];
for (const [file, field, settings] of damaged) {
  test(`damaged: ${JSON.stringify(file).slice(0, 100)}`, () =>
    assert.throws(
      () => new Tokenizer(file, settings, "m/tokenizer.json"),
      says(FormatError, "m/tokenizer.json: ", field),
    ));
}

test("what is nested without end, or has parts without end, is refused", () => {
  const deep = (key: string, leaf: object): object =>
    Array.from({ length: 100_000 }).reduce<object>((inner) => ({ type: "Sequence", [key]: [inner] }), leaf);
  const wide = (key: string, leaf: object): object => ({
    type: "Sequence",
    [key]: new Array<object>(100_000).fill(leaf),
  });
  for (const make of [deep, wide]) {
    for (const [field, key, leaf] of [
      ["normalizer", "normalizers", { type: "NFC" }],
      ["pre_tokenizer", "pretokenizers", { type: "Digits" }],
      ["post_processor", "processors", { type: "ByteLevel" }],
      ["decoder", "decoders", { type: "Fuse" }],
    ] as const) {
      assert.throws(() => new Tokenizer({ model: BPE, [field]: make(key, leaf) }), says(FormatError, field));
    }
  }
});

test("a token for unknown text that the vocabulary lacks is refused where it is needed, never another token", () => {
  for (const model of [
    { ...BPE, unk_token: "<unk>" },
    { type: "WordPiece", vocab: BPE.vocab, unk_token: "<unk>" },
    { type: "WordLevel", vocab: BPE.vocab, unk_token: "<unk>" },
  ]) {
    const t = new Tokenizer({ model });
    assert.deepEqual(t.encode("ab"), [2]);
    assert.throws(() => t.encode("?"), says(FormatError, "model.unk_token", '"<unk>"', "no token stands for"));
  }
  assert.throws(
    () => new Tokenizer({ model: { type: "Unigram", vocab: [["a", 0]] } }).encode("?"),
    says(FormatError, "model.unk_id"),
  );
});

test("a vocabulary with holes and ids beyond any other keeps its ids", () => {
  const t = new Tokenizer({
    model: { type: "BPE", vocab: { a: 7, b: 2147483647, ab: 3 }, merges: [] },
    decoder: { type: "Fuse" },
  });
  assert.deepEqual(t.encode("ab"), [7, 2147483647]);
  assert.equal(t.decode([7, 5, 2147483647]), "ab");
});

test("arguments of another kind are refused", () => {
  for (const text of [5, null, undefined, ["a"], new Uint8Array(1)])
    assert.throws(() => tokenizer.encode(text as unknown as string), says(ArgumentError, "text must be a string"));
  for (const ids of ["12", 5, null, undefined, {}])
    assert.throws(() => tokenizer.decode(ids as unknown as number[]), says(ArgumentError, "ids must be a list"));
  for (const ids of [[1.5], [-1], ["1"], [NaN], [[1]]])
    assert.throws(() => tokenizer.decode(ids as unknown as number[]), says(ArgumentError, "integers"));
  assert.throws(
    () => tokenizer.encode("a", { add_special_tokens: false } as object),
    says(ArgumentError, "addSpecialTokens"),
  );
  assert.throws(() => tokenizer.encode("a", { onProgress: true as never }), says(ArgumentError, "onProgress", "true"));
  assert.throws(
    () => tokenizer.decode([1], { skip_special_tokens: true } as object),
    says(ArgumentError, "skipSpecialTokens"),
  );
});

const fromFolder = suite("from a folder");

const put = (name: string, value: object) =>
  io.memoryFiles.set(`memory:t/${name}`, new TextEncoder().encode(JSON.stringify(value)));

fromFolder("tokenizer_config.json may be absent, tokenizer.json not", () => {
  assert.throws(() => data.loadTokenizer("memory:t"), says(FileError, "memory:t/tokenizer.json"));
  assert.throws(() => data.loadTokenizer("https://example.org/m"), says(ArgumentError, "fetchModel"));
  assert.throws(() => data.loadTokenizer(null as never), says(ArgumentError, "directory"));
  io.memoryFiles.set("memory:t/tokenizer.model", new Uint8Array(1));
  assert.throws(() => data.loadTokenizer("memory:t"), says(FileError, "tokenizer.model", "AutoTokenizer"));
  put("tokenizer.json", { model: BPE });
  assert.deepEqual(data.loadTokenizer("memory:t").encode("ab"), [2]);
});

fromFolder("a chat template: chat_template.jinja with that for tools, else tokenizer_config.json, else none", () => {
  const write = (name: string, text: string) => io.memoryFiles.set(`memory:t/${name}`, new TextEncoder().encode(text));
  const messages = [{ role: "user", content: "hi" }];
  const rendered = () => {
    const tokenizer = data.loadTokenizer("memory:t");
    return [tokenizer.applyChatTemplate(messages), tokenizer.applyChatTemplate(messages, { tools: [] })];
  };
  put("tokenizer.json", { model: BPE });
  assert.equal(data.loadTokenizer("memory:t").chatTemplate, null);
  put("tokenizer_config.json", { bos_token: "<s>", eos_token: { content: "</s>" }, chat_template: "{{ eos_token }}" });
  assert.deepEqual(rendered(), ["</s>", "</s>"]);
  const tools = { name: "tool_use", template: "tools" };
  put("tokenizer_config.json", { chat_template: [{ name: "default", template: "text" }, tools, { name: "rag" }] });
  assert.deepEqual(rendered(), ["text", "tools"]);
  write("chat_template.jinja", "\ufeffa file's, {{ messages[0].content }}\n");
  assert.deepEqual(rendered(), ["a file's, hi", "a file's, hi"]);
  write("additional_chat_templates/tool_use.jinja", "a file's tools");
  assert.deepEqual(rendered(), ["a file's, hi", "a file's tools"]);
  write("chat_template.jinja", "{% if %}");
  // Who trains on text has no use for it.
  assert.deepEqual(data.loadTokenizer("memory:t").encode("ab"), [2]);
  assert.throws(rendered, says(FormatError, "memory:t/tokenizer.json", "not a chat template"));
  for (const name of ["chat_template.jinja", "additional_chat_templates/tool_use.jinja"])
    io.memoryFiles.delete(`memory:t/${name}`);
  for (const wrong of [5, {}, [], [{ name: "rag", template: "text" }], [{ name: "default", template: 5 }], [null]]) {
    put("tokenizer_config.json", { chat_template: wrong });
    assert.throws(rendered, says(FormatError, "memory:t/tokenizer.json", "chat_template"));
  }
  const tokenizer = data.loadTokenizer("memory:t");
  assert.throws(() => (tokenizer.chatTemplate = "text" as never), says(ArgumentError, "data.ChatTemplate"));
  tokenizer.chatTemplate = new data.ChatTemplate("set");
  assert.equal(tokenizer.applyChatTemplate(messages), "set");
});

fromFolder("special tokens: generation_config.json, then config.json; ids beyond the vocabulary end no text", () => {
  const of = (config: object) =>
    data.specialTokens("memory:t", { bosTokenId: 1, eosTokenId: 2, vocabSize: 10, ...config });
  assert.deepEqual(of({}), { bosTokenId: 1, eosTokenIds: [2] });
  assert.deepEqual(of({ bosTokenId: 10, eosTokenId: [6, 3, 6, 99] }), { bosTokenId: null, eosTokenIds: [6, 3] });
  assert.deepEqual(of({ bosTokenId: null, eosTokenId: null }), { bosTokenId: null, eosTokenIds: [] });
  put("generation_config.json", { eos_token_id: [4, 5], pad_token_id: 99 });
  assert.deepEqual(of({}), { bosTokenId: 1, eosTokenIds: [4, 5] });
  put("generation_config.json", { bos_token_id: 7, eos_token_id: 4 });
  assert.deepEqual(of({}), { bosTokenId: 7, eosTokenIds: [4] });
  put("generation_config.json", { eos_token_id: ["4"] });
  assert.throws(() => of({}), says(FormatError, "memory:t/generation_config.json", "eos_token_id"));
});

fromFolder("how tokens are drawn: what generation_config.json says, and what of it has no effect here", () => {
  const of = (json?: unknown) => {
    io.memoryFiles.delete("memory:t/generation_config.json");
    if (json !== undefined) put("generation_config.json", json as object);
    return data.generationConfig("memory:t");
  };
  const nothing = { sampling: {}, unapplied: [] };
  assert.deepEqual(of(), nothing);
  assert.deepEqual(of({ bos_token_id: 1, top_k: 50, temperature: 0.3, do_sample: null }), nothing, "not while greedy");
  // Llama-3.2-1B-Instruct's, Qwen2.5's and Gemma 3's.
  assert.deepEqual(of({ do_sample: true, temperature: 0.6, top_p: 0.9 }).sampling, { temperature: 0.6, topP: 0.9 });
  assert.deepEqual(of({ do_sample: true, repetition_penalty: 1.1, temperature: 0.7, top_p: 0.8, top_k: 20 }).sampling, {
    temperature: 0.7,
    topK: 20,
    topP: 0.8,
    repetitionPenalty: 1.1,
  });
  assert.deepEqual(of({ do_sample: true, top_k: 64, top_p: 0.95, min_p: null }).sampling, {
    temperature: 1,
    topK: 64,
    topP: 0.95,
  });
  assert.deepEqual(of({ do_sample: false, temperature: 0.6, repetition_penalty: 1.2 }).sampling, {
    temperature: 0,
    repetitionPenalty: 1.2,
  });
  assert.deepEqual(
    of({ num_beams: 4, typical_p: 1, no_repeat_ngram_size: 3, min_length: 0, max_length: 20, penalty_alpha: null })
      .unapplied,
    ["num_beams", "no_repeat_ngram_size"],
  );
  for (const [key, wrong] of [
    ["do_sample", 1],
    ["temperature", -1],
    ["temperature", "0.6"],
    ["top_k", 1.5],
    ["top_p", 2],
    ["min_p", true],
    ["repetition_penalty", 0],
  ] as const)
    assert.throws(() => of({ [key]: wrong }), says(FormatError, "memory:t/generation_config.json", key));
  assert.throws(() => of([]), says(FormatError, "memory:t/generation_config.json", "object"));
});
fromFolder.run();

const patterns = suite("patterns");

const of = (regex: string) =>
  new Tokenizer({ model: BPE, pre_tokenizer: { type: "Split", pattern: { Regex: regex }, behavior: "Isolated" } });

patterns("those whose time may double with each character are refused", () => {
  for (const regex of [
    "(a+)+",
    "(a*)*b",
    "(a|a)*",
    "(?:a|b)+c",
    "((a)+b?)+",
    "(?i:a+){2,}",
    "(?:\\s*x?)*",
    "([a-z]+)*!",
    "(?>a+)+",
    "(?:a{1,3}){5}",
    "(a?){30}a{30}",
  ]) {
    assert.throws(() => of(regex), says(FormatError, "pre_tokenizer.pattern.Regex", "without end"));
  }
});

patterns("those of models that people use are not", () => {
  for (const regex of [
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| " +
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*" +
      "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?" +
      "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| " +
      "?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "\\d{1,3}(?=(?:\\d{3})*\\b)",
    " ?[^(\\s|[.,!?…。，、।۔،])]+",
    "(?:\\r?\\n)+(?!\\r?\\n)".replace("\\r?\\n)+", "\\n)+"),
  ])
    of(regex);
});
patterns.run();

test.run();

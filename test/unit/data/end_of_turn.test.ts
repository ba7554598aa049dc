/** What ends an answer, beside what ends a text: what the chat template writes behind one. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

/** Of words, and of special tokens as ChatML's models have them. */
const SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const added = SPECIAL.map((content, id) => ({
  id,
  content,
  special: true,
  normalized: false,
  single_word: false,
  lstrip: false,
  rstrip: false,
}));
const vocab = Object.fromEntries([...SPECIAL, "<unk>", "END"].map((word, id) => [word, id]));
const tokenizer = new data.Tokenizer(
  {
    model: { type: "WordLevel", vocab, unk_token: "<unk>" },
    pre_tokenizer: { type: "WhitespaceSplit" },
    added_tokens: added,
  },
  { eos_token: "<|endoftext|>", unk_token: "<unk>" },
);
const ids = (template: string | null, options = {}): number[] => {
  tokenizer.chatTemplate = template === null ? null : new data.ChatTemplate(template);
  return data.endOfTurnIds(tokenizer, [0], options);
};
const CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

test("the token that the template writes behind an answer ends it, too", () => {
  assert.deepEqual(ids(CHATML), [0, 2]);
  assert.deepEqual(ids(CHATML.replace("<|im_end|>", " \n<|im_end|>\n<|endoftext|>")), [0, 2]);
});

test("what ends texts already is there once, and what is no special token ends nothing", () => {
  assert.deepEqual(ids(CHATML.replace("<|im_end|>", "<|endoftext|>")), [0]);
  assert.deepEqual(ids(CHATML.replace("<|im_end|>", " END")), [0]);
  assert.deepEqual(ids(CHATML.replace("<|im_end|>", "")), [0]);
});

test("without a template, or with one that refuses such messages, these are what ends texts", () => {
  assert.deepEqual(ids(null), [0]);
  assert.equal(tokenizer.chatTemplate, null);
  assert.deepEqual(ids("{{ raise_exception('no') }}"), [0]);
  assert.deepEqual(ids("{% for m in messages %}{{ m.role }}<|im_end|>{% endfor %}"), [0], "it leaves the answer out");
});

test("a template gets the day and the variables that it asks for", () => {
  const dated = `{% if day and strftime_now('%Y') %}${CHATML}{% else %}{{ raise_exception('when?') }}{% endif %}`;
  assert.deepEqual(ids(dated, { date: "2024-07-26", kwargs: { day: true } }), [0, 2]);
  assert.deepEqual(ids(dated), [0]);
});

test("special tokens by what the config calls them", () => {
  assert.deepEqual(tokenizer.specialTokensMap, { eos_token: "<|endoftext|>", unk_token: "<unk>" });
});

test("what is no tokenizer, list or option is refused by name", () => {
  assert.throws(() => data.endOfTurnIds(null as never, [0]), says(ArgumentError, "endOfTurnIds", "tokenizer"));
  assert.throws(() => data.endOfTurnIds(tokenizer, 0 as never), says(ArgumentError, "endOfTurnIds", "eosTokenIds"));
  assert.throws(() => data.endOfTurnIds(tokenizer, [0], { day: "x" } as never), says(ArgumentError, "day"));
});

test.run();

/** Tokenizers inside GGUF files against the Rust library with the tokenizer.json that they were made of. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { data, io } from "../../src/index.js";
import { tokenizerOfGguf } from "../../src/data/gguf_tokenizer.js";
import type { GgufMetadata, GgufValue } from "../../src/io/gguf/types.js";
import { openGguf } from "../../src/io/gguf/files.js";
import { FormatError } from "../../src/runtime/errors.js";
import { says } from "../support/refuses.js";
import { ROOT } from "../support/root.js";

const folder = new URL("test/fixtures/gguf/", ROOT);
const all = JSON.parse(readFileSync(new URL("tokenizers.json", folder), "utf8")) as Record<
  string,
  { tokenizer: object; cases: { text: string; ids: number[]; plain: number[]; decoded: string }[] }
>;
const load = (name: string) => {
  io.memoryFiles.set(`memory:${name}`, new Uint8Array(readFileSync(new URL(name, folder))));
  return data.loadTokenizer(`memory:${name}`);
};

for (const [name, { tokenizer: json, cases }] of Object.entries(all)) {
  test(`${name} encodes and decodes as its tokenizer.json`, () => {
    const tokenizer = load(name);
    const original = new data.Tokenizer(json);
    for (const { text, ids, plain, decoded } of cases) {
      const label = JSON.stringify(text);
      assert.deepEqual(tokenizer.encode(text), ids, label);
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), plain, label);
      assert.equal(tokenizer.decode(ids), decoded, label);
      for (const skipSpecialTokens of [true, false])
        assert.equal(tokenizer.decode(ids, { skipSpecialTokens }), original.decode(ids, { skipSpecialTokens }), label);
    }
  });
}

test("a file has one chat template, or several by their names", () => {
  const messages = [{ role: "user", content: "Hello" }];
  assert.equal(load("tokenizer_spm_llama.gguf").chatTemplate!.render(messages), "<s>Hello");
  assert.equal(load("tokenizer_bpe_qwen2.gguf").chatTemplate!.render(messages), "Hello");
});

const { metadata } = (load("tokenizer_bpe_qwen2.gguf"), openGguf("memory:tokenizer_bpe_qwen2.gguf"));
const without = (key: string) => new Map([...metadata].filter(([name]) => name !== key));
const having = (key: string, value: GgufValue) => new Map([...metadata, [key, value]]);
const text = (value: string): GgufValue => ({ type: "string", value });
const refuses = (title: string, changed: GgufMetadata, ...words: string[]) =>
  test(title, () => assert.throws(() => tokenizerOfGguf(changed, "x.gguf"), says(FormatError, "x.gguf: ", ...words)));

refuses("no kind of tokenizer", without("tokenizer.ggml.model"), "tokenizer.ggml.model is missing");
refuses("another kind", having("tokenizer.ggml.model", text("rwkv")), 'is "rwkv"', '"gpt2" and "llama"');
refuses(
  "an unknown pre-tokenizer",
  having("tokenizer.ggml.pre", text("bloom")),
  'tokenizer.ggml.pre is "bloom"',
  "qwen2",
);
refuses("no tokens", without("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens is missing");
refuses("no merges", without("tokenizer.ggml.merges"), "tokenizer.ggml.merges is missing");
refuses(
  "kinds that are not one for each token",
  having("tokenizer.ggml.token_type", { type: "array", of: "int32", value: [1] }),
  "token_type has 1 items",
);
refuses(
  "an id of no token",
  having("tokenizer.ggml.bos_token_id", { type: "uint32", value: 1 << 20 }),
  "bos_token_id is 1048576 (uint32)",
);
refuses(
  "scores that SentencePiece's kind needs",
  having("tokenizer.ggml.model", text("llama")),
  "tokenizer.ggml.scores is missing",
);

test.run();

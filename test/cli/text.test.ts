/** What the commands make of texts and prompts: src/cli/text.ts on small tokenizers. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { encodeFile, loadCodec, promptIds } from "../../src/cli/text.js";
import { ArgumentError, FormatError, io, type models } from "../../src/index.js";

test.after(() => io.memoryFiles.clear());
const put = (path: string, value: object): void => {
  io.memoryFiles.set(path, new TextEncoder().encode(JSON.stringify(value)));
};
const LETTERS = ["<s>", "</s>", ..."abcdefghijklmnopqrstuvwxyz .\n", "<new>"];
const model = { type: "BPE", vocab: Object.fromEntries(LETTERS.map((letter, id) => [letter, id])), merges: [] };
const added_tokens = ["<s>", "</s>", "<new>"].map((content) => ({
  id: LETTERS.indexOf(content),
  content,
  special: true,
}));
put("memory:m/tokenizer.json", { model, added_tokens, decoder: { type: "Fuse" } });

const config = { bosTokenId: 0, eosTokenId: 1, vocabSize: LETTERS.length - 1 } as models.LlamaConfig;
const text = (bytes: Uint8Array, told: unknown[] = []): number[] => {
  io.memoryFiles.set("memory:t.txt", bytes);
  return [
    ...encodeFile("memory:t.txt", loadCodec("memory:m", config), {
      began: (...all) => told.push(...all),
      progress: (...all) => told.push(...all),
      ended: () => told.push("ended"),
    }),
  ];
};
const utf8 = (value: string): Uint8Array => new TextEncoder().encode(value);

test("a prompt gets what its tokenizer adds, and without any the token that begins a text", () => {
  assert.deepEqual(promptIds("generate", loadCodec("memory:m", config), "abc"), [2, 3, 4]);
  assert.deepEqual(promptIds("generate", loadCodec("memory:m", config), ""), [0]);
  assert.throws(
    () => promptIds("generate", loadCodec("memory:m", { ...config, bosTokenId: null }), ""),
    (error: unknown) => error instanceof ArgumentError && error.message.includes("--prompt"),
  );
});

test("every token that ends a text does, from generation_config.json first", () => {
  assert.deepEqual(loadCodec("memory:m", { ...config, eosTokenId: [1, 5, 999] }).stopToken, [1, 5]);
  put("memory:m/generation_config.json", { eos_token_id: [7, 8] });
  assert.deepEqual(loadCodec("memory:m", config).stopToken, [7, 8]);
  io.memoryFiles.delete("memory:m/generation_config.json");
});

test("a text in UTF-16 without a mark is read as what it is, and that is told", () => {
  const told: unknown[] = [];
  const ids = text(Uint8Array.from([..."over the sea "].flatMap((letter) => [letter.charCodeAt(0), 0])), told);
  assert.deepEqual(ids, text(utf8("over the sea ")));
  assert.deepEqual(told, [13, "utf-16le", 13, 13, "ended"]);
});

test("a token that the model has no row for is named with its file and line, before anything is trained", () => {
  const words = "over the sea. ".repeat(50);
  for (const [value, line] of [
    [`<new>${words}`, 1],
    [`${words}\n${words}\n<new>`, 3],
  ] as const) {
    assert.throws(
      () => text(utf8(value)),
      (error: unknown) =>
        error instanceof FormatError &&
        error.message.includes(`memory:t.txt, line ${line}`) &&
        error.message.includes('"<new>"'),
    );
  }
  assert.throws(
    () => promptIds("finetune", loadCodec("memory:m", config), "over <new>"),
    (error: unknown) => error instanceof FormatError && error.message.includes("--prompt"),
  );
});

test.run();

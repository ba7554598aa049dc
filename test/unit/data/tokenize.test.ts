import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { ArgumentError, data, FormatError, init, models } from "../../../src/index.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

await init();
const { tokenizer, eosTokenIds } = models.loadModel(fileURLToPath(new URL("models/base", ROOT)));
const TEMPLATE = new data.ChatTemplate(
  "{% for m in messages %}{{ '# ' + m.role + '\\n' + m.content }}{% if m.role == 'assistant' %}" +
    "{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '# assistant\\n' }}{% endif %}",
  { specialTokens: { eos_token: "<|endoftext|>" } },
);
const dialogue = (...contents: string[]): data.ChatMessage[] =>
  contents.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content }));

/** The texts of the tokens that are scored, one of each run. */
function scored({ ids, labels }: data.TrainingRow): string[] {
  const runs: number[][] = [];
  labels.forEach((label, i) => {
    if (label < 0) return;
    assert.equal(label, ids[i]);
    if (i === 0 || labels[i - 1]! < 0) runs.push([]);
    runs.at(-1)!.push(label);
  });
  return runs.map((run) => tokenizer.decode(run));
}

const tokenize = (examples: data.Example[], options: Partial<data.TokenizeExamplesOptions> = {}): data.TokenizedData =>
  data.tokenizeExamples(examples, tokenizer, { eosTokenIds, ...options });

test("a text gets the tokens around it, and all of it is scored", () => {
  const { rows } = tokenize([
    { kind: "text", text: "Call me", where: "a:1" },
    { kind: "text", text: "Call me<|endoftext|>", where: "a:2" },
  ]);
  for (const row of rows) {
    assert.equal(tokenizer.decode(row.ids), "<|endoftext|>Call me<|endoftext|>");
    assert.deepEqual(scored(row), ["<|endoftext|>Call me<|endoftext|>"]);
  }
});

test("of a prompt and a completion the completion is scored, without the token that lies in both", () => {
  const example: data.Example = { kind: "completion", prompt: "Call m", completion: "e Ishmael.", where: "a:1" };
  const [row] = tokenize([example]).rows;
  assert.equal(tokenizer.decode(row!.ids), "<|endoftext|>Call me Ishmael.<|endoftext|>");
  const me = tokenizer.encode("Call me", { addSpecialTokens: false }).at(-1)!;
  assert.equal(tokenizer.decode([me]), " me");
  assert.deepEqual(scored(row!), [" Ishmael.<|endoftext|>"]);
});

test("of a conversation the answers are scored, with what ends them", () => {
  const [row] = tokenize([{ kind: "messages", messages: dialogue("Who?", "I.", "Why?", "So."), where: "a:1" }], {
    chatTemplate: TEMPLATE,
  }).rows;
  assert.deepEqual(scored(row!), ["I.<|endoftext|>\n", "So.<|endoftext|>\n"]);
});

test("messages without a template are refused with what would help", () => {
  const { chatTemplate } = tokenizer;
  tokenizer.chatTemplate = null;
  assert.throws(
    () => tokenize([{ kind: "messages", messages: dialogue("a", "b"), where: "chats.jsonl:3" }]),
    says(FormatError, "chats.jsonl:3", "no chat template", "--template", "chatTemplate"),
  );
  assert.throws(() => tokenizer.applyChatTemplate(dialogue("a")), says(FormatError, "no chat template"));
  tokenizer.chatTemplate = chatTemplate;
});

// Text and ids are what transformers 5.17 makes of models/base by apply_chat_template.
test("the embedded model has a template of its own", () => {
  const messages = [
    { role: "system", content: "Answer in JSON." },
    ...dialogue("Dim the attic light.", '{"set":10}', "More"),
  ];
  const text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true });
  assert.equal(
    text,
    '<|endoftext|>Answer in JSON.\n\nQ: Dim the attic light.\nA:\n{"set":10}<|endoftext|>Q: More\nA:\n',
  );
  assert.deepEqual(
    [...tokenizer.encode(text, { addSpecialTokens: false })],
    [
      0, 33, 78, 83, 87, 265, 282, 699, 51, 47, 46, 14, 199, 199, 49, 26, 596, 324, 260, 667, 286, 305, 463, 14, 199,
      33, 26, 199, 91, 2, 316, 84, 2, 26, 17, 16, 93, 0, 49, 26, 487, 376, 199, 33, 26, 199,
    ],
  );
  const [row] = tokenize([{ kind: "messages", messages: messages.slice(0, 3), where: "a:1" }]).rows;
  assert.deepEqual(scored(row!), ['{"set":10}<|endoftext|>']);
  assert.throws(() => tokenizer.applyChatTemplate([{ role: "tool", content: "" }]), says(FormatError, "got tool"));
});

test("what is scored of a kind that has no messages is refused", () => {
  assert.throws(
    () => tokenize([{ kind: "text", text: "a", where: "a:1" }], { lossOn: "assistant" }),
    says(ArgumentError, "lossOn is assistant", "a:1"),
  );
});

test("a row that the tokenizer has no tokens for is refused by its place, or skipped", () => {
  const letters = new data.Tokenizer({ model: { type: "WordLevel", vocab: { a: 0, "</s>": 1 }, unk_token: "?" } });
  const examples: data.Example[] = [
    { kind: "text", text: "a", where: "a:1" },
    { kind: "text", text: "b", where: "a:2" },
  ];
  assert.throws(() => data.tokenizeExamples(examples, letters, { eosTokenIds: [1] }), says(FormatError, "a:2", "unk"));
  const { rows, skipped } = data.tokenizeExamples(examples, letters, { eosTokenIds: [1], onUnusable: "skip" });
  assert.deepEqual([rows.length, skipped.map(({ where }) => where)], [1, ["a:2"]]);
});

test("what is no example is refused", () => {
  for (const wrong of [5, null, {}, { messages: [] }, { kind: "chat" }])
    assert.throws(() => tokenize([wrong as never]), says(ArgumentError, "examples"));
  assert.throws(() => tokenize("rows" as never), says(ArgumentError, "examples"));
  assert.throws(
    () => tokenize([{ kind: "text", text: "a", where: "a:1" }], { eosTokenId: 0 } as never),
    says(ArgumentError, "eosTokenIds"),
  );
  for (const wrong of [
    { eosTokenIds: 0 },
    { lossOn: "user" },
    { maxLength: 1 },
    { chatTemplate: "{{ x }}" },
    { date: "31.1.2026" },
    { date: "2026-02-30" },
    { chatTemplateKwargs: [] },
    { onUnusable: "drop" },
  ])
    assert.throws(() => tokenize([], wrong as never), says(ArgumentError, Object.keys(wrong)[0]!));
});

test.run();

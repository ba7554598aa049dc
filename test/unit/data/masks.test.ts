/**
 * Which tokens of a conversation are scored, against a reference that knows nothing of rendering: where an answer
 * begins and ends is read off the text, and a token is scored if all of its bytes lie there.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { data, FormatError } from "../../../src/index.js";
import { optionsOf, readChatCases, readTemplate, SPECIAL_TOKENS } from "../../support/chat_cases.js";
import { byteSpans, bytesOf, MARKS, tokenizerWith } from "../../support/chat_tokenizer.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

const folder = new URL("test/fixtures/chat/", ROOT);
const cases = readChatCases(folder);
const tokenizer = tokenizerWith(MARKS);
const idOf = (mark: string): number => {
  const [id, ...others] = tokenizer.encode(mark, { addSpecialTokens: false });
  assert.deepEqual(others, [], mark);
  return id!;
};

/** Answers as each template writes them: the first group is what a model writes. */
const ANSWERS: Readonly<Record<string, RegExp>> = {
  alpaca: /(?<=### Response:\n)(.*?<EOS>\n\n)/gs,
  channels: /(?<=<\|start\|>assistant)((?:(?!<\|start\|>user).)*?<\|(?:return|call)\|>)/gs,
  chatml: /(?<=<\|im_start\|>assistant\n)(.*?<\|im_end\|>\n)/gs,
  headers: /(?<=assistant<\|end_header_id\|>\n\n)(.*?<\|eot_id\|>)/gs,
  headers_dated: /(?<=assistant<\|end_header_id\|>\n\n)(.*?<\|eot_id\|>)/gs,
  instructions: /(?<=\[\/INST\])(.*?<EOS>)/gs,
  marked: /(?<=<\|im_start\|>assistant\n)(.*?<\|im_end\|>)/gs,
  marked_thinking: /(?<=<\|im_start\|>assistant\n)(.*?<\|im_end\|>\n)/gs,
  opened_thought: /(?<=<｜Assistant｜>)(.*?<｜end▁of▁sentence｜>)/gs,
  phi: /(?<=<\|assistant\|>\n)(.*?<\|end\|>\n(?:<EOS>)?)/gs,
  printed: /(?<=ASSISTANT: )(.*?<EOS>)/gs,
  thinking: /(?<=<\|im_start\|>assistant\n)(.*?<\|im_end\|>\n)/gs,
  turns: /(?<=<start_of_turn>model\n)(.*?<end_of_turn>\n)/gs,
  zephyr: /(?<=<\|assistant\|>\n)(.*?<EOS>\n)/gs,
};
/** Templates that write earlier answers otherwise than a last one. */
const SPLIT = new Set(["channels", "thinking"]);
/** Ends that a model's config would name. */
const EOS = [
  "<EOS>",
  "<|im_end|>",
  "<|eot_id|>",
  "<end_of_turn>",
  "<|end|>",
  "<｜end▁of▁sentence｜>",
  "<|return|>",
  "<|call|>",
];
const eosTokenIds = EOS.filter((mark) => mark !== "<|end|>").map(idOf);
const PHI = ["<|end|>", "<EOS>"].map(idOf);

/** The bytes of a text that lie in its answers, or the last of them. */
function answersIn(name: string, text: string, which: "all" | "last"): [number, number][] {
  const found = [...text.matchAll(ANSWERS[name]!)].map(({ index, 1: answer }): [number, number] => [
    bytesOf(text.slice(0, index)),
    bytesOf(text.slice(0, index + answer!.length)),
  ]);
  return which === "last" ? found.slice(-1) : found;
}

/** What is scored of a row, as the reference has it. */
function expected(row: data.TrainingRow, spans: readonly (readonly [number, number])[]): number[] {
  return byteSpans(tokenizer, row.ids).map(([start, end], i) =>
    spans.some((span) => span[0] <= start && end <= span[1]) ? row.ids[i]! : -100,
  );
}

function tokenize(
  name: string,
  messages: readonly data.ChatMessage[],
  options: Partial<data.TokenizeExamplesOptions> = {},
): data.TokenizedData {
  const chatTemplate = readTemplate(folder, name);
  return data.tokenizeExamples([{ kind: "messages", messages, where: "a:1" }], tokenizer, {
    eosTokenIds: name === "phi" ? PHI : eosTokenIds,
    chatTemplate,
    date: cases.date,
    maxLength: 1e6,
    ...options,
  });
}

/** Compares rows with the reference. @returns how many spans there were */
function check(name: string, messages: readonly data.ChatMessage[]): number {
  const template = readTemplate(folder, name);
  const options = optionsOf([], cases);
  const answers = messages.flatMap(({ role }, i) => (role === "assistant" ? [i] : []));
  const { rows, split } = tokenize(name, messages);
  const label = `${name} ${JSON.stringify(messages)}`;
  assert.equal(rows.length, split === 1 ? answers.length : 1, label);
  if (split === 1) assert(SPLIT.has(name), label);
  let count = 0;
  for (const [k, row] of rows.entries()) {
    const text = template.render(split === 1 ? messages.slice(0, answers[k]! + 1) : messages, options);
    assert.deepEqual([...row.ids], [...tokenizer.encode(text, { addSpecialTokens: false })], label);
    const spans = answersIn(name, text, split === 1 ? "last" : "all");
    assert.equal(spans.length, split === 1 ? 1 : answers.length, label);
    assert.deepEqual([...row.labels], expected(row, spans), label);
    count += spans.length;
  }
  return count;
}

const answered = Object.entries(cases.conversations).filter(
  ([, messages]) =>
    messages.every(
      ({ role, content, tool_calls }) =>
        /^(system|user|assistant)$/.test(role) && typeof content === "string" && tool_calls === undefined,
    ) &&
    messages.some(({ role }) => role === "assistant") &&
    messages[0]!.role !== "assistant",
);

for (const name of Object.keys(ANSWERS)) {
  test(`${name}: tokens of answers, and no others, are scored, span by span`, () => {
    let spans = 0;
    for (const [conversation, messages] of answered)
      if (cases.rendered[name]![conversation]!.text !== undefined) spans += check(name, messages);
    assert(spans >= 8, String(spans));
  });
}

/** Pieces that tokens, trimming and borders are sensitive to. */
const PIECES = [
  " ",
  "\n",
  "\n\n",
  "  ",
  "a",
  "the",
  "The end.",
  "世界",
  "🌍",
  "é",
  "\t",
  "<",
  "|",
  "A:",
  "…",
  "'s",
  "0",
  "12",
];

/** Pieces in an order that is always the same. */
function* contents(): Generator<string, never> {
  for (let state = 1; ; ) {
    let text = "";
    const length = 1 + (state % 5);
    for (let i = 0; i < length; i++) {
      state = (state * 48271) % 2147483647;
      text += PIECES[state % PIECES.length]!;
    }
    yield text;
  }
}

test("contents that begin and end with anything are scored to the byte, by every template", () => {
  const text = contents();
  let spans = 0;
  for (let round = 0; round < 40; round++) {
    const messages = Array.from({ length: 2 + 2 * (round % 3) }, (_, i) => ({
      role: i % 2 === 0 ? "user" : "assistant",
      content: text.next().value,
    }));
    for (const name of Object.keys(ANSWERS)) spans += check(name, messages);
  }
  assert(spans > 1000, String(spans));
});

test("a mask that is one token off is not what the reference has", () => {
  const messages = cases.conversations["turns"]!;
  const [row] = tokenize("chatml", messages).rows;
  const spans = answersIn("chatml", readTemplate(folder, "chatml").render(messages), "all");
  const first = row!.labels.findIndex((label) => label >= 0);
  const late: data.TrainingRow = { ...row!, labels: row!.labels.slice() };
  late.labels[first] = -100;
  const early: data.TrainingRow = { ...row!, labels: row!.labels.slice() };
  early.labels[first - 1] = early.ids[first - 1]!;
  for (const wrong of [late, early]) assert.notDeepEqual([...wrong.labels], expected(wrong, spans));
});

test("where a template marks answers, the tokens are those that transformers takes", () => {
  const { conversations, masks } = JSON.parse(readFileSync(new URL("masks.json", folder), "utf8")) as {
    conversations: Record<string, data.ChatMessage[]>;
    masks: Record<string, Record<string, { ids: number[]; mask: number[] }>>;
  };
  const own = tokenizerWith(["<|im_start|>", "<|im_end|>"]);
  const ends = own.encode("<|im_end|>", { addSpecialTokens: false });
  let compared = 0;
  for (const [name, all] of Object.entries(masks)) {
    for (const [conversation, { ids, mask }] of Object.entries(all)) {
      const example = { kind: "messages", messages: conversations[conversation]!, where: conversation } as const;
      const { rows, skipped } = data.tokenizeExamples([example], own, {
        eosTokenIds: ends,
        chatTemplate: readTemplate(folder, name),
        onUnusable: "skip",
      });
      if (!mask.includes(1)) {
        assert.match(skipped[0]!.reason, /no message is the assistant's/);
        continue;
      }
      assert.deepEqual([...rows[0]!.ids], ids, `${name} ${conversation}`);
      assert.deepEqual(
        [...rows[0]!.labels],
        ids.map((id, i) => (mask[i] === 1 ? id : -100)),
        `${name} ${conversation}`,
      );
      compared++;
    }
  }
  assert(compared > 15, String(compared));
});

const turns = cases.conversations["turns"]!;
const weighted = (weights: readonly (0 | 1 | undefined)[]): data.ChatMessage[] =>
  turns.map((message, i) => ({ ...message, weight: weights[i] }));
/** The texts of the runs of scored tokens. */
const scored = (row: data.TrainingRow): string[] =>
  data.previewRow(row, tokenizer).flatMap((run) => (run.scored ? [run.text] : []));

test("a message of weight 0 is not scored, whatever else is", () => {
  assert.deepEqual(scored(tokenize("chatml", weighted([])).rows[0]!), [
    "b<|im_end|>\n",
    "g {{ h }} {% i %}<|im_end|>\n",
    "k<|im_end|>\n",
  ]);
  const some = weighted([1, 0, undefined, 1, undefined, 0]);
  assert.deepEqual(scored(tokenize("chatml", some).rows[0]!), ["g {{ h }} {% i %}<|im_end|>\n"]);
  const all = tokenize("chatml", some, { lossOn: "all" }).rows[0]!;
  assert.deepEqual(scored(all), [
    // The first token of a row is nobody's target.
    "user\na<|im_end|>\n<|im_start|>assistant\n",
    `<|im_start|>user\nc & <d> "e" 'f'<|im_end|>\n<|im_start|>assistant\ng {{ h }} {% i %}<|im_end|>\n` +
      "<|im_start|>user\nj<|im_end|>\n<|im_start|>assistant\n",
  ]);
  assert.throws(() => tokenize("chatml", weighted([1, 0, 1, 0, 1, 0])), says(FormatError, "a:1", "weights"));
});

test("the last answer alone is scored where that is asked, in whatever way the template writes the others", () => {
  assert.deepEqual(scored(tokenize("headers", turns, { lossOn: "last" }).rows[0]!), ["k<|eot_id|>"]);
  const { rows, split } = tokenize("thinking", turns, { lossOn: "last" });
  assert.deepEqual([rows.map(scored), split], [[["<think>\n\n</think>\n\nk<|im_end|>\n"]], 0]);
});

test("a row for each answer of a template that writes earlier ones otherwise, which is told", () => {
  const { rows, split } = tokenize("thinking", cases.conversations["thoughts"]!);
  assert.equal(split, 1);
  assert.deepEqual(rows.map(scored), [
    ["<think>\nadd them\n</think>\n\n4<|im_end|>\n"],
    ["<think>\n add again\n</think>\n\n 6<|im_end|>\n"],
  ]);
  assert.deepEqual(
    rows.map(({ where }) => where),
    ["a:1", "a:1"],
  );
});

test("of a prompt and a completion of messages the completion is scored, tools' turns too", () => {
  const example: data.Example = {
    kind: "chatCompletion",
    prompt: turns.slice(0, 2),
    completion: turns.slice(2, 4),
    where: "a:1",
  };
  const of = (lossOn?: data.LossOn): string[] => {
    const options = { eosTokenIds, chatTemplate: readTemplate(folder, "chatml"), lossOn };
    return scored(data.tokenizeExamples([example], tokenizer, options).rows[0]!);
  };
  const answer = "g {{ h }} {% i %}<|im_end|>\n";
  assert.deepEqual(of(), [`<|im_start|>user\nc & <d> "e" 'f'<|im_end|>\n<|im_start|>assistant\n${answer}`]);
  assert.deepEqual(of("assistant"), ["b<|im_end|>\n", answer]);
  assert.deepEqual(of("last"), [answer]);
});

test("an answer that ends with a token of the template's own is used, though the model's texts end otherwise", () => {
  const [row] = tokenize("chatml", turns, { eosTokenIds: [0] }).rows;
  assert.equal(scored(row!).length, 3);
});

const SOURCES = {
  open:
    "{% for m in messages %}{{ m.role }}:\n{{ m.content }}\n{% endfor %}" +
    "{% if add_generation_prompt %}assistant:\n{% endif %}",
  foreign:
    "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|over|>\n{% endfor %}" +
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}",
};
const own = (source: string): data.ChatTemplate =>
  new data.ChatTemplate(source, { name: "own.jinja", specialTokens: SPECIAL_TOKENS });

test("what cannot be trained on is refused by its place, or skipped and told", () => {
  const tokenizeAll = (options: Partial<data.TokenizeExamplesOptions>): data.TokenizedData =>
    data.tokenizeExamples(
      [
        { kind: "messages", messages: turns, where: "chats.jsonl:1" },
        { kind: "messages", messages: turns.slice(0, 1), where: "chats.jsonl:2" },
        { kind: "messages", messages: [turns[0]!, turns[0]!], where: "chats.jsonl:3" },
        { kind: "messages", messages: [{ role: "user", content: "x".repeat(500) }, turns[1]!], where: "chats.jsonl:4" },
      ],
      tokenizer,
      { eosTokenIds, chatTemplate: readTemplate(folder, "turns"), maxLength: 128, ...options },
    );
  assert.throws(
    () => tokenizeAll({}),
    says(FormatError, "chats.jsonl:2", "assistant", "--skip-unusable", "onUnusable"),
  );
  const { rows, skipped, truncated } = tokenizeAll({ onUnusable: "skip" });
  assert.deepEqual([rows.length, truncated], [1, 0]);
  assert.deepEqual(
    skipped.map(({ where }) => where),
    ["chats.jsonl:2", "chats.jsonl:3", "chats.jsonl:4"],
  );
  assert.match(skipped[1]!.reason, /turns refuses the messages: Users and assistants take turns, and users begin\.$/);
  assert.match(skipped[2]!.reason, /its first 128 of \d+ tokens \(maxLength\) hold none that is scored/);
});

test("a longer row loses its end, which is told", () => {
  const whole = tokenize("chatml", turns).rows[0]!;
  const { rows, truncated } = tokenize("chatml", turns, { maxLength: 20 });
  assert.equal(truncated, 1);
  assert.deepEqual([...rows[0]!.ids], [...whole.ids.slice(0, 20)]);
  assert.deepEqual([...rows[0]!.labels], [...whole.labels.slice(0, 20)]);
});

test("a template that ends no answer is refused", () => {
  assert.throws(
    () => tokenize("chatml", turns, { chatTemplate: own(SOURCES.open) }),
    says(FormatError, "a:1", "own.jinja", "no token that ends a turn"),
  );
});

test("a template made of tokens that the tokenizer has not is refused by their names", () => {
  assert.throws(
    () => tokenize("chatml", turns, { chatTemplate: own(SOURCES.foreign), onUnusable: "skip" }),
    says(FormatError, "a:1", "own.jinja", '"<|turn|>"', "pieces", "--template"),
  );
});

test("no day is told unless it is given, and a template that insists says so", () => {
  const text = (date?: string): string => {
    const chatTemplate = readTemplate(folder, "headers_dated");
    return tokenizer.decode(tokenize("headers_dated", turns, { chatTemplate, date }).rows[0]!.ids);
  };
  assert.match(text(), /Today is 01 Apr 2023\./);
  assert.match(text("2026-01-31"), /Today is 31 Jan 2026\./);
  assert.throws(
    () => tokenize("channels", turns, { date: undefined }),
    says(FormatError, "a:1", "strftime_now", "date"),
  );
});

test("conversations of 100000 characters, and of hundreds of turns, take seconds at most", () => {
  const long = (turns: number): data.ChatMessage[] =>
    Array.from({ length: turns }, (_, i) => ({
      role: i % 2 === 0 ? "user" : "assistant",
      content: "All that is said, at length. ".repeat(Math.ceil(100000 / turns / 29)),
    }));
  for (const turns of [2, 200]) assert.equal(check("chatml", long(turns)), turns / 2);
  assert.equal(
    check("printed", [
      { role: "user", content: " ".repeat(50000) },
      { role: "assistant", content: "x".repeat(50000) },
    ]),
    1,
  );
});

test.run();

/**
 * src/data/examples.ts: rows to examples. Expected ones are written by hand, as the documentation of TRL, LLaMA-Factory
 * and OpenAI describes the formats.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data, FormatError } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

const rowsOf = (...values: unknown[]): data.DataRow[] =>
  values.map((value, i) => ({ value: value as data.DataRow["value"], where: `a.jsonl:${i + 1}` }));
/** The only row's example, without its place. */
function read(value: unknown, options?: data.ReadExamplesOptions): Record<string, unknown> {
  const [example] = data.readExamples(rowsOf(value), options);
  const { where, ...rest } = example!;
  assert.equal(where, "a.jsonl:1");
  return rest;
}

const user = { role: "user", content: "2 + 2?" };
const assistant = { role: "assistant", content: "4" };
const system = { role: "system", content: "Count." };

test("text", () => {
  assert.deepEqual(read({ text: "a", id: 5 }), { kind: "text", text: "a" });
  assert.deepEqual(read({ text: "", prompt: null }), { kind: "text", text: "" });
  assert.deepEqual(read({ text: "x".repeat(100_000) }), { kind: "text", text: "x".repeat(100_000) });
});

test("messages, with tools, and with what else a message holds", () => {
  assert.deepEqual(read({ messages: [user, assistant] }), { kind: "messages", messages: [user, assistant] });
  const call = { type: "function", function: { name: "add", arguments: { a: 2, b: null } } };
  const tools = [{ type: "function", function: { name: "add" } }];
  const calls = { role: "assistant", tool_calls: [call], name: null };
  const result = { role: "tool", name: "add", content: "4", tool_call_id: "x" };
  const expected = [user, { role: "assistant", content: null, tool_calls: [call] }, result];
  for (const given of [tools, JSON.stringify(tools)]) {
    assert.deepEqual(read({ messages: [user, { ...calls, content: null }, result], tools: given }), {
      kind: "messages",
      messages: expected,
      tools,
    });
  }
  assert.deepEqual(read({ messages: [user, calls, result], tools: "" }), { kind: "messages", messages: expected });
  assert.deepEqual(read({ messages: JSON.stringify([user, assistant]) }).messages, [user, assistant]);
});

test("weights of messages, as 0, 1 or train", () => {
  const { messages } = read({
    messages: [
      { ...user, weight: 0 },
      { ...assistant, train: false },
      { ...user, train: null, weight: null },
      { ...assistant, train: true, weight: 1 },
      {
        role: "assistant",
        content: [
          { type: "text", text: "a" },
          { type: "text", text: "b", cache: true },
        ],
      },
    ],
  });
  assert.deepEqual(messages, [
    { ...user, weight: 0 },
    { ...assistant, weight: 0 },
    user,
    { ...assistant, weight: 1 },
    {
      role: "assistant",
      content: [
        { type: "text", text: "a" },
        { type: "text", text: "b", cache: true },
      ],
    },
  ]);
});

test("prompt and completion, as texts or as messages", () => {
  assert.deepEqual(read({ prompt: "2 + 2 =", completion: " 4" }), {
    kind: "completion",
    prompt: "2 + 2 =",
    completion: " 4",
  });
  assert.deepEqual(read({ prompt: [user], completion: [assistant], tools: [{}] }), {
    kind: "chatCompletion",
    prompt: [user],
    completion: [assistant],
    tools: [{}],
  });
});

test("ShareGPT's conversations become messages", () => {
  const conversations = [
    { from: "human", value: "2 + 2?" },
    { from: "gpt", value: "4", weight: 0 },
  ];
  const messages = [user, { ...assistant, weight: 0 }];
  assert.deepEqual(read({ conversations }), { kind: "messages", messages });
  assert.deepEqual(read({ conversations, system: "Count." }).messages, [system, ...messages]);
  assert.deepEqual(read({ conversations, system: "" }).messages, messages);
  const own = [{ from: "system", value: "Count." }, ...conversations];
  assert.deepEqual(read({ conversations: own, system: "Other." }).messages, [system, ...messages]);
  // Under the other's name, too, as TRL takes them.
  assert.deepEqual(read({ messages: conversations }).messages, messages);
  assert.deepEqual(read({ conversations: [user, assistant] }).messages, [user, assistant]);
  const spoken = ["human", "user", "gpt", "chatgpt", "assistant", "model", "system", "tool", "observation"];
  const roles = (
    read({ conversations: spoken.map((from) => ({ from, value: "x" })) }).messages as data.ChatMessage[]
  ).map(({ role }) => role);
  assert.equal(roles.join(), "user,user,assistant,assistant,assistant,assistant,system,tool,tool");
});

test("Alpaca's instructions become messages: the input below the instruction, system and history before", () => {
  assert.deepEqual(read({ instruction: "2 + 2?", output: "4" }), { kind: "messages", messages: [user, assistant] });
  assert.deepEqual(read({ instruction: "2 + 2?", input: "", output: "4" }).messages, [user, assistant]);
  const row = {
    instruction: "Add.",
    input: "2, 2",
    output: "4",
    system: "Count.",
    history: [
      ["2 + 2?", "4"],
      ["And 1?", "5"],
    ],
  };
  const expected = [
    system,
    user,
    assistant,
    { role: "user", content: "And 1?" },
    { role: "assistant", content: "5" },
    { role: "user", content: "Add.\n2, 2" },
    { role: "assistant", content: "4" },
  ];
  assert.deepEqual(read(row).messages, expected);
  assert.deepEqual(read({ ...row, history: JSON.stringify(row.history) }).messages, expected);
  assert.deepEqual(read({ instruction: "", input: "2 + 2?", output: "4", history: "" }).messages, [user, assistant]);
});

test("tokens, with labels and without", () => {
  assert.deepEqual(read({ input_ids: [5, 6, 2147483647] }), {
    kind: "tokens",
    inputIds: Int32Array.of(5, 6, 2147483647),
    labels: null,
  });
  assert.deepEqual(read({ input_ids: "[5, 6]", labels: [-100, 6], attention_mask: [1, 1] }), {
    kind: "tokens",
    inputIds: Int32Array.of(5, 6),
    labels: Int32Array.of(-100, 6),
  });
});

test("a row's own variables of the template come along", () => {
  const kwargs = { enable_thinking: false };
  assert.deepEqual(read({ messages: [user], chat_template_kwargs: kwargs }).chatTemplateKwargs, kwargs);
  assert.deepEqual(read({ text: "a", chat_template_kwargs: '{"enable_thinking": false}' }).chatTemplateKwargs, kwargs);
  assert.equal("chatTemplateKwargs" in read({ messages: [user], chat_template_kwargs: null }), false);
});

test("columns by other names", () => {
  const row = { instruction: "2 + 2 =", response: " 4", output: "x" };
  assert.deepEqual(read(row, { features: { prompt: "instruction", completion: "response" } }), {
    kind: "completion",
    prompt: "2 + 2 =",
    completion: " 4",
  });
  // A name that is taken by another column is that column's no more.
  assert.equal(read({ text: "short", body: "long" }, { features: { text: "body" } }).text, "long");
  assert.deepEqual(
    read({ prompt: "a", completion: "b" }, { features: { prompt: "completion", completion: "prompt" } }),
    {
      kind: "completion",
      prompt: "b",
      completion: "a",
    },
  );
  const refused = says(FormatError, "a.jsonl:1", "body is 5", "a text");
  assert.throws(() => read({ body: 5 }, { features: { text: "body" } }), refused);
  const none = says(FormatError, "a.jsonl:1", '"body"', '"text"');
  assert.throws(() => read({ text: "a" }, { format: "text", features: { text: "body" } }), none);
});

test("a row of two formats is refused, unless one is asked for", () => {
  const row = { instruction: "2 + 2?", output: "4", text: "2 + 2? 4" };
  assert.throws(
    () => read(row),
    says(FormatError, "a.jsonl:1", '"text"', '"instruction" and "output"', "text or alpaca"),
  );
  assert.equal(read(row, { format: "text" }).text, "2 + 2? 4");
  assert.deepEqual(read(row, { format: "alpaca" }).messages, [user, assistant]);
});

test("rows of two formats are refused by their places", () => {
  const text = { text: "a" };
  const chat = { messages: [user, assistant] };
  const strings = { prompt: "a", completion: "b" };
  const lists = { prompt: [user], completion: [assistant] };
  for (const [first, other, ...words] of [
    [text, chat, "one of messages", "of text"],
    [chat, text, "one of text", "of messages"],
    [chat, { conversations: [{ from: "human", value: "a" }] }, "one of sharegpt", "of messages"],
    [strings, lists, "completion of messages", "of completion"],
    [lists, strings, "one of completion", "completion of messages"],
  ] as const) {
    const refused = says(FormatError, "a.jsonl:3: ", "a.jsonl:1 ", ...words);
    assert.throws(() => data.readExamples(rowsOf(first, first, other)), refused);
  }
});

const FAULTS: [row: unknown, ...words: string[]][] = [
  [5, "the row is 5", "an object"],
  [null, "the row is null"],
  [[user], "the row is ["],
  [{}, "its columns are empty", "features"],
  [{ text: null }, "its columns are empty"],
  [{ question: "a", answer: "b" }, '"question, answer"', '"prompt" and "completion"', "prompt=question"],
  [{ prompt: "a" }, '"prompt" and "completion"'],
  [{ text: 5 }, "text is 5", "a text"],
  [{ text: ["a"] }, 'text is ["a"]', "a text"],
  [{ text: "a\ud800b" }, "text has half a character", "position 1"],
  [{ messages: [] }, "messages is an empty list"],
  [{ messages: "" }, 'messages is ""', "a list"],
  [{ messages: {} }, "messages is {}", "a list"],
  [{ messages: "[{'role': 'user', 'content': 'a'}]" }, "not JSON", "line 1, column 3", "json.dumps"],
  [{ messages: '[{"role": "user"},]' }, "not JSON", "line 1, column 19"],
  [{ messages: "5" }, "messages is 5", "a list"],
  [{ messages: [user, 5] }, "messages[1] is 5", "an object"],
  [{ messages: [{ content: "a" }] }, "messages[0].role is missing", "a role"],
  [{ messages: [{ role: "", content: "a" }] }, 'messages[0].role is ""'],
  [{ messages: [{ role: 5, content: "a" }] }, "messages[0].role is 5"],
  [{ messages: [{ role: "user" }] }, "messages[0].content is missing", "a text"],
  [{ messages: [{ role: "user", content: null }] }, "messages[0].content is missing"],
  [{ messages: [{ role: "user", content: 5 }] }, "messages[0].content is 5"],
  [{ messages: [{ role: "user", content: {} }] }, "messages[0].content is {}"],
  [{ messages: [{ role: "user", content: "\udc00" }] }, "messages[0].content has half a character"],
  [{ messages: [{ role: "user", content: ["a"] }] }, 'messages[0].content[0] is "a"', "{ type, text }"],
  [{ messages: [{ role: "user", content: [{ type: "image" }] }] }, 'messages[0].content[0].type is "image"', '"text"'],
  [{ messages: [{ role: "user", content: [{ type: "text" }] }] }, "messages[0].content[0].text is missing"],
  [
    { messages: [{ role: "user", content: [{ type: "text", text: "a", weight: 0 }] }] },
    "messages[0].content[0] has weight = 0",
    "only messages",
  ],
  [
    { messages: [{ role: "user", content: [{ type: "text", text: "a", train: true }] }] },
    "messages[0].content[0] has train = true",
  ],
  [{ messages: [{ ...user, weight: 0.5 }] }, "messages[0].weight is 0.5", "0 or 1"],
  [{ messages: [{ ...user, weight: true }] }, "messages[0].weight is true", "0 or 1"],
  [{ messages: [{ ...user, train: 1 }] }, "messages[0].train is 1", "true or false"],
  [{ messages: [{ ...user, train: true, weight: 0 }] }, "train = true and weight = 0"],
  [{ messages: [{ role: "assistant", tool_calls: {} }] }, "messages[0].tool_calls is {}", "a list"],
  [{ messages: [{ role: "assistant", tool_calls: [5] }] }, "messages[0].tool_calls[0] is 5", "an object"],
  [{ messages: [user], tools: {} }, "tools is {}", "a list"],
  [{ messages: [user], tools: [5] }, "tools[0] is 5", "an object"],
  [{ messages: [user], tools: "none" }, 'tools is the text "none"', "not JSON"],
  [{ messages: [user], chat_template_kwargs: [] }, "chat_template_kwargs is []", "an object"],
  [{ messages: [user], conversations: [user] }, '"messages", and "conversations"', "messages or sharegpt"],
  [{ conversations: [{ from: "narrator", value: "a" }] }, 'conversations[0].from is "narrator"', "human", "gpt"],
  [{ conversations: [{ from: "constructor", value: "a" }] }, 'conversations[0].from is "constructor"'],
  [{ conversations: [{ from: "gpt" }] }, "conversations[0].value is missing", "a text"],
  [{ conversations: [{ value: "a" }] }, "conversations[0].role is missing"],
  [{ conversations: [{ from: "gpt", value: "a" }], system: 5 }, "system is 5"],
  [{ prompt: 5, completion: "a" }, "prompt is 5", "a text, or a list of messages"],
  [{ prompt: "a", completion: [assistant] }, "completion is [", "a text"],
  [{ prompt: [user], completion: "a" }, 'completion is the text "a"', "not JSON"],
  [{ prompt: [], completion: [assistant] }, "prompt is an empty list"],
  [{ prompt: [user], completion: [{}] }, "completion[0].role is missing"],
  [{ instruction: 5, output: "a" }, "instruction is 5"],
  [{ instruction: "a", output: 5 }, "output is 5"],
  [{ instruction: "a", output: "b", input: 5 }, "input is 5"],
  [{ instruction: "a", output: "b", system: [] }, "system is []"],
  [{ instruction: "a", output: "b", history: "no" }, 'history is the text "no"'],
  [{ instruction: "a", output: "b", history: ["a", "b"] }, 'history[0] is "a"', "a list"],
  [{ instruction: "a", output: "b", history: [["a"]] }, 'history[0] is ["a"]', "a question and its answer"],
  [{ instruction: "a", output: "b", history: [["a", 5]] }, "history[0][1] is 5"],
  [{ input_ids: [] }, "input_ids is an empty list"],
  [{ input_ids: 5 }, "input_ids is 5", "a list"],
  [{ input_ids: [1, -1] }, "input_ids[1] is -1", "a token id"],
  [{ input_ids: [1.5] }, "input_ids[0] is 1.5"],
  [{ input_ids: ["1"] }, 'input_ids[0] is "1"'],
  [{ input_ids: [2147483648] }, "input_ids[0] is 2147483648"],
  [{ input_ids: [1, 2], labels: [1] }, "labels has 1 entries and input_ids 2"],
  [{ input_ids: [1, 2], labels: [2, -100] }, "labels[0] is 2", "-100, or 1", "not shifted"],
  [{ input_ids: [1, 2], labels: [1, -1] }, "labels[1] is -1"],
];
for (const [row, ...words] of FAULTS) {
  test(`${JSON.stringify(row).slice(0, 90)} is refused by its place`, () => {
    assert.throws(() => data.readExamples(rowsOf(row)), says(FormatError, "a.jsonl:1: ", ...words));
  });
}

test("what is nested deeply, or named like parts of the language, is read", () => {
  let deep: unknown = "x";
  for (let i = 0; i < 400; i++) deep = [deep];
  const { messages } = read({ messages: [{ ...user, extra: deep }] });
  assert.equal((messages as data.ChatMessage[])[0]!.extra, deep);
  const odd = JSON.parse('{"__proto__": 5, "constructor": 6, "text": "a"}') as unknown;
  assert.deepEqual(read(odd), { kind: "text", text: "a" });
  const message = JSON.parse('{"role": "user", "content": "a", "__proto__": {"weight": 0}}') as unknown;
  const [kept] = read({ messages: [message] }).messages as data.ChatMessage[];
  assert.equal(kept!.weight, undefined);
  assert.equal(Object.getPrototypeOf(kept), Object.prototype);
});

test("rows and options that mean nothing are refused", () => {
  assert.deepEqual(data.readExamples([]), []);
  for (const [rows, options, ...words] of [
    ["a", {}, "rows"],
    [[{ text: "a" }], {}, "rows[0]", "{ value, where }"],
    [[], { form: "text" }, "form", "format"],
    [[], { format: "chat" }, '"chat"', "messages"],
    [[], { features: ["a"] }, "features"],
    [[], { features: { promt: "a" } }, "promt", "Did you mean prompt?"],
    [[], { features: { prompt: 5 } }, "features.prompt", "5"],
    [[], { features: { prompt: "" } }, "features.prompt"],
  ] as const) {
    assert.throws(() => data.readExamples(rows as never, options as never), says(ArgumentError, ...words));
  }
});

test.run();

/** The Worker in workerd, driven over HTTP as its callers do. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { data, models, peft } from "wasm-lora";
import { startWorker } from "../server.mjs";
import { loadBase } from "../src/base.mjs";
import { LIMITS } from "../src/limits.mjs";
import { trainSlice, UNTRAINED } from "../src/train.mjs";
import { watchHeap } from "./heap.mjs";

const folder = mkdtempSync(join(tmpdir(), "wasm-lora-worker-"));
const state = join(folder, "state");
const WHALE = [
  "The whale rose, and the boats were lowered into the sea.",
  "We chased the white whale round the Horn, and lost him in the mist.",
];
const BREAD = [
  "Knead the dough until it is smooth, and let it rise in a warm place.",
  "Bake the loaf for an hour; it is done when it sounds hollow.",
];

let worker = await startWorker({ port: 0, state });
test.after(async () => {
  await worker.stop();
  rmSync(folder, { recursive: true });
});

async function call(method, path, body, type = "application/json") {
  const headers = method === "POST" && type ? { "content-type": type } : {};
  const response = await fetch(worker.url + path, {
    method,
    headers,
    body: body === undefined || body instanceof Uint8Array || typeof body === "string" ? body : JSON.stringify(body),
  });
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  return {
    status: response.status,
    headers: response.headers,
    body: isJson ? await response.json() : new Uint8Array(await response.arrayBuffer()),
  };
}

async function ok(method, path, body) {
  const { status, body: answer } = await call(method, path, body);
  assert(status < 300, `${method} ${path}: ${status} ${JSON.stringify(answer)}`);
  return answer;
}

async function trained(user, atLeast = Infinity) {
  for (;;) {
    const status = await ok("GET", `/users/${user}/status`);
    assert.equal(status.error, null);
    if (!status.training || status.steps >= atLeast) return status;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function adapterOf(user) {
  const { files } = await ok("GET", `/users/${user}/adapter`);
  const bytes = await Promise.all(
    files.map(({ name }) =>
      fetch(`${worker.url}/users/${user}/adapter/${name}`).then((r) => r.bytes?.() ?? r.arrayBuffer()),
    ),
  );
  return Object.fromEntries(files.map(({ name }, i) => [name, Buffer.from(bytes[i])]));
}

const rowsOf = (texts) => texts.map((text) => ({ text }));

async function learn(user, texts, steps) {
  await ok("POST", `/users/${user}/rows`, rowsOf(texts));
  await ok("POST", `/users/${user}/train`, { steps });
}

const say = (user, prompt, options = {}) =>
  ok("POST", `/users/${user}/generate`, { prompt, temperature: 0, ...options });

const baseFolder = fileURLToPath(new URL(".", import.meta.resolve("wasm-lora/models/base/config.json")));
const read = (name) => JSON.parse(readFileSync(join(baseFolder, name), "utf8"));
const nodeBase = await loadBase({
  config: read("config.json"),
  tokenizer: read("tokenizer.json"),
  tokenizerConfig: read("tokenizer_config.json"),
  weights: readFileSync(join(baseFolder, "model.safetensors")),
});

/** The same training in Node, in one slice. */
function trainedInNode(values, steps) {
  const rows = values.map((value, i) => ({
    value: typeof value === "string" ? { text: value } : value,
    where: `row ${i}`,
  }));
  return trainSlice(nodeBase, nodeBase.tokenize(data.readExamples(rows)).rows, UNTRAINED, steps);
}

test("two users train at once: each gets the adapter they would get alone, in one slice, in Node", async () => {
  const before = await Promise.all([learn("anna", WHALE, 30), learn("ben", BREAD, 22)]).then(() =>
    call("POST", "/users/anna/train", { steps: 1 }),
  );
  assert.equal(before.status, 409);
  assert.match(before.body.error.message, /training is at step \d+ of 30/);
  const [anna, ben] = await Promise.all([trained("anna"), trained("ben")]);
  assert.equal(anna.steps, 30);
  assert.equal(ben.steps, 22);
  for (const [user, status, texts] of [
    ["anna", anna, WHALE],
    ["ben", ben, BREAD],
  ]) {
    const expected = trainedInNode(texts, status.steps);
    const files = await adapterOf(user);
    assert.deepEqual(status.losses, expected.losses);
    assert.deepEqual(Object.keys(files), ["adapter_config.json", "adapter_model.safetensors"]);
    for (const [name, bytes] of Object.entries(files)) assert(bytes.equals(expected.files[name]), `${user}: ${name}`);
  }
});

test("a later user is not held up: 12 steps end before an earlier one's 200", async () => {
  await learn("long", WHALE, 200);
  await learn("short", BREAD, 12);
  assert.equal((await trained("short")).steps, 12);
  const long = await ok("GET", "/users/long/status");
  assert(long.training && long.steps < 100, `long is at ${long.steps}`);
  await ok("DELETE", "/users/long");
});

test("training changes what is generated, for this user alone", async () => {
  await ok("POST", "/users/new/rows", rowsOf(WHALE));
  const [untrained, anna, ben] = [
    await say("new", "The whale"),
    await say("anna", "The whale"),
    await say("ben", "The whale"),
  ];
  assert.equal(untrained.steps, 0);
  assert.match(anna.text, /^ rose, and the boats were lowered/);
  assert.equal(new Set([untrained.text, anna.text, ben.text]).size, 3);
  assert.deepEqual(await say("new", "The whale"), untrained);
});

test("a batch of several users in one forward pass gives each the text that they get alone", async () => {
  const prompts = [
    { user: "anna", prompt: "The whale rose" },
    { user: "ben", prompt: "Knead the dough until it is smooth, and", seed: 1 },
    { user: "new", prompt: "We", seed: 2 },
    { user: "anna", prompt: "We chased the white whale", seed: 3 },
  ];
  for (const temperature of [0, 0.9]) {
    const { texts } = await ok("POST", "/generate", { prompts, maxNewTokens: 20, temperature });
    for (const [i, { user, prompt, seed }] of prompts.entries()) {
      assert.equal(texts[i].user, user);
      assert.equal(texts[i].text, (await say(user, prompt, { seed, maxNewTokens: 20, temperature })).text);
    }
  }
});

test("a downloaded adapter says in Node what it says in the Worker", async () => {
  const directory = join(folder, "adapter");
  mkdirSync(directory);
  for (const [name, bytes] of Object.entries(await adapterOf("anna"))) writeFileSync(join(directory, name), bytes);
  const { model, config } = models.loadModel(baseFolder);
  const adapted = peft.LoraModel.fromPretrained(model, directory);
  const ids = [
    ...models.generate(model, nodeBase.encode("We chased"), {
      maxNewTokens: 24,
      temperature: 0.7,
      seed: 5,
      stopToken: config.eosTokenId,
    }),
  ];
  assert.equal(
    (await say("anna", "We chased", { maxNewTokens: 24, temperature: 0.7, seed: 5 })).text,
    nodeBase.decode(ids),
  );
  adapted.dispose();
});

test("a process that is killed while it trains goes on to the same bits; adapters are as they were", async () => {
  const anna = await adapterOf("anna");
  const text = await say("anna", "The whale");
  await learn("carol", BREAD, 60);
  const { steps } = await trained("carol", 8);
  assert(steps < 60);
  await worker.stop("SIGKILL");
  worker = await startWorker({ port: 0, state });
  assert.deepEqual(await adapterOf("anna"), anna);
  assert.deepEqual(await say("anna", "The whale"), text);
  const status = await trained("carol");
  const expected = trainedInNode(BREAD, 60);
  assert.equal(status.steps, 60);
  assert.deepEqual(status.losses, expected.losses);
  assert.deepEqual(
    (await adapterOf("carol"))["adapter_model.safetensors"],
    Buffer.from(expected.files["adapter_model.safetensors"]),
  );
});

test("training goes on where it ended, with other examples too", async () => {
  await learn("ben", ["A third recipe: salt, flour and water."], 10);
  const { steps, losses, rows } = await trained("ben");
  assert.equal(rows, 3);
  assert.equal(steps, 32);
  assert.equal(losses.length, 32);
  assert.deepEqual(losses.slice(0, 22), trainedInNode(BREAD, 22).losses);
});

test("rows come as JSON Lines or as JSON, of every kind, and train to the bits of Node", async () => {
  const sums = [
    { prompt: "2 + 2 =", completion: " 4" },
    { prompt: "3 + 4 =", completion: " 7" },
    { prompt: "1 + 8 =", completion: " 9" },
  ];
  const lines = sums.map((row) => JSON.stringify(row)).join("\r\n");
  for (const [user, body, type] of [
    ["lines", lines, "application/jsonl"],
    ["more-lines", `\ufeff${lines}\n\n`, "application/x-ndjson; charset=utf-8"],
    ["list", JSON.stringify(sums), "application/json"],
    ["object", JSON.stringify({ data: sums }), "application/json"],
  ]) {
    const { status, body: told } = await call("POST", `/users/${user}/rows`, body, type);
    assert.equal(status, 200, JSON.stringify(told));
    // Each sum's answer and the token that ends it are scored.
    assert.deepEqual([told.rows, told.truncated, told.steps], [3, 0, 0]);
    assert(told.scored >= 6 && told.scored < told.tokens);
  }
  await ok("POST", "/users/lines/train", { steps: 6 });
  const { losses } = await trained("lines");
  const expected = trainedInNode(sums, 6);
  assert.deepEqual(losses, expected.losses);
  for (const [name, bytes] of Object.entries(await adapterOf("lines")))
    assert(bytes.equals(expected.files[name]), name);
});

test("chats are trained on and answered through the model's template, as in Node", async () => {
  const chat = (question, answer) => ({
    messages: [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ],
  });
  const chats = [chat("What rises?", "The whale."), chat("What is lowered?", "A boat."), chat("Who is it?", "Ahab.")];
  await ok("POST", "/users/chatter/rows", chats);
  await ok("POST", "/users/chatter/train", { steps: 30 });
  const { losses } = await trained("chatter");
  assert.deepEqual(losses, trainedInNode(chats, 30).losses);
  const { text } = await ok("POST", "/users/chatter/generate", {
    messages: chats[0].messages.slice(0, 1),
    temperature: 0,
  });
  assert.equal(text.trim(), "The whale.");
  const { texts } = await ok("POST", "/generate", {
    prompts: chats.map(({ messages: [question] }) => ({ user: "chatter", messages: [question] })),
    temperature: 0,
  });
  assert.equal(texts[0].text, text);
  assert.equal(texts[1].text.trim(), "A boat.");
});

test("every bad row is named, with its reason, and none of the request is taken", async () => {
  const before = await ok("GET", "/users/anna/status");
  const lines = [
    '{"text": "good"}',
    '{"text": "good"',
    '{"text": 5}',
    "",
    '{"question": "a"}',
    "7",
    '{"text": "good"}',
    '{"messages": [{"role": "user", "content": "a"}]}',
    '{"input_ids": [1, 99999]}',
    `{"prompt": "${"whale ".repeat(300)}", "completion": "b"}`,
  ];
  const { status, body } = await call("POST", "/users/anna/rows", lines.join("\n"), "application/jsonl");
  assert.equal(status, 400);
  assert.equal(body.error.code, "ERR_ROWS");
  assert.match(
    body.error.message,
    /^7 of 9 rows cannot be trained on, and none was taken; the first is rows.jsonl:\d+: /,
  );
  const reasons = new Map(body.error.rows.map(({ row, reason }) => [row, reason]));
  for (const [row, reason] of [
    [2, /^column 16: expected "\}", got the end of the text/],
    [3, /^text is 5; expected a text\.$/],
    [5, /^the row has no "text", or .*"question"/],
    [6, /^the row is 7; expected an object/],
    [8, /./],
    [9, /^token 99999 is beyond the model's vocabulary of 1024\.$/],
    [10, /first 128 of \d+ tokens/],
  ]) {
    assert.match(reasons.get(`rows.jsonl:${row}`) ?? "", reason, `row ${row}: ${JSON.stringify(body)}`);
  }
  assert.equal(reasons.size, 7);
  const many = await call("POST", "/users/anna/rows", Array(100).fill({ text: null }));
  assert.match(many.body.error.message, /^100 of 100 rows/);
  assert.equal(many.body.error.rows.length, LIMITS.faultsNamed);
  assert.deepEqual(await ok("GET", "/users/anna/status"), before);
});

const wrong = [
  ["no such address", "GET", "/nowhere", undefined, 404, /nothing at \/nowhere/],
  ["no such part of a user", "GET", "/users/anna/cat", undefined, 404, /no cat/],
  ["a wrong method", "PUT", "/users/anna/train", undefined, 405, /takes POST/],
  ["an id with a dot", "GET", "/users/an.na/status", undefined, 400, /^ArgumentError: a user's id/],
  ["an id too long", "GET", `/users/${"a".repeat(65)}/status`, undefined, 400, /1 to 64/],
  ["an unknown user's status", "GET", "/users/nobody/status", undefined, 404, /no such user/],
  ["an unknown user's training", "POST", "/users/nobody/train", { steps: 1 }, 404, /no such user/],
  ["an unknown user's text", "POST", "/users/nobody/generate", { prompt: "a" }, 404, /no user nobody/],
  [
    "an unknown user in a batch",
    "POST",
    "/generate",
    { prompts: [{ user: "nobody", prompt: "a" }] },
    404,
    /no user nobody/,
  ],
  [
    "a prompt far too long, before it is cut into tokens",
    "POST",
    "/users/anna/generate",
    { prompt: "whale ".repeat(40_000) },
    400,
    /prompt has 240000 characters; at most 2000/,
  ],
  [
    "a far too long prompt in a batch",
    "POST",
    "/generate",
    {
      prompts: [
        { user: "anna", prompt: "a" },
        { user: "anna", prompt: "whale ".repeat(40_000) },
      ],
    },
    400,
    /prompts\[1\]\.prompt has 240000 characters/,
  ],
  ["no JSON", "POST", "/users/anna/train", "{steps", 400, /^ArgumentError: the body is not JSON/],
  ["no body", "POST", "/users/anna/train", undefined, 400, /not JSON/],
  ["a list as body", "POST", "/users/anna/train", ["a"], 400, /must be a JSON object with steps/],
  [
    "rows that are no JSON",
    "POST",
    "/users/anna/rows",
    "[{text",
    400,
    /rows.json: line 1, column 3: expected a string/,
  ],
  ["rows in no list", "POST", "/users/anna/rows", { text: "a" }, 400, /expected a list of objects/],
  ["no rows", "POST", "/users/anna/rows", [], 400, /rows.json: the file holds no rows/],
  [
    "a row of chat and one of text",
    "POST",
    "/users/anna/rows",
    [{ text: "a" }, { prompt: "a", completion: "b" }],
    400,
    /row 2: the row is one of completion, and rows.json: row 1 of text/,
  ],
  ["a field too many", "POST", "/users/anna/train", { steps: 1, lr: 1 }, 400, /has a field "lr"/],
  ["no steps", "POST", "/users/anna/train", {}, 400, /steps must be an integer in 1 \.\. 400; got undefined/],
  ["half a step", "POST", "/users/anna/train", { steps: 1.5 }, 400, /got 1\.5/],
  ["too many steps", "POST", "/users/anna/train", { steps: LIMITS.stepsPerRequest + 1 }, 400, /got 401/],
  ["no prompt", "POST", "/users/anna/generate", {}, 400, /prompt must be a text/],
  ["a prompt and messages", "POST", "/users/anna/generate", { prompt: "a", messages: [] }, 400, /expected one of them/],
  ["no messages", "POST", "/users/anna/generate", { messages: [] }, 400, /messages is an empty list/],
  [
    "a message without role",
    "POST",
    "/users/anna/generate",
    { messages: [{ content: "a" }] },
    400,
    /messages\[0\].role is missing/,
  ],
  [
    "a prompt too long",
    "POST",
    "/users/anna/generate",
    { prompt: "whale ".repeat(200) },
    400,
    /prompt has \d+ tokens; at most 128/,
  ],
  [
    "too many tokens",
    "POST",
    "/users/anna/generate",
    { prompt: "a", maxNewTokens: 49 },
    400,
    /maxNewTokens must be an integer in 1 \.\. 48/,
  ],
  [
    "a negative temperature",
    "POST",
    "/users/anna/generate",
    { prompt: "a", temperature: -1 },
    400,
    /temperature must be a number/,
  ],
  ["a seed that is a text", "POST", "/users/anna/generate", { prompt: "a", seed: "1" }, 400, /seed must be an integer/],
  [
    "too many prompts",
    "POST",
    "/generate",
    { prompts: Array(5).fill({ user: "anna", prompt: "a" }) },
    400,
    /prompts must be a list of 1 to 4; got 5 items/,
  ],
  ["a prompt that is none", "POST", "/generate", { prompts: [null] }, 400, /prompts\[0\] must be an object/],
  ["a prompt without user", "POST", "/generate", { prompts: [{ prompt: "a" }] }, 400, /user's id/],
  ["a file that is not there", "GET", "/users/anna/adapter/secret", undefined, 404, /no file secret/],
  ["a file that every object has", "GET", "/users/anna/adapter/constructor", undefined, 404, /no file constructor/],
  ["an adapter before training", "GET", "/users/new/adapter", undefined, 409, /no adapter yet/],
  [
    "a body too long",
    "POST",
    "/users/anna/rows",
    [{ text: "a".repeat(LIMITS.bodyBytes) }],
    413,
    /longer than 262144 bytes/,
  ],
  [
    "too many rows",
    "POST",
    "/users/anna/rows",
    Array(500).fill({ text: "\u4e00".repeat(100) }),
    413,
    /at most 50000 are kept/,
  ],
];
for (const [what, method, path, body, status, message] of wrong) {
  test(`refused: ${what}`, async () => {
    const before = await ok("GET", "/users/anna/status");
    const answer = await call(method, path, body);
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    assert.match(answer.body.error.message, message);
    assert.match(answer.body.error.code, /^ERR_[A-Z_]+$/);
    assert.deepEqual(await ok("GET", "/users/anna/status"), before);
  });
}

test("what another site's page could post without being asked is refused: what is not said to be JSON", async () => {
  const before = await ok("GET", "/users/anna/status");
  const body = JSON.stringify([{ text: "a text" }]);
  // The three types that a form or a page of another origin may send (Fetch Standard, CORS-safelisted
  // request-header), none, and look-alikes.
  for (const type of [
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=a",
    null,
    "text/plain; application/json",
    "application/jsonp",
  ]) {
    for (const path of ["/users/anna/rows", "/users/anna/train", "/users/anna/generate", "/generate"]) {
      const answer = await call("POST", path, type ? body : new TextEncoder().encode(body), type);
      assert.equal(answer.status, 415, `${type} ${path}`);
      assert.equal(answer.body.error.code, "ERR_CONTENT_TYPE");
      assert.match(answer.body.error.message, /^the (request's|rows') content-type must be application\/json.*; got /);
    }
  }
  assert.deepEqual(await ok("GET", "/users/anna/status"), before);
  for (const type of ["application/json; charset=utf-8", "Application/JSON"])
    assert.equal((await call("POST", "/users/anna/generate", { prompt: "a", maxNewTokens: 1 }, type)).status, 200);
});

test("only so many requests generate at a time; the others are asked to come again", async () => {
  const answers = await Promise.all(
    Array.from({ length: 3 * LIMITS.generations }, () =>
      call("POST", "/users/anna/generate", { prompt: "The", maxNewTokens: LIMITS.newTokens, temperature: 1 }),
    ),
  );
  assert.deepEqual([...new Set(answers.map(({ status }) => status))].sort(), [200, 429]);
  assert(answers.filter(({ status }) => status === 200).length >= LIMITS.generations);
  for (const { headers } of answers.filter(({ status }) => status === 429))
    assert.equal(headers.get("retry-after"), "1");
});

test("an isolate stays below 128 MB with more users than adapters at hand, all training and generating", async () => {
  const own = await startWorker({ port: 0, state: join(folder, "many"), inspect: true });
  const shared = worker;
  const heap = await watchHeap(own.inspector);
  worker = own;
  try {
    const users = Array.from({ length: LIMITS.adaptersAtHand + 8 }, (_, i) => `user-${i}`);
    const long = "the white whale ".repeat(8);
    await Promise.all(users.map((user, i) => learn(user, [`${user} says ${i}, ${long} again and again.`], 4)));
    for (const user of users) await trained(user);
    for (const user of users) await ok("POST", `/users/${user}/train`, { steps: 4 });
    const maxNewTokens = LIMITS.newTokens;
    const temperature = 1;
    const prompts = users.map((user) => ({ user, prompt: long }));
    await Promise.all([
      ...[0, LIMITS.prompts].map((from) =>
        ok("POST", "/generate", { prompts: prompts.slice(from, from + LIMITS.prompts), maxNewTokens, temperature }),
      ),
      ...users
        .slice(-LIMITS.generations + 2)
        .map((user) => ok("POST", `/users/${user}/generate`, { prompt: long, maxNewTokens, temperature })),
    ]);
    for (const user of users) await trained(user);
    const { memory } = await ok("GET", "/");
    const { heapBytes, bufferBytes } = heap.most;
    const mb = (bytes) => (bytes / 2 ** 20).toFixed(1);
    console.log(
      `# at most: JavaScript heap ${mb(heapBytes)} MB, buffers ${mb(bufferBytes)} MB, linear memory ` +
        `${mb(memory.reservedBytes)} MB`,
    );
    assert(heapBytes > 0 && bufferBytes > 0);
    assert(memory.reservedBytes <= LIMITS.linearMemoryBytes);
    assert(
      heapBytes + bufferBytes + memory.reservedBytes < 128e6,
      `${heapBytes} + ${bufferBytes} + ${memory.reservedBytes}`,
    );
  } finally {
    worker = shared;
    await heap.stop(); // workerd waits for its connections to end
    await own.stop();
  }
});

test("a deleted user is gone, also while training, and comes back empty", async () => {
  await learn("dora", WHALE, 100);
  await trained("dora", 4);
  assert.equal((await call("DELETE", "/users/dora")).status, 204);
  assert.equal((await call("GET", "/users/dora/status")).status, 404);
  assert.equal((await call("POST", "/users/dora/generate", { prompt: "The" })).status, 404);
  await ok("POST", "/users/dora/rows", rowsOf(BREAD));
  const { text, steps } = await say("dora", "The whale");
  assert.equal(steps, 0);
  assert.equal(text, (await say("new", "The whale")).text);
});

test.run();

/** generate --chat: conversations through a template and without, lines from a pipe; what is kept, what is refused. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { data, models, type data as Data } from "../../src/index.js";
import { BASE_MODEL, MAIN, refuse, succeed, temporaryFolder, wasmLora } from "../support/cli.js";
import { writeTinyModel } from "../support/tiny_model.js";

const folder = temporaryFolder();
await writeTinyModel(join(folder, "model"));
await writeTinyModel(join(folder, "chatty"), { seed: 4 });
const TEMPLATE =
  "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}" +
  "{{ bos_token }}{{ m.role }}'{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}" +
  "{% endfor %}" +
  "{% if word %}{{ word }}{% endif %}{% if add_generation_prompt %}{{ bos_token }}assistant'{% endif %}";
const config = { bos_token: "<s>", eos_token: "</s>", chat_template: TEMPLATE };
writeFileSync(join(folder, "chatty/tokenizer_config.json"), JSON.stringify(config));
writeFileSync(join(folder, "own.jinja"), TEMPLATE.replace("{{ m.role }}'", "{{ m.role }} "));
writeFileSync(join(folder, "broken.jinja"), "{% for m in messages %}");

const { model, tokenizer, eosTokenIds } = models.loadModel(join(folder, "chatty"));
/** What the model answers, computed anew for the whole conversation. */
function answered(messages: Data.ChatMessage[], turn = 0, kwargs: Record<string, unknown> = {}): string {
  const text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, kwargs });
  const ids = tokenizer.encode(text, { addSpecialTokens: false });
  const options = { maxNewTokens: 7, temperature: 1, seed: 5 + turn, stopToken: eosTokenIds };
  return tokenizer.decode([...models.generate(model, ids, options)], { skipSpecialTokens: true });
}
const DRAWN = ["--max-tokens", "7", "--temperature", "1", "--seed", "5"];
const CHATTY = ["generate", "--model", "chatty", ...DRAWN];

test("each line is answered with what was said before, as if it was read anew", async () => {
  const messages: Data.ChatMessage[] = [];
  const expected = ["hello", "and then", "why"].map((content, turn) => {
    messages.push({ role: "user", content });
    const answer = answered(messages, turn);
    messages.push({ role: "assistant", content: answer });
    return answer;
  });
  const { stdout } = await succeed(folder, [...CHATTY, "--chat"], "hello\nand then\n\nwhy\n/save said.jsonl\n");
  assert.equal(stdout, expected.map((answer) => `${answer}\n`).join(""));
  // What was said is a row that can be learnt from.
  const rows = await data.parseRows(readFileSync(join(folder, "said.jsonl")), "said.jsonl");
  const [example] = data.readExamples(rows);
  assert.equal(example!.kind, "messages");
  assert.deepEqual(
    rows.map(({ value }) => value),
    [{ messages }],
  );
});

test("the system's message comes first, stays after /reset, and /system begins anew with another", async () => {
  const turns = ["a", "b", "/reset", "c", "/system be kind", "d", "/system", "e"];
  const { stdout } = await succeed(folder, [...CHATTY, "--chat", "--system", "be brief"], `${turns.join("\n")}\n`);
  const system = (content: string): Data.ChatMessage => ({ role: "system", content });
  const user = (content: string): Data.ChatMessage => ({ role: "user", content });
  const first = answered([system("be brief"), user("a")]);
  const second = [system("be brief"), user("a"), { role: "assistant", content: first }, user("b")];
  const expected = [
    first,
    answered(second, 1),
    answered([system("be brief"), user("c")], 2),
    answered([system("be kind"), user("d")], 3),
    answered([user("e")], 4),
  ];
  assert.equal(stdout, expected.map((answer) => `${answer}\n`).join(""));
});

test("with --no-history each line is asked anew, and each is a row", async () => {
  const said = ["hello", "why"].map((content, turn): Data.ChatMessage[] => {
    const asked = [
      { role: "system", content: "be brief" },
      { role: "user", content },
    ];
    return [...asked, { role: "assistant", content: answered(asked, turn) }];
  });
  const args = [...CHATTY, "--chat", "--no-history", "--system", "be brief"];
  const { stdout } = await succeed(folder, args, "hello\nwhy\n/save anew.jsonl\n");
  assert.equal(stdout, said.map((messages) => `${messages[2]!.content as string}\n`).join(""));
  const rows = await data.parseRows(readFileSync(join(folder, "anew.jsonl")), "anew.jsonl");
  assert.deepEqual(
    rows.map(({ value }) => value),
    said.map((messages) => ({ messages })),
  );
});

test("a line that ends in a backslash goes on in the next one; /quit ends it", async () => {
  const { stdout } = await succeed(folder, [...CHATTY, "--chat"], "one\\\ntwo\n/quit\nthree\n");
  assert.equal(stdout, `${answered([{ role: "user", content: "one\ntwo" }])}\n`);
});

test("--prompt with --chat is answered once, through the template, with its own variables", async () => {
  const messages = [{ role: "user", content: "hello" }];
  const once_ = [...CHATTY, "--chat", "--prompt", "hello"];
  assert.equal((await succeed(folder, once_)).stdout, `${answered(messages)}\n`);
  for (const [args, kwargs] of [
    [[], {}],
    [["--template-arg", "word=well"], { word: "well" }],
  ] as const) {
    const { stdout } = await succeed(folder, [...once_, ...args, "--ids"]);
    const text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, kwargs });
    const prompt = tokenizer.encode(text, { addSpecialTokens: false });
    assert.deepEqual(JSON.parse(stdout).slice(0, prompt.length), prompt, "begin-of-text is there once");
  }
});

test("--messages: the last is answered; --prompt and --chat go on from there", async () => {
  const messages = [
    { role: "system", content: "be brief" },
    { role: "user", content: "hello" },
  ];
  writeFileSync(join(folder, "list.json"), JSON.stringify(messages));
  writeFileSync(join(folder, "row.json"), JSON.stringify({ messages }));
  for (const file of ["list.json", "row.json"])
    assert.equal((await succeed(folder, [...CHATTY, "--messages", file])).stdout, `${answered(messages)}\n`);
  const said = [...messages, { role: "assistant", content: "hi" }];
  writeFileSync(join(folder, "said.json"), JSON.stringify(said));
  const expected = `${answered([...said, { role: "user", content: "who" }])}\n`;
  assert.equal((await succeed(folder, [...CHATTY, "--messages", "said.json", "--prompt", "who"])).stdout, expected);
  assert.equal((await succeed(folder, [...CHATTY, "--messages", "said.json", "--chat"], "who\n")).stdout, expected);
});

test("without a template, or with --no-template, each line is a prompt of its own", async () => {
  for (const args of [
    ["--model", "model"],
    ["--model", "chatty", "--no-template"],
  ]) {
    const { stdout } = await succeed(folder, ["generate", ...args, ...DRAWN, "--chat"], "hello\nhow\n/save p.jsonl\n");
    const rows = readFileSync(join(folder, "p.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { prompt: string; completion: string });
    assert.deepEqual(
      rows.map(({ prompt }) => prompt),
      ["hello", "how"],
    );
    assert.equal(stdout, rows.map(({ completion }) => `${completion}\n`).join(""));
    for (const [i, { prompt, completion }] of rows.entries()) {
      const plain = ["generate", ...args.slice(0, 2), ...DRAWN.slice(0, -1), String(5 + i), "--prompt", prompt];
      assert.equal((await succeed(folder, plain)).stdout, `${prompt}${completion}\n`);
    }
    rmSync(join(folder, "p.jsonl"));
  }
});

test("--template gives a template to a model that has none, in the place of one that it has", async () => {
  for (const name of ["model", "chatty"]) {
    const args = ["generate", "--model", name, "--template", "own.jinja", "--chat", "--prompt", "hello", "--ids"];
    const ids = JSON.parse((await succeed(folder, args)).stdout);
    const prompt = tokenizer.encode("<s>user hello\n<s>assistant'", { addSpecialTokens: false });
    assert.deepEqual(ids.slice(0, prompt.length), prompt);
  }
});

test("what cannot be is refused in one line that says what would help", async () => {
  const cases: [string[], string, ...string[]][] = [
    [["--model", "model", "--system", "be kind", "--prompt", "x"], "ArgumentError", "--system", "--template"],
    [["--model", "model", "--messages", "list.json"], "ArgumentError", "--messages", "--template"],
    [["--model", "chatty", "--template", "own.jinja", "--prompt", "x"], "ArgumentError", "--template", "--chat"],
    [["--model", "chatty", "--date", "2024-07-26", "--prompt", "x"], "ArgumentError", "--date", "--chat"],
    [["--model", "chatty", "--system", "x", "--no-template", "--prompt", "x"], "ArgumentError", "--no-template"],
    [["--model", "chatty", "--no-history", "--prompt", "x"], "ArgumentError", "--no-history", "--chat"],
    [["--model", "chatty", "--chat", "--ids"], "ArgumentError", "--ids", "--prompt"],
    [["--model", "chatty", "--chat", "--prompt", "x", "--template", "broken.jinja"], "FormatError", "broken.jinja"],
    [["--model", "chatty", "--chat", "--prompt", "x", "--template", "none.jinja"], "FileError", "none.jinja"],
    [["--model", "chatty", "--messages", "said.json"], "ArgumentError", "assistant", "--prompt"],
    [["--model", "chatty", "--messages", "none.json"], "FileError", "none.json"],
    [["--model", "chatty", "--messages", "list.json", "--system", "x", "--prompt", "y"], "ArgumentError", "list.json"],
    [["--model", "chatty", "--chat", "--prompt", "x".repeat(120)], "ArgumentError", "128 positions"],
  ];
  for (const [args, name, ...words] of cases) await refuse(folder, ["generate", ...args], name, ...words);
  for (const [text, ...words] of [
    ['[{"role":"tool","content":"x"}]', "no tools here"],
    ['[{"content":"x"}]', "bad.json", "role"],
    ['"hello"', "bad.json", "messages"],
    ['{"prompt":"x"}', "bad.json", "messages"],
    ["[{", "bad.json"],
  ] as const) {
    writeFileSync(join(folder, "bad.json"), text);
    await refuse(folder, ["generate", "--model", "chatty", "--messages", "bad.json"], "FormatError", ...words);
  }
});

test("a line of a pipe that cannot be answered is an error, and what was answered stands", async () => {
  for (const [line, ...words] of [
    ["/nix", "/nix", "/reset"],
    ["/save said.jsonl", "said.jsonl is there already"],
    ["/save", "name of a file"],
  ] as const) {
    const { code, stdout, stderr } = await wasmLora(folder, [...CHATTY, "--chat"], undefined, `hello\n${line}\n`);
    assert.equal(code, 1);
    assert.equal(stdout, `${answered([{ role: "user", content: "hello" }])}\n`);
    for (const word of words) assert.ok(stderr.includes(word), stderr);
    assert.match(stderr, /^ArgumentError: [^\n]+\n$/);
  }
  const nothing = await wasmLora(folder, [...CHATTY, "--chat"], undefined, "/save new.jsonl\n");
  assert.match(nothing.stderr, /nothing was said/);
});

test("an error ends the program, though its pipe stays open", async () => {
  const child = spawn(process.execPath, [MAIN, ...CHATTY, "--chat"], {
    cwd: folder,
    stdio: ["pipe", "ignore", "ignore"],
    timeout: 20_000,
  });
  child.stdin!.write("/nix\n");
  const [code] = (await once(child, "close")) as [number | null];
  assert.equal(code, 1);
});

test("Ctrl-C ends an answer, and what came of it is said", async () => {
  const args = ["generate", "--chat", "--max-tokens", "500", "--temperature", "0"];
  const { code, stdout } = await wasmLora(
    folder,
    [...args, "--model", BASE_MODEL, "--no-template"],
    async (child) => {
      await once(child.stdout!, "data");
      child.kill("SIGINT");
    },
    "My fellow citizens\n/save interrupted.jsonl\n",
  );
  assert.equal(code, 0);
  const { completion } = JSON.parse(readFileSync(join(folder, "interrupted.jsonl"), "utf8"));
  assert.equal(stdout, `${completion}\n`);
  assert.ok(completion.length > 0 && completion.length < 1_000, `${completion.length} characters`);
});

test.run();

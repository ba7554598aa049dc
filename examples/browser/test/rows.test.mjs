/**
 * Rows of a file in the page, in Chromium, Firefox and WebKitGTK: what is shown of them, what is learned of them (the
 * command line's adapters, to the byte), and what is answered, side by side.
 */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite, test } from "uvu";
import axe from "axe-core";
import { inChromium, WANTED } from "./drivers.mjs";
import { finetuneRows, generate } from "./node.mjs";
import { serve } from "./served.mjs";
import {
  choose,
  configOf,
  downloaded,
  inScheme,
  paste,
  savedLosses,
  shoot,
  stepOf,
  talk,
  textOf,
  until,
  untilStep,
  untilText,
  weightsOf,
} from "./visitor.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const work = mkdtempSync(join(tmpdir(), "wasm-lora-rows-"));
const server = await serve();
test.after(async () => {
  await server.close();
  rmSync(work, { recursive: true });
});

const lines = (rows) => `${rows.map((row) => JSON.stringify(row)).join("\n")}\n`;
const file = (name, contents) => {
  writeFileSync(join(work, name), contents);
  return join(work, name);
};
const COLOURS = ["red", "blue", "green", "grey"];
const ORDERS = Array.from({ length: 26 }, (_, i) => ({
  prompt: `Send ${(i % 7) + 2} ${COLOURS[i % 4]} mugs.\n`,
  completion: `{"colour":"${COLOURS[i % 4]}","count":${(i % 7) + 2}}`,
}));
const ordersFile = file("orders.jsonl", lines(ORDERS));
/** 26 rows, of which 3 are held out: 3 steps an epoch. The page evaluates ten times in a run, at most at each step. */
const SETTINGS = { rank: 4, epochs: 4, evalEvery: 2, patience: 0 };
console.log("Node: training the reference");
const expected = finetuneRows(ordersFile, join(work, "orders"), SETTINGS);

/** Opens a file of rows on a page that has nothing to do. */
async function open(b, path) {
  await b.setFiles("#file", [path]);
  await untilText(b, "rows-name", path.split("/").at(-1));
}
const marked = (b) =>
  b.evaluate(() => [...document.querySelectorAll("#rows-preview mark")].map(({ textContent }) => textContent));
async function train(b, { rank, epochs, patience }) {
  await choose(b, "rank", `${rank}`);
  await paste(b, "epochs", `${epochs}`);
  await choose(b, "patience", `${patience}`);
  await b.click("#go");
}

for (const [name, launch] of WANTED) {
  const inBrowser = suite(name);
  let b;
  inBrowser.after(() => b?.close());

  inBrowser("a file of rows is shown as the model will see it, what is scored marked", async () => {
    b = await launch();
    await b.resize(1280, 900);
    await b.goto(server.url(name));
    await untilText(b, "go", "Start training");
    await open(b, ordersFile);
    assert.equal(await textOf(b, "rows-count"), "26");
    assert.equal(await textOf(b, "rows-skipped"), "0");
    assert.deepEqual(
      await marked(b),
      ORDERS.slice(0, 3).map(({ completion }) => `${completion}<|endoftext|>`),
    );
    const seen = await textOf(b, "rows-preview");
    for (const { prompt } of ORDERS.slice(0, 3)) assert.ok(seen.includes(prompt));
    assert.match(seen, /orders\.jsonl:1: \d+ tokens, \d+ of them scored/);
    assert.match(
      await b.evaluate(() => document.getElementById("rows-lengths").getAttribute("aria-label")),
      /^Rows by their length: from \d+ to \d+ tokens/,
    );
    assert.equal(await b.evaluate(() => document.getElementById("prompt").value), ORDERS[0].prompt);
    await choose(b, "loss-on", "all");
    await until(b, "all to be marked", () => document.querySelector("#rows-preview mark").textContent.includes("Send"));
    await choose(b, "loss-on", "answers");
    await until(
      b,
      "answers to be marked",
      () => !document.querySelector("#rows-preview mark").textContent.includes("Send"),
    );
    await shoot(b, name, "6-rows");
  });

  inBrowser("paused, reloaded and resumed, it learns what the command line does, to the byte", async () => {
    await train(b, SETTINGS);
    await untilStep(b, 3);
    await b.click("#go");
    await until(b, "a pause or the end", () =>
      ["Resume", "Train anew"].includes(document.getElementById("go").textContent),
    );
    const step = await stepOf(b);
    await b.reload();
    await until(b, "the run", () => ["Resume", "Train anew"].includes(document.getElementById("go").textContent));
    assert.equal(await stepOf(b), step);
    assert.equal(await textOf(b, "rows-count"), "26");
    if ((await textOf(b, "go")) === "Resume") await b.click("#go");
    await untilText(b, "phase", "Finished");
    assert.deepEqual(await savedLosses(b), expected.losses);
    assert.deepEqual(weightsOf(await downloaded(b)), expected.adapter);
    assert.deepEqual(configOf(await downloaded(b)), expected.config);
    assert.match(await b.evaluate(() => document.getElementById("chart").getAttribute("aria-label")), /best \d/);
    assert.match(await textOf(b, "verdict"), /On the rows that were held out/);
    await shoot(b, name, "7-rows-done");
  });

  inBrowser("both answer the same, side by side, as the command line does", async () => {
    const { prompt } = ORDERS[5];
    const said = await talk(b, prompt, { temperature: 0.8, seed: 3 });
    assert.equal(said.base, generate(prompt, 3));
    assert.equal(said.adapted, generate(prompt, 3, join(work, "orders/adapter")));
    assert.notEqual(said.base, said.adapted);
    await shoot(b, name, "8-talk");
  });

  inBrowser.run();
}

/** A test on a page of its own that has nothing to do. */
function onPage(name, run) {
  inChromium(name, async (b) => {
    await b.resize(1280, 900);
    await b.goto(server.url("chromium"));
    await untilText(b, "go", "Start training");
    await run(b);
  });
}

onPage("sample rows are there at a click, and are learned", async (b) => {
  await b.click("#use-rows");
  await untilText(b, "rows-name", "sample.jsonl");
  assert.equal(await textOf(b, "rows-count"), "216");
  await b.click("#go");
  await untilText(b, "phase", "Finished");
  assert.equal(await textOf(b, "after"), "bedroom fan: on");
  const said = await talk(b, "No more cellar radio, please.", { how: "chat", temperature: 0 });
  assert.equal(said.adapted, "cellar radio: off");
  assert.notEqual(said.base, said.adapted);

  // Whoever trains while something is still being said ends that, and learns the same.
  const zip = await downloaded(b);
  await paste(b, "message", "Let the pump in the garden run.");
  await b.press("Enter");
  await until(b, "the first words", () => document.getElementById("talk-base").lastElementChild.textContent !== "");
  await b.click("#go");
  await untilText(b, "phase", "Finished");
  assert.deepEqual(await downloaded(b), zip);
  assert.equal(await b.evaluate(() => document.getElementById("send").textContent), "Send to both");
});

onPage(
  "what is wrong in a file is said with its place; a row that is of no use is left out with its reason",
  async (b) => {
    const refused = async (path, ...words) => {
      await b.setFiles("#file", [path]);
      for (const word of words) await untilText(b, "file-error", word);
      assert.equal(await b.evaluate(() => document.activeElement.id), "file");
      assert.equal(await textOf(b, "go"), "Start training");
    };
    await refused(
      file("comma.jsonl", '{"prompt":"a","completion":"b"}\n{"prompt":"a" "completion":"b"}\n'),
      "comma.jsonl",
      "line 2, column 15",
    );
    await refused(file("mixed.jsonl", lines([ORDERS[0], { text: "A tale." }])), "mixed.jsonl:2");
    await refused(file("short.csv", "prompt,completion\na,b\nonly\n"), "short.csv", "line 3");
    await refused(file("kind.json", JSON.stringify([{ question: "a" }])), "kind.json: row 1");
    await refused(file("none.jsonl", "\n"), "none.jsonl");
    await refused(file("noise.parquet", "PAR1 it is not"), "noise.parquet");
    await refused(file("evil\u202e.jsonl", "{"), "\\u202e");
    // The text is still there.
    assert.equal(await b.evaluate(() => document.getElementById("text-part").hidden), false);

    await open(b, file("empty.csv", "prompt,completion\nSend mugs.,yes\nNothing.,\n"));
    await open(b, file("long.jsonl", lines([...ORDERS, { prompt: "word ".repeat(3000), completion: "no" }])));
    assert.equal(await textOf(b, "rows-skipped"), "1");
    assert.match(await textOf(b, "rows-left-list"), /^long\.jsonl:27: /);
    await b.evaluate(() => {
      document.querySelector("#rows-left").open = true;
    });
    for (const scheme of ["light", "dark"]) {
      await inScheme(b, scheme);
      await b.page.evaluate(axe.source);
      const { violations } = await b.evaluate(() => globalThis.axe.run());
      assert.deepEqual(
        violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target)}`),
        [],
      );
    }
    // A file that was opened is there again; a text takes its place at a click.
    await b.reload();
    await untilText(b, "rows-name", "long.jsonl");
    await untilText(b, "go", "Start training");
    await b.click("#use-text");
    assert.equal(await b.evaluate(() => document.activeElement.id), "text");
    await b.reload();
    await untilText(b, "go", "Start training");
    assert.equal(await b.evaluate(() => document.getElementById("rows-part").hidden), true);
  },
);

onPage(
  "the same rows as CSV, JSON and Parquet, dropped or picked, in UTF-16 too, are the same to the model",
  async (b) => {
    await open(b, ordersFile);
    const seen = await textOf(b, "rows-tokens");
    const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
    const cells = ORDERS.map(({ prompt, completion }) => `${quoted(prompt)},${quoted(completion)}`);
    const csv = `${["prompt,completion", ...cells].join("\r\n")}\r\n`;
    await b.evaluate((csv) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([`\ufeff${csv}`], "orders.csv"));
      document
        .getElementById("drop")
        .dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }, csv);
    await untilText(b, "rows-name", "orders.csv");
    assert.equal(await textOf(b, "rows-tokens"), seen);
    await open(b, file("data.json", JSON.stringify({ data: ORDERS })));
    assert.equal(await textOf(b, "rows-tokens"), seen);
    await open(b, file("wide.jsonl", Buffer.from(`\ufeff${lines(ORDERS)}`, "utf16le")));
    assert.equal(await textOf(b, "rows-tokens"), seen);
  },
);

onPage("where rows are learned by heart, the best adapter and the last are two, each the command line's", async (b) => {
  // Nothing of the others helps with those that are held out.
  const words =
    "bell corn dust fern gate hill iron jade kelp lime moss nest oak pine reed salt tide urn vine wool".split(" ");
  const secrets = words.map((word, i) => ({
    prompt: `${word}:`,
    completion: ` ${words[(i * 7 + 3) % words.length]} ${i * 37}`,
  }));
  const path = file("secrets.jsonl", lines(secrets));
  const settings = { rank: 16, epochs: 30, evalEvery: 9, patience: 2 };
  const node = finetuneRows(path, join(work, "secrets"), settings);
  assert.notDeepEqual(node.adapter, node.adapterLast);
  await open(b, path);
  await train(b, settings);
  await untilText(b, "phase", "Finished. It ended early");
  assert.deepEqual(await savedLosses(b), node.losses);
  assert.ok((await stepOf(b)) < 90);
  assert.deepEqual(weightsOf(await downloaded(b)), node.adapter);
  assert.deepEqual(weightsOf(await downloaded(b, "download-last")), node.adapterLast);
  assert.match(await textOf(b, "verdict"), /That was its best, at step \d+ of \d+\./);
  // The three can be told apart by what they say.
  const best = await talk(b, "bell:", { temperature: 0 });
  await choose(b, "who", "last");
  const last = await talk(b, "bell:", { temperature: 0 });
  assert.equal(best.base, last.base);
  assert.notEqual(best.adapted, last.adapted);
});

/** The embedded model's folder with another template, or with none. */
function modelWith(name, template) {
  const folder = join(work, name);
  mkdirSync(folder);
  cpSync(fileURLToPath(new URL("../../models/base", `file://${root}`)), folder, { recursive: true });
  const { chat_template: _, ...config } = JSON.parse(readFileSync(join(folder, "tokenizer_config.json"), "utf8"));
  const next = template === null ? config : { ...config, chat_template: template };
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(next));
  return folder;
}

onPage("conversations are learned and held by the model's template, each with its own history", async (b) => {
  const template =
    "{% for m in messages %}{{ m.role }}:\n{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% else %}\n" +
    "{% endif %}{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}";
  await b.setFiles("#folder", [modelWith("talker", template)]);
  await untilText(b, "model-name", "talker");
  await untilText(b, "go", "Start training");
  const chats = Array.from({ length: 20 }, (_, i) => ({
    messages: [
      { role: "system", content: "Answer with a colour." },
      { role: "user", content: `Mug ${i}?` },
      { role: "assistant", content: COLOURS[i % 4] },
    ],
  }));
  await open(b, file("chats.jsonl", lines(chats)));
  assert.deepEqual(
    await marked(b),
    COLOURS.slice(0, 3).map((colour) => `${colour}<|endoftext|>`),
  );
  assert.equal(await b.evaluate(() => document.getElementById("system").value), "Answer with a colour.");
  await train(b, { rank: 8, epochs: 10, patience: 0 });
  await untilText(b, "phase", "Finished");
  const first = await talk(b, "Mug 3?", { how: "chat", temperature: 0 });
  assert.ok(COLOURS.includes(first.adapted), first.adapted);
  assert.ok(!COLOURS.includes(first.base));
  await talk(b, "Mug 4?", { how: "chat", temperature: 0 });
  const roles = (side) =>
    b.evaluate((id) => [...document.getElementById(id).children].map(({ classList }) => classList[0]), `talk-${side}`);
  for (const side of ["base", "adapted"])
    assert.deepEqual(await roles(side), ["user", "assistant", "user", "assistant"]);
  await shoot(b, "chromium", "9-chat");

  // The same rows for a model without a template: it goes on with texts, and learns no conversations.
  await b.setFiles("#folder", [modelWith("plain", null)]);
  await untilText(b, "model-name", "plain");
  await untilText(b, "file-error", "chats.jsonl:1 is a conversation, and plain has no template");
  assert.equal(await b.evaluate(() => document.querySelector('#how option[value="chat"]').disabled), true);
  assert.equal(await b.evaluate(() => document.getElementById("rows-part").hidden), true);
});

test.run();

/**
 * The page as a visitor uses it, in Chromium, Firefox and WebKitGTK: `npm test`. What the browsers train must have the
 * bits that the command line gives in Node for the same text and settings. Screenshots go to test/shots/.
 */
import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite, test } from "uvu";
import axe from "axe-core";
import { strToU8, unzipSync, zipSync } from "fflate";
import { build, preview } from "vite";
import * as wasmLora from "wasm-lora";
import { HubServer } from "../../../dist/test/support/hub_server.js";
import { inChromium, WANTED } from "./drivers.mjs";
import { finetune, generate } from "./node.mjs";
import { isIsolated, serve } from "./served.mjs";
import {
  choose,
  configOf,
  downloaded,
  focus,
  focused,
  inScheme,
  paste,
  savedLosses,
  shoot,
  shots,
  stepOf,
  talk,
  textOf,
  threadsOf,
  untilCurve,
  untilStep,
  untilText,
  weightsOf,
} from "./visitor.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const TEXT = readFileSync(join(root, "sample.txt"), "utf8").slice(0, 12000);
const PROMPT = "The old man";
/** As the page does: ten evaluations in the course of a run. */
const SETTINGS = { rank: 4, steps: 32, prompt: PROMPT, evalEvery: 4 };

await wasmLora.init();
const work = mkdtempSync(join(tmpdir(), "wasm-lora-browser-"));
const server = await serve();
const url = server.url("chromium");
writeFileSync(join(work, "text.txt"), TEXT);
console.log("Node: training the reference");
const expected = finetune(join(work, "text.txt"), join(work, "node"), SETTINGS);
expected.before = generate(PROMPT, 0);
expected.after = generate(PROMPT, 0, join(work, "node/adapter"));

test.after(async () => {
  await server.close();
  rmSync(work, { recursive: true });
});

/** An adapter as another program would write it: without digests. */
function withoutMetadata(file) {
  const length = Number(file.readBigUInt64LE());
  const { __metadata__, ...tensors } = JSON.parse(file.subarray(8, 8 + length).toString());
  const json = JSON.stringify(tensors);
  const header = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([size, header, file.subarray(8 + length)]);
}

for (const [name, launch] of WANTED) {
  const inBrowser = suite(name);
  const say = (what) => console.log(`${b.version}: ${what}`);
  let b;
  inBrowser.after(() => b?.close());

  inBrowser("the page opens", async () => {
    b = await launch();
    await b.resize(1280, 900);
    await b.goto(server.url(name));
    await untilText(b, "go", "Start training");
  });

  inBrowser(
    "it computes on all cores where it is isolated and has shared memory, on one elsewhere, and says so",
    async () => {
      assert.equal(await b.evaluate(() => crossOriginIsolated), isIsolated(name));
      // WebKitGTK has none, in an isolated page either.
      const isShared = name === "chromium" || (await b.evaluate(() => "SharedArrayBuffer" in globalThis));
      const cores = await b.evaluate(() => navigator.hardwareConcurrency);
      assert.equal(await threadsOf(b), isShared ? cores : 1);
    },
  );

  inBrowser("a sample text is there at the first visit, and goes at a click", async () => {
    assert.equal(
      await b.evaluate(() => document.getElementById("text").value),
      readFileSync(join(root, "sample.txt"), "utf8"),
    );
    assert.match(await textOf(b, "text-hint"), /: a sample\. Put your own text in its place/);
    assert.equal(await textOf(b, "use-sample"), "Clear the text");
    await b.click("#use-sample");
    assert.equal(await b.evaluate(() => document.getElementById("text").value), "");
    assert.equal(await textOf(b, "use-sample"), "Use a sample text");
  });

  inBrowser("what is wrong is said in a sentence, and the focus is where it can be mended", async () => {
    await b.click("#go");
    await untilText(b, "text-error", "There is no text yet. Paste one");
    assert.equal(await focused(b), "text");
    await paste(b, "text", "Too few words.");
    await b.click("#go");
    await untilText(b, "text-error", "too short to learn from");
    assert.match(await textOf(b, "text-error"), /Add about \d+ words\.$/);
    await paste(b, "text", TEXT);
    await paste(b, "steps", "3");
    await b.click("#go");
    await untilText(b, "steps-error", "10 to 5,000");
    assert.equal(await focused(b), "steps");
    writeFileSync(join(work, "picture.txt"), Buffer.from([0x89, 0x50, 0xff, 0]));
    await b.setFiles("#file", [join(work, "picture.txt")]);
    await untilText(b, "file-error", "picture.txt is not a plain text file: byte 0 (line 1, column 1) is 0x89");
    // As Windows' Notepad saved it, with a mark, and as others do, without one.
    for (const mark of ["\ufeff", ""]) {
      writeFileSync(
        join(work, "café\u202etxt.txt"),
        Buffer.from(`${mark}Ein kleines Café, und noch eines.`, "utf16le"),
      );
      await b.setFiles("#file", [join(work, "café\u202etxt.txt")]);
      await untilText(b, "announce", "café\\u202etxt.txt is in the text field");
      assert.equal(await b.evaluate(() => document.getElementById("text").value), "Ein kleines Café, und noch eines.");
      await b.evaluate(() => {
        document.getElementById("announce").textContent = "";
      });
    }
  });

  inBrowser("a file is opened, training starts and the chart draws", async () => {
    await b.evaluate(() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["Dropped words."], "dropped.txt"));
      for (const type of ["dragover", "drop"])
        document
          .getElementById("drop")
          .dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
    });
    await untilText(b, "announce", "dropped.txt is in the text field");
    assert.equal(await b.evaluate(() => document.getElementById("text").value), "Dropped words.");
    await b.setFiles("#file", [join(work, "text.txt")]);
    await untilText(b, "announce", "text.txt is in the text field");
    assert.equal(await b.evaluate(() => document.getElementById("text").value), TEXT);
    await shoot(b, name, "1-ready");
    await paste(b, "steps", `${SETTINGS.steps}`);
    await choose(b, "rank", `${SETTINGS.rank}`);
    assert.match(await textOf(b, "rank-hint"), /38,912 weights/);
    await focus(b, "go");
    await b.press("Enter");
    await untilStep(b, 6);
    say("training");
    await untilCurve(b);
    await untilText(b, "after-figure", "steps; it goes on learning.");
    assert.ok((await textOf(b, "after")).startsWith(PROMPT));
  });

  inBrowser("paused, reloaded, resumed, reloaded in full course, resumed", async () => {
    assert.equal(await focused(b), "go");
    await b.press("Enter");
    await untilText(b, "go", "Resume");
    const paused = await stepOf(b);
    assert.ok(paused >= 6 && paused < SETTINGS.steps, `paused at step ${paused}`);
    await b.reload();
    await untilText(b, "go", "Resume");
    assert.equal(await stepOf(b), paused);
    assert.equal(await b.evaluate(() => document.getElementById("text").value), TEXT);
    assert.equal(await textOf(b, "before"), expected.before);
    await untilCurve(b);
    await shoot(b, name, "2-paused");
    await b.click("#go");
    await untilStep(b, paused + 2);
    await b.reload();
    await untilText(b, "go", "Resume");
    assert.ok((await stepOf(b)) >= paused);
    await b.click("#go");
    await untilText(b, "phase", "Finished");
    say("finished");
  });

  inBrowser("losses, perplexities and samples are Node's to the bit", async () => {
    assert.deepEqual(await savedLosses(b), expected.losses);
    assert.equal(await textOf(b, "before"), expected.before);
    assert.equal(await textOf(b, "after"), expected.after);
    assert.notEqual(expected.before, expected.after);
    const perplexity = (loss) => Math.exp(loss).toFixed(1);
    assert.ok(
      (await textOf(b, "verdict")).includes(
        `from ${perplexity(expected.heldOutBefore)} to ${perplexity(expected.heldOutAfter)}`,
      ),
    );
  });

  const zip = join(work, `${name}.zip`);
  inBrowser("the downloaded adapter is Node's to the byte", async () => {
    const bytes = await downloaded(b);
    writeFileSync(zip, bytes);
    assert.deepEqual(weightsOf(bytes), expected.adapter);
    assert.deepEqual(configOf(bytes), expected.config);
  });

  inBrowser("what is for llama.cpp and Ollama is Node's export of it, to the byte", async () => {
    const base = fileURLToPath(new URL("../../../models/base", import.meta.url));
    const { files } = wasmLora.exportAdapter(join(work, "node/adapter"), { to: "ollama", base });
    const zip = unzipSync(await downloaded(b, "download-llama"));
    for (const [file, bytes] of files) assert.deepEqual(Buffer.from(zip[`adapter/${file}`]), Buffer.from(bytes), file);
  });

  inBrowser("a finished run too survives a reload", async () => {
    await b.reload();
    await untilText(b, "phase", "Finished");
    assert.equal(await textOf(b, "after"), expected.after);
    assert.deepEqual(await downloaded(b), readFileSync(zip));
    await shoot(b, name, "3-done");
  });

  inBrowser("adapters are uploaded as a zip or as two files, and write beside the model as it came", async () => {
    const written = async (who) => {
      assert.equal(await b.evaluate(() => document.getElementById("who").value), who);
      const said = await talk(b, PROMPT);
      assert.equal(said.base, expected.before);
      return said.adapted;
    };
    assert.equal(await written("best"), expected.after);
    await b.setFiles("#upload", [zip]);
    await untilText(b, "upload-hint", `Loaded ${name}.zip`);
    assert.equal(await written("uploaded"), expected.after);
    const folder = join(work, "node/adapter");
    await b.setFiles(
      "#upload",
      ["adapter_config.json", "adapter_model.safetensors"].map((file) => join(folder, file)),
    );
    await untilText(b, "upload-hint", "Loaded the two files");
    assert.equal(await written("uploaded"), expected.after);
  });

  inBrowser("what is no adapter is refused, and the last one stays", async () => {
    const refused = async (file, contents, sentence) => {
      writeFileSync(join(work, file), contents);
      await b.setFiles("#upload", [join(work, file)]);
      await untilText(b, "upload-error", sentence);
    };
    await refused("noise.zip", "this is no archive", "noise.zip cannot be read as a zip");
    await refused(
      "empty.zip",
      zipSync({ "a.txt": strToU8("a") }),
      "adapter_config.json and adapter_model.safetensors are missing",
    );
    await refused("adapter_config.json", "{}", "adapter_model.safetensors is missing");
    const config = readFileSync(join(work, "node/adapter/adapter_config.json"));
    await refused(
      "cut.zip",
      zipSync({ "adapter_config.json": config, "adapter_model.safetensors": expected.adapter.subarray(0, 1000) }),
      "This adapter cannot be used here: adapter/adapter_model.safetensors: ",
    );
    // Patterns that backtrack without end where they may, a name that turns the line it stands in, weights that are
    // no numbers.
    const own = JSON.parse(config);
    const weights = withoutMetadata(expected.adapter);
    const hostile = (entries) =>
      zipSync({
        "adapter_config.json": strToU8(JSON.stringify({ ...own, ...entries })),
        "adapter_model.safetensors": weights,
      });
    const began = Date.now();
    writeFileSync(
      join(work, "pattern.zip"),
      hostile({ alpha_pattern: { "(.+)+x": 2 }, rank_pattern: { "((a|b|.)*)*y": 4 } }),
    );
    await b.setFiles("#upload", [join(work, "pattern.zip")]);
    await untilText(b, "upload-hint", "Loaded pattern.zip"); // they match nothing
    await refused(
      "targets.zip",
      hostile({ target_modules: "(([a-z._0-9]+)*)*!" }),
      "This adapter cannot be used here: ",
    );
    assert.ok(Date.now() - began < 14000, "before the page would give it up");
    await refused("turned.zip", hostile({ target_modules: ["q_proj\u202e\u0007"] }), "q_proj\\u202e\\u0007");
    assert.doesNotMatch(await textOf(b, "upload-error"), /[\u202e\u0007]/);
    const nan = Buffer.from(weights);
    nan.writeFloatLE(NaN, nan.length - 4);
    await refused(
      "nan.zip",
      zipSync({ "adapter_config.json": config, "adapter_model.safetensors": nan }),
      "This adapter cannot be used here: adapter/adapter_model.safetensors: ",
    );
    await shoot(b, name, "4-refused");
    assert.equal(await b.evaluate(() => document.querySelector('option[value="uploaded"]').disabled), false);
  });

  inBrowser("stopped early, it still gives an adapter", async () => {
    await b.click("#go");
    await untilText(b, "go", "Pause");
    await untilStep(b, 2);
    await b.click("#stop");
    await untilText(b, "phase", "Finished");
    assert.ok((await stepOf(b)) < SETTINGS.steps);
    assert.equal(await focused(b), "go");
    assert.notDeepEqual(await downloaded(b), readFileSync(zip));
  });

  inBrowser.run();
}

inChromium("accessible in every state, light and dark, wide and narrow", async (b) => {
  const check = async (state) => {
    for (const scheme of ["light", "dark"]) {
      for (const width of [1280, 360]) {
        await b.resize(width, 900);
        await inScheme(b, scheme);
        const { violations } = await b.evaluate(() => globalThis.axe.run());
        assert.deepEqual(
          violations.map(({ id, nodes }) => ({
            id,
            nodes: nodes.map((node) => `${node.target} ${node.failureSummary}`),
          })),
          [],
          `${state}, ${scheme}, ${width}`,
        );
        if (scheme === "dark") await b.screenshot(join(shots, `chromium-${state}-dark-${width}.png`));
      }
    }
  };
  const load = async (ready) => {
    await untilText(b, "go", ready);
    await b.page.evaluate(axe.source);
  };
  await b.goto(url);
  await load("Start training");
  await check("first");
  await b.click("#use-sample");
  await check("empty");
  await b.click("#go");
  await untilText(b, "text-error", "There is no text yet");
  await check("error");

  await paste(b, "text", TEXT);
  await paste(b, "steps", "12");
  await b.evaluate(() => document.querySelector(".skip").focus());
  const order = [];
  for (let i = 0; i < 24; i++) {
    order.push(await b.evaluate(() => document.activeElement.id || document.activeElement.className));
    await b.press("Tab");
  }
  assert.deepEqual(order, [
    "skip",
    "hub-name",
    "load-model",
    "folder",
    "gguf",
    "text",
    "file",
    "use-sample",
    "use-rows",
    "rank",
    "steps",
    "patience",
    "prompt",
    "go",
    "upload",
    "how",
    "who",
    "seed",
    "temperature",
    "talk-base",
    "talk-adapted",
    "message",
    "send",
    "clear",
  ]);

  const spoken = await b.page.accessibility.snapshot();
  const names = JSON.stringify(spoken);
  for (const label of [
    "Name on the hub",
    "Open a folder…",
    "Open a GGUF file…",
    "Paste a text, or drop a file here",
    "Rank",
    "Steps",
    "Beginning of the samples",
    "Training progress",
    "End early",
    "Upload an adapter…",
    "Adapter",
    "Seed",
    "Temperature",
  ]) {
    assert.ok(names.includes(label), `a screen reader says "${label}"`);
  }

  await b.click("#go");
  await untilStep(b, 1);
  await untilText(b, "phase", "Finished");
  await check("done");
});

inChromium("a click on the link saves the zip, and a second tab does not train beside the first", async (b) => {
  await b.goto(url);
  await untilText(b, "go", "Start training");
  await paste(b, "text", TEXT);
  await paste(b, "steps", "400");
  await b.click("#go");
  await untilStep(b, 1);
  const page = await b.page.browser().newPage();
  const second = { evaluate: (fn, ...args) => page.evaluate(fn, ...args), click: (selector) => page.click(selector) };
  await page.goto(url);
  await untilText(second, "go", "Resume");
  await second.click("#go");
  await untilText(second, "page-error", "Another tab of this page is training");
  assert.equal(await textOf(second, "go"), "Resume");
  await page.close();
  await b.page.bringToFront();
  await b.click("#stop");
  await untilText(b, "phase", "Finished");
  const downloads = join(work, "downloads");
  const session = await b.page.createCDPSession();
  await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: downloads });
  await b.click("#download");
  for (let i = 0; i < 100; i++) {
    try {
      if (readFileSync(join(downloads, "adapter.zip")).length > 0) break;
    } catch {
      /* not there yet */
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.deepEqual(readFileSync(join(downloads, "adapter.zip")), await downloaded(b));
});

/** What IndexedDB holds; `change` may alter it first. */
const stored = (b, change = null) =>
  b.evaluate(
    (change) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("keyval-store");
        opening.onerror = reject;
        opening.onsuccess = () => {
          const runs = opening.result.transaction("keyval", "readwrite").objectStore("keyval");
          const found = {};
          for (const key of ["run", "run-before"]) {
            runs.get(key).onsuccess = ({ target }) => {
              const record = target.result;
              if (!record?.checkpoint) return;
              // A safetensors file: the header's length, the header, the tensors' bytes.
              const { buffer, byteOffset } = record.checkpoint;
              const start = 8 + Number(new DataView(buffer, byteOffset).getBigUint64(0, true));
              const header = new TextDecoder().decode(record.checkpoint.subarray(8, start));
              const { __metadata__: metadata, ...tensors } = JSON.parse(header);
              found[key] = { step: JSON.parse(metadata.run).step, digest: metadata.digest };
              if (key === "run-before" || !change) return;
              const place = (name) => start + tensors[name].data_offsets[0];
              const factor = Object.keys(tensors).find((name) => name.startsWith("factors."));
              if (change === "weight") record.checkpoint[place(factor)] ^= 1;
              if (change === "loss") record.checkpoint[place("metrics")] ^= 1;
              if (change === "base") record.checkpoint[header.indexOf("model-") + 8] ^= 1;
              if (change === "nonsense") record.checkpoint = record.checkpoint.slice(0, start);
              runs.put(change === "hole" ? 7 : record, key);
            };
          }
          runs.transaction.oncomplete = () => {
            opening.result.close();
            resolve(found);
          };
        };
      }),
    change,
  );

/** Trains some steps and pauses. */
async function train(b, steps, until_) {
  await paste(b, "text", TEXT);
  await paste(b, "steps", `${steps}`);
  await choose(b, "rank", `${SETTINGS.rank}`);
  await b.click("#go");
  await untilStep(b, until_);
  await b.click("#go");
  await untilText(b, "go", "Resume");
}

inChromium("a damaged run is named, the one before it is offered, and nothing is deleted unasked", async (b) => {
  const errors = [];
  b.page.on("pageerror", (error) => errors.push(error.message));
  await b.goto(url);
  await untilText(b, "go", "Start training");
  await train(b, SETTINGS.steps, 3);
  const whole = await stored(b);
  assert.match(whole.run.digest, /^[0-9a-f]{64}$/);
  assert.ok(whole["run-before"].step <= whole.run.step);

  // The one before has no losses yet.
  for (const change of ["loss", "weight", "nonsense", "hole"]) {
    const {
      run: { digest },
    } = await stored(b, change);
    await b.reload();
    await untilText(
      b,
      "recovery-text",
      "The saved run is damaged: its contents do not have the digest that was saved with them. The one that was " +
        "saved before it, at step ",
    );
    assert.equal(await b.evaluate(() => document.getElementById("go").disabled), true);
    assert.equal(await b.evaluate(() => document.getElementById("text").value), TEXT);
    if (change !== "hole") assert.equal((await stored(b)).run.digest, digest, "it is still there");
    if (change === "weight") await shoot(b, "chromium", "5-damaged");
    await b.click("#recover-before");
    await untilText(b, "go", "Resume");
    assert.equal(await b.evaluate(() => document.getElementById("recovery").hidden), true);
    assert.equal(await stepOf(b), whole["run-before"].step);
    assert.equal((await stored(b)).run.digest, whole["run-before"].digest);
  }
  await b.click("#go");
  await untilText(b, "phase", "Finished");
  assert.deepEqual(await savedLosses(b), expected.losses);
  assert.deepEqual(weightsOf(await downloaded(b)), expected.adapter);

  await stored(b, "base");
  await b.reload();
  await untilText(b, "recovery-text", "damaged");
  await b.click("#recover-delete");
  await untilText(b, "go", "Start training");
  assert.deepEqual(await stored(b), {});
  assert.deepEqual(errors, []);
});

/** The page's worker; the library's threads are of blobs. */
const workerOf = (b) => b.page.workers().findLast((worker) => !worker.url().startsWith("blob:"));

inChromium("a worker that hangs or traps is replaced, and the run goes on to the same bits", async (b) => {
  await b.goto(url);
  await untilText(b, "go", "Start training");
  await train(b, SETTINGS.steps, 3);
  const paused = await stepOf(b);
  const hang = () => {
    void workerOf(b)
      .evaluate(() => {
        for (;;);
      })
      .catch(() => {});
  };
  hang();
  writeFileSync(
    join(work, "hang\u202egpj.zip"),
    zipSync({ "adapter_config.json": strToU8("{}"), "adapter_model.safetensors": strToU8("") }),
  );
  await b.setFiles("#upload", [join(work, "hang\u202egpj.zip")]);
  await untilText(
    b,
    "page-error",
    "The worker had to be started anew: hang\\u202egpj.zip took longer than 15 s to read and was given up.",
  );
  await untilText(b, "page-error", `The run is back at step ${paused}, the last one that was saved.`);
  assert.equal(await textOf(b, "go"), "Resume");
  await b.click("#go");
  await untilStep(b, paused + 2);
  await b.click("#go");
  await untilText(b, "go", "Resume");
  // As a kernel that trapped: every call of the worker fails from now on.
  await workerOf(b).evaluate(() => {
    navigator.locks.request = () =>
      Promise.reject(Object.assign(new Error("kernel sgemmNT trapped (unreachable)"), { name: "EngineError" }));
  });
  const before = await stepOf(b);
  await b.click("#go");
  await untilText(
    b,
    "page-error",
    `The worker had to be started anew: kernel sgemmNT trapped (unreachable). The run is back at step ${before}, ` +
      `the last one that was saved.`,
  );
  await b.click("#go");
  await untilText(b, "phase", "Finished");
  assert.deepEqual(await savedLosses(b), expected.losses);
  assert.deepEqual(weightsOf(await downloaded(b)), expected.adapter);
});

inChromium(
  "a pause that comes before the first step is not forgotten; what is typed while the page loads stays",
  async (b) => {
    await b.page.evaluateOnNewDocument(() =>
      document.addEventListener("DOMContentLoaded", () => {
        const text = document.getElementById("text");
        text.value = "Typed at once.";
        text.dispatchEvent(new Event("input", { bubbles: true }));
      }),
    );
    await b.goto(url);
    await untilText(b, "go", "Start training");
    assert.equal(await b.evaluate(() => document.getElementById("text").value), "Typed at once.");
    await train(b, SETTINGS.steps, 1);
    const paused = await stepOf(b);
    // A lock that takes its time.
    await workerOf(b).evaluate(() => {
      const { locks } = navigator;
      const request = locks.request.bind(locks);
      locks.request = (...args) => new Promise((resolve) => setTimeout(resolve, 1000)).then(() => request(...args));
    });
    await b.click("#go");
    await untilText(b, "go", "Pause");
    await b.click("#go");
    await untilText(b, "go", "Resume");
    assert.equal(await stepOf(b), paused);
  },
);

inChromium("a tab does not save over what another has saved since", async (b) => {
  await b.goto(url);
  await untilText(b, "go", "Start training");
  const page = await b.page.browser().newPage();
  const second = {
    ...b,
    page,
    evaluate: (fn, ...args) => page.evaluate(fn, ...args),
    click: (selector) => page.click(selector),
  };
  await page.goto(url);
  await untilText(second, "go", "Start training");
  await b.page.bringToFront();
  await train(b, SETTINGS.steps, 2);
  const saved = await stored(b);
  // The second tab was opened before that run began, and knows nothing of it.
  await page.bringToFront();
  await paste(second, "text", TEXT);
  await second.click("#go");
  await untilText(
    second,
    "page-error",
    "Another tab of this page has saved a run since this one last looked. It was not overwritten",
  );
  assert.equal(await textOf(second, "go"), "Start training");
  assert.deepEqual(await stored(b), saved);
  await page.reload();
  await untilText(second, "go", "Resume");
  await second.click("#go");
  await untilText(second, "phase", "Finished");
  // Now the first is the one that is behind.
  await b.page.bringToFront();
  await b.click("#go");
  await untilText(b, "page-error", "Another tab of this page has saved a run since");
  assert.deepEqual(await savedLosses(b), expected.losses);
});

inChromium("on a server that sends no policy the page has its own, and works in any folder", async (b, after) => {
  const types = {
    html: "text/html",
    js: "text/javascript",
    css: "text/css",
    json: "application/json",
    wasm: "application/wasm",
  };
  const plain = createServer((request, response) => {
    const path = request.url.replace(/^\/some\/folder\//, "").replace(/\?.*/, "") || "index.html";
    const file = join(root, "dist", path);
    if (!request.url.startsWith("/some/folder/") || !existsSync(file)) return response.writeHead(404).end();
    response
      .writeHead(200, { "content-type": types[path.split(".").at(-1)] ?? "application/octet-stream" })
      .end(readFileSync(file));
  });
  await new Promise((resolve) => plain.listen(0, "127.0.0.1", resolve));
  after(() => plain.close());
  const failed = [];
  b.page.on("requestfailed", (request) => failed.push(request.url()));
  b.page.on("response", (response) => {
    if (response.status() >= 400) failed.push(response.url());
  });
  await b.goto(`http://127.0.0.1:${plain.address().port}/some/folder/`);
  await untilText(b, "go", "Start training");
  assert.deepEqual(failed, []);
  const refused = await b.evaluate(async () => {
    const broken = [];
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective }) => broken.push(effectiveDirective));
    const script = document.createElement("script");
    script.textContent = "globalThis.ran = true";
    document.body.append(script);
    await fetch("https://example.com/").catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 100));
    return { broken: broken.sort(), ran: globalThis.ran ?? false };
  });
  assert.deepEqual(refused, { broken: ["connect-src", "script-src-elem"], ran: false });
  assert.equal(await threadsOf(b), 1);
  assert.match(await b.evaluate(() => document.querySelector("footer a").href), /^https:\/\/github\.com\//);
  await train(b, 10, 1);
});

inChromium("a model from the hub is trained, kept and found again; so is one in a folder", async (b, after) => {
  // Another model than the page's own: what its text and its losses tell.
  const models = join(work, "models/tiny");
  cpSync(fileURLToPath(new URL("../../models/base", `file://${root}`)), models, { recursive: true });
  const { tensors } = wasmLora.io.parseSafetensors(readFileSync(join(models, "model.safetensors")));
  const changed = [...tensors.values()].map(({ name, dtype, shape, bytes }) => ({
    ...{ name, dtype, shape },
    data: name === "model.norm.weight" ? bytes.map((byte, i) => (i % 2 ? byte : 0)) : bytes,
  }));
  writeFileSync(join(models, "model.safetensors"), wasmLora.io.serializeSafetensors(changed, { format: "pt" }));
  const settings = { rank: 2, steps: 12, prompt: PROMPT, evalEvery: 2, model: models };
  const { losses } = finetune(join(work, "text.txt"), join(work, "tiny"), settings);
  assert.notDeepEqual(losses, expected.losses.slice(0, losses.length));

  const hub = await HubServer.start({ together: true });
  after(() => hub.stop());
  const files = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
  hub.publish("org/tiny", Object.fromEntries(files.map((file) => [file, readFileSync(join(models, file))])));
  // The build says which hub, and its policy lets the page reach no other.
  process.env.HF_ENDPOINT = hub.endpoint;
  const outDir = join(work, "other-hub");
  await build({ root, logLevel: "error", build: { outDir } });
  const server = await preview({ root, build: { outDir }, preview: { port: 0, host: "localhost" }, logLevel: "error" });
  delete process.env.HF_ENDPOINT;
  after(() => server.close());

  const trained = async () => {
    await paste(b, "text", TEXT);
    await paste(b, "steps", `${settings.steps}`);
    await choose(b, "rank", `${settings.rank}`);
    await b.click("#go");
    await untilText(b, "phase", "Finished");
    assert.deepEqual(await savedLosses(b), losses);
  };
  const load = async (name) => {
    await paste(b, "hub-name", name);
    await b.click("#load-model");
  };
  await b.goto(server.resolvedUrls.local[0]);
  await untilText(b, "go", "Start training");
  assert.match(await textOf(b, "rank-hint"), /77,824 weights/);
  await load("nonsense");
  await untilText(b, "model-error", "Enter the name of a model on the hub");
  assert.equal(await focused(b), "hub-name");
  await load("org/none");
  await untilText(b, "model-error", "there is no such model");
  await load("org/tiny");
  await untilText(b, "model-name", "org/tiny");
  await untilText(b, "go", "Start training");
  assert.equal(await textOf(b, "model-error"), "");
  await trained();
  const config = configOf(await downloaded(b));
  assert.equal(config.base_model_name_or_path, "org/tiny");

  const weights = () => hub.asked.filter(({ url }) => /storage|safetensors/.test(url)).length;
  const before = weights();
  assert.ok(before > 0);
  await b.reload();
  await untilText(b, "phase", "Finished");
  assert.match(await textOf(b, "model-name"), /^org\/tiny@[0-9a-f]{40}$/);
  assert.equal(weights(), before, "nothing was downloaded again");

  await b.click("#use-embedded");
  await untilText(b, "model-name", "the small model of this page");
  await b.setFiles("#folder", [models]);
  await untilText(b, "model-name", "tiny");
  await untilText(b, "go", "Train anew");
  await trained();
  await b.reload();
  await untilText(b, "recovery-text", "was made with the model in your folder tiny. Open that folder again");
  await b.setFiles("#folder", [models]);
  await untilText(b, "phase", "Finished");
  assert.equal(await b.evaluate(() => document.getElementById("recovery").hidden), true);
  mkdirSync(join(work, "empty"));
  writeFileSync(join(work, "empty/notes.txt"), "nothing");
  await b.setFiles("#folder", [join(work, "empty")]);
  await untilText(b, "model-error", "config.json");
});

inChromium("a page that lacks its model says so", async (b, after) => {
  cpSync(join(root, "dist"), join(work, "broken/dist"), { recursive: true });
  for (const file of readdirSync(join(work, "broken/dist/assets")))
    if (file.endsWith(".safetensors")) rmSync(join(work, "broken/dist/assets", file));
  const broken = await preview({
    root: join(work, "broken"),
    appType: "mpa",
    preview: { port: 0, host: "localhost" },
    logLevel: "error",
  });
  after(() => broken.close());
  await b.goto(broken.resolvedUrls.local[0]);
  await untilText(
    b,
    "page-error",
    "The model could not be loaded (the server answered 404). Check the connection and reload the page.",
  );
});

inChromium("where nothing can be kept the page says so, and trains all the same", async (b) => {
  await b.goto(url);
  await untilText(b, "go", "Start training");
  const session = await b.page.createCDPSession();
  await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(url).origin, quotaSize: 1 });
  await paste(b, "text", TEXT);
  await paste(b, "steps", "10");
  await b.click("#go");
  await untilText(b, "page-error", "a reload would lose the run");
  await untilText(b, "phase", "Finished");
  assert.equal(weightsOf(await downloaded(b)).length > 300000, true);
});

test.run();

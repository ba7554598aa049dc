/** What the command line shows and takes, without a run: numbers, times, words for a shell, curves. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { suite, test } from "uvu";
import { formatTime, oneLine, perplexity, perplexityChange, quote } from "../../src/cli/format.js";
import { lossCurveSvg, lossCurveText } from "../../src/cli/plot.js";
import { parseNumber } from "../../src/cli/option_values.js";
import { checkSettings, FINETUNE_DEFAULTS, parseTargetModules, SETTINGS, settingsOf } from "../../src/cli/settings.js";
import { reportHtml } from "../../src/cli/report.js";
import { programName, shellWord } from "../../src/cli/shell.js";
import { init } from "../../src/index.js";

await init();

test("times: no unit reaches the next one's size", () => {
  const expected: [number, string][] = [
    [0, "0s"],
    [0.2, "1s"],
    [9.5, "10s"],
    [12.4, "10s"],
    [57.4, "55s"],
    [57.6, "1m00s"],
    [60, "1m00s"],
    [119, "2m00s"],
    [239, "4m00s"],
    [3597, "59m55s"],
    [3598, "1h00m"],
    [7164, "1h59m"],
    [7170, "2h00m"],
    [360_000, "100h00m"],
  ];
  for (const [seconds, text] of expected) assert.equal(formatTime(seconds), text, `${seconds}`);
  for (let t = 0; t < 8000; t += 0.7) assert.doesNotMatch(formatTime(t), /60[sm]/);
  // cli-progress has words where it knows nothing.
  for (const unknown of [NaN, Infinity, "NULL", "INF"]) assert.equal(formatTime(unknown as number), "?");
});

test("perplexities: exp(loss), also where no double holds it", () => {
  // 10^x by hand: 709.782712893384 / ln 10 = 308.2547..., and 1000 / ln 10 = 434.294481903... (10^0.294481903 =
  // 1.9700...).
  for (const [loss, text] of [
    [0, "1.00"],
    [4.4289, "83.84"],
    [3.5616, "35.22"],
    [1000, "2.0e+434"],
    [709.782712893384, "1.8e+308"],
    [1e30, "above 1.0e+1000000"],
  ] as const) {
    assert.equal(perplexity(loss), text);
  }
  for (let loss = 20; loss < 3000; loss += 0.37) assert.match(perplexity(loss), /^[1-9]\.\de\+\d+$/);
});

test("the change of a perplexity comes from the losses", () => {
  assert.equal(perplexityChange(4.428895, 3.561614), "down 58.0 %");
  assert.equal(perplexityChange(3, 3), "down 0.0 %");
  assert.equal(perplexityChange(3, 3 + Math.log(1.5)), "up 50.0 %");
  assert.equal(perplexityChange(896.136, 891.398), "down 99.1 %");
  assert.equal(perplexityChange(3, 1003), "up, 2.0e+434 times as high");
  assert.equal(perplexityChange(1e38, 0), "down 100.0 %");
});

test("texts from files: one line, nothing that a terminal obeys, no more than asked for", () => {
  assert.equal(oneLine("a\u001b[2J\nb\tc\u202e"), "a\\u001b[2J\\nb\\tc\\u202e");
  assert.equal(oneLine("x".repeat(300), 10), `${"x".repeat(10)}...`);
  assert.equal(quote(" The\r\n whale \u0007"), '"The whale \\u0007"');
});

test("a word for the shell is that word again, and nothing in it runs", () => {
  const words = [
    "plain-1.2/x_y",
    "",
    "two words",
    "$(touch pwned) costs $5",
    "it's `id`",
    'a "b" \\ !c',
    "-n",
    "*?[a]{b,c}~",
    "é \u{1f40b}",
    ";&|<>#",
    "line one\nline two\ttab",
    "\u001b]0;title\u0007 isn't \\x",
  ];
  for (const word of words) {
    // The word arrives through bash as an argument; control characters beyond ASCII's are beyond this.
    assert.equal(
      execFileSync("bash", ["-c", `printf '%s|' ${shellWord(word)}`], {
        encoding: "utf8",
        env: { ...process.env, LC_ALL: "C.UTF-8" },
      }),
      `${word}|`,
    );
    assert.doesNotMatch(shellWord(word), /[\u0000-\u001f]/);
  }
});

test("the program is called as it was started", () => {
  assert.equal(programName("/usr/local/bin/wasm-lora", "/usr/bin:/usr/local/bin", "/home/me", false), "wasm-lora");
  assert.equal(
    programName("/p/node_modules/.bin/wasm-lora", "/p/node_modules/.bin:/usr/bin", "/p", false),
    "npx wasm-lora",
  );
  assert.equal(programName("/cache/_npx/1/node_modules/.bin/wasm-lora", "/usr/bin", "/p", true), "npx wasm-lora");
  assert.equal(programName("/elsewhere/it's/main.js", "/usr/bin", "/p", false), "node '/elsewhere/it'\\''s/main.js'");
});

test("numbers: decimals only, and none that turns into 0 or Infinity on the way", () => {
  for (const [text, n] of [
    ["1", 1],
    ["1e-3", 1e-3],
    [" 5. ", 5],
    [".5", 0.5],
    ["0", 0],
    ["0.0e5", 0],
    ["-2", -2],
    ["1e21", 1e21],
  ] as const)
    assert.equal(parseNumber(text), n);
  for (const text of [
    "",
    " ",
    "0x10",
    "0b1",
    "1_000",
    "1e-400",
    "0.0000001e-320",
    "Infinity",
    "NaN",
    "1,5",
    "1e",
    "--1",
    "١",
  ])
    assert.ok(Number.isNaN(parseNumber(text)), text);
  assert.equal(SETTINGS.lr.holds(parseNumber("1e400")), false);
  assert.equal(SETTINGS.steps.holds(parseNumber("1e21")), false);
});

test("target modules: PEFT's word, a pattern, names", () => {
  assert.equal(parseTargetModules(" All-Linear "), "all-linear");
  assert.equal(parseTargetModules(".*_proj"), ".*_proj");
  assert.equal(parseTargetModules("(q|v)_proj{1,2}"), "(q|v)_proj{1,2}");
  assert.deepEqual(parseTargetModules("q_proj, layers.0.mlp.up_proj,"), ["q_proj", "layers.0.mlp.up_proj"]);
  assert.equal(SETTINGS.targetModules.holds(parseTargetModules(" , ")), false);
});

test("settings: every one must be there and in its range, and there is no other", () => {
  const given = { ...FINETUNE_DEFAULTS, model: "m", data: "d" };
  const good = settingsOf(given, "text", new Set());
  const rows = settingsOf({ ...given, epochs: 2.5, lossOn: "last", date: "2024-07-26" }, "rows", new Set());
  const judge = (settings: unknown): void => {
    checkSettings(settings, (message) => {
      throw new Error(message);
    });
  };
  judge(good);
  judge({ ...good, targetModules: ["q_proj"] });
  judge(rows);
  for (const [key, value] of [
    ["format", "novel"],
    ["feature", { prompt: 5 }],
    ["lossOn", "some"],
    ["maxLength", 0],
    ["date", "yesterday"],
    ["epochs", 0],
    ["packing", 1],
    ["evalData", ""],
    ["templateArg", []],
  ] as const)
    assert.throws(() => judge({ ...rows, [key]: value }), new RegExp(`setting ${key} is `), key);
  for (const [key, value] of [
    ["r", 0],
    ["r", "8"],
    ["alpha", -1],
    ["dropout", 1],
    ["dropout", null],
    ["steps", 1.5],
    ["steps", 1e300],
    ["batch", [8]],
    ["seq", 1],
    ["lr", NaN],
    ["seed", -1],
    ["prompt", 5],
    ["checkpointEvery", 0],
    ["model", ""],
    ["data", "a\0b"],
    ["targetModules", []],
    ["targetModules", [1]],
    ["targetModules", {}],
  ] as const) {
    assert.throws(() => judge({ ...good, [key]: value }), new RegExp(`setting ${key} is `), `${key} = ${value}`);
  }
  assert.throws(() => judge({ ...good, extra: 1 }), /no setting "extra"/);
  const { lr: _, ...without } = good;
  assert.throws(() => judge(without), /setting lr is undefined/);
  for (const none of [null, [], "x", undefined]) assert.throws(() => judge(none), /expected an object/);
});

const lossCurve = suite("the loss curve");

const labels = { title: "a < b & \u0001 c", heldOutBefore: 3, heldOutAfter: 2.5 };
const numbersIn = (svg: string): string[] => [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map((m) => m[1]!);

lossCurve("of one step shows that step's loss", () => {
  assert.match(lossCurveText([3.7]), /^ {3}3\.700 /);
  assert.match(lossCurveText([3.7, 3.7, 3.7]), /^ {3}3\.700 [^\n]+$/);
  const svg = lossCurveSvg([3.7], labels);
  assert.doesNotMatch(svg, /NaN|Infinity|undefined/);
  // Steps are whole.
  assert.ok(!numbersIn(svg).includes("1.5"));
});

lossCurve("of anything: no error, no time, no NaN in it", () => {
  const values: number[][] = [
    [],
    [NaN, NaN],
    [Infinity],
    [3, Infinity, 2, 1],
    [NaN, 2, NaN, 1],
    [1e38, 1],
    [-1e308, 1e308],
    [5, 5 + 1e-15],
    [0, 1e-300],
    Array.from({ length: 200_000 }, (_, i) => 3 + Math.sin(i)),
  ];
  for (const losses of values) {
    const before = process.cpuUsage();
    assert.ok(lossCurveText(losses).length > 0);
    for (const held of [2, NaN, Infinity])
      assert.doesNotMatch(
        lossCurveSvg(losses, { ...labels, heldOutAfter: held }),
        /NaN|Infinity|undefined|[\u0000-\u0008]/,
      );
    assert.ok(process.cpuUsage(before).user < 5e6, "microseconds of this process");
  }
});

lossCurve("of a long run keeps its first and last step, and its scale", () => {
  const losses = Array.from({ length: 10_000 }, (_, i) => 10 - i / 1000);
  const text = lossCurveText(losses);
  const shown = [...text.matchAll(/^ *(-?\d+\.\d{3}) /gm)].map((m) => Number(m[1]));
  // The running mean over 400 steps: the first is the loss itself, the last the mean of the last 400.
  assert.equal(shown[0], 10);
  assert.ok(Math.abs(shown.at(-1)! - (10 - 9.7995)) < 1e-3, `${shown.at(-1)}`);
});
lossCurve.run();

test("a report of anything: every tag closes, nothing that is no number, nothing from elsewhere", () => {
  const metrics = (
    losses: readonly number[],
  ): { loss: number; gradNorm: number; learningRate: number; epoch: number }[] =>
    losses.map((loss, i) => ({ loss, gradNorm: loss, learningRate: 1e-5, epoch: (i + 1) / 3 }));
  const report = {
    model: "models/a & b",
    data: "x/<i>rows</i>.jsonl",
    weights: { trained: 1, all: 10 },
    steps: 9,
    stoppedEarly: false,
    maxGradNorm: 1,
    best: null,
    evaluations: [],
    samples: [{ prompt: [{ role: "user", text: '"<u>\u202e' }], before: "", after: "a\n\nb", reference: null }],
    counts: [["Rows", "3"]] as const,
    settings: [["lr", "auto: 0.005"]] as const,
  };
  const pages = [[], [3], [3, 2, 1], [NaN, 2], [1e308, -1e308], Array.from({ length: 100_000 }, (_, i) => i % 7)].map(
    (losses) => reportHtml({ ...report, metrics: metrics(losses) }),
  );
  const evaluations = [0, 2, 4].map((step) => ({ step, loss: 3 - step / 8 }));
  pages.push(reportHtml({ ...report, metrics: metrics([3, 2, 1, 1]), evaluations, best: evaluations[2]! }));
  for (const page of pages) {
    assert.doesNotMatch(page, /NaN|Infinity|undefined|<i>rows|<u>|\u202e|https?:|<script/);
    const open: string[] = [];
    for (const [, close, tag, empty] of page
      .replace(/<!doctype html>|<style>[^]*?<\/style>/g, "")
      .matchAll(/<(\/?)([\w:]+)(?:\s[^<>]*?)?(\/?)>/g)) {
      if (close) assert.equal(open.pop(), tag);
      else if (!empty && tag !== "meta") open.push(tag!);
    }
    assert.deepEqual(open, []);
  }
  // A curve of any length is drawn by so many points that a page stays small.
  assert.ok(pages[5]!.length < 250_000, `${pages[5]!.length}`);
  const last = pages.at(-1)!;
  assert.ok(last.includes("best, after step 4: 2.500") && last.includes("3.000 → 2.500"), last);
  assert.match(last, /<circle class="best-dot"/);
  assert.match(last, /<p dir="auto"><em>nothing<\/em>/);
});

test.run();

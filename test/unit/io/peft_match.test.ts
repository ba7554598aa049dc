/**
 * src/io/peft/match.ts, names.ts and pattern_values.ts. The cases of targets() are those of PEFT's own tests
 * (tests/test_tuners_utils.py, REGEX_TEST_CASES and the tests of exclude_modules), those of patternValue() the example
 * of its guide (docs/source/developer_guides/lora.md, "Fine grained control over ranks and alpha (scaling)").
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import type { LoraConfig } from "../../../src/io/peft/config.js";
import { ArgumentError } from "../../../src/runtime/errors.js";
import { patternValue, scalingOf, targets, type Rules } from "../../support/peft_rules.js";

type Case = [
  path: string,
  targetModules: string[] | string,
  layersToTransform: number[] | null,
  layersPattern: string[] | string | null,
  expected: boolean,
];
const Q = "transformer.h.1.attn.attention.q_proj";
const CASES: Case[] = [
  ["", [], null, null, false],
  ["", ["foo"], null, null, false],
  ["foo", [], null, null, false],
  ["foo", ["foo"], null, null, true],
  ["foo", ["bar"], null, null, false],
  ["foo", ["foo", "bar"], null, null, true],
  // patterns
  ["foo", "foo", null, null, true],
  ["foo", ".*oo", null, null, true],
  ["foo", "fo.*", null, null, true],
  ["foo", ".*bar.*", null, null, false],
  ["foobar", ".*oba.*", null, null, true],
  // layers
  ["foo.bar.1.baz", ["baz"], [1], ["bar"], true],
  ["foo.bar.1.baz", ["baz"], [0], ["bar"], false],
  ["foo.bar.1.baz", ["baz"], [2], ["bar"], false],
  ["foo.bar.10.baz", ["baz"], [0], ["bar"], false],
  ["foo.bar.10.baz", ["baz"], [1], ["bar"], false],
  ["foo.bar.1.baz", ["baz"], [0, 1, 2], ["bar"], true],
  ["foo.bar.1.baz", ["baz", "spam"], [1], ["bar"], true],
  ["foo.bar.1.baz", ["baz", "spam"], [0, 1, 2], ["bar"], true],
  // no layers
  ["foo.bar.7.baz", ["baz"], [], ["bar"], true],
  ["foo.bar.7.baz", ["baz"], null, ["bar"], true],
  // no pattern for the layer
  ["foo.whatever.1.baz", ["baz"], [1], [], true],
  ["foo.whatever.1.baz", ["baz"], [0], [], false],
  ["foo.whatever.1.baz", ["baz"], [1], "", true],
  ["foo.whatever.1.baz", ["baz"], [0], "", false],
  ["foo.whatever.1.baz", ["baz"], [1], null, true],
  ["foo.whatever.1.baz", ["baz"], [0], null, false],
  // transformers
  [`${Q}.foo`, ["q_proj"], null, [], false],
  [Q, [], null, [], false],
  [Q, ["q_proj"], null, [], true],
  [Q, ["q_proj", "v_proj"], null, [], true],
  ["transformer.h.1.attn.attention.resid_dropout", ["q_proj", "v_proj"], null, [], false],
  [Q, ["q_proj"], [1], ["h"], true],
  [Q, ["q_proj"], [0], ["h"], false],
  [Q, ["q_proj"], [2], ["h"], false],
  [Q, ["q_proj"], [0, 1, 2], ["h"], true],
  [Q, ["q_proj", "v_proj"], [0, 1, 2], ["h"], true],
  ["foo.bar.q_proj", ["q_proj"], null, [], true],
  ["foo.bar.1.baz", ["baz"], [1], ["foo"], false],
  // corners
  ["foo.bar.1.baz", ["baz"], [1], ["baz"], false],
  ["bar.1.baz", ["baz"], [1], ["bar"], false],
  ["foo.bar.001.baz", ["baz"], [1], ["bar"], true],
  ["foo.bar.1.spam.2.baz", ["baz"], [1], ["bar"], true],
  ["foo.bar.2.spam.1.baz", ["baz"], [1], ["bar"], false],
  ["blocks.1.weight", ["weight"], [1], ["blocks"], false],
  ["blocks.1.bias", ["weight"], [1], ["blocks"], false],
  ["mlp.blocks.1.weight", ["weight"], [1], ["blocks"], true],
  ["mlp.blocks.1.bias", ["weight"], [1], ["blocks"], false],
];

test("PEFT's own cases of target_modules, layers_to_transform and layers_pattern", () => {
  for (const [path, targetModules, layersToTransform, layersPattern, expected] of CASES) {
    assert.equal(
      targets({ targetModules, layersToTransform, layersPattern }, path, true, false),
      expected,
      JSON.stringify([path, targetModules, layersToTransform, layersPattern]),
    );
  }
});

test("one index, one pattern for the layer; the first number of a path is the layer's", () => {
  const config: Rules = { targetModules: ["q"], layersToTransform: 1 };
  assert.equal(targets(config, "model.layers.1.experts.0.q", true, false), true);
  assert.equal(targets(config, "model.layers.0.experts.1.q", true, false), false);
  assert.equal(targets({ ...config, layersPattern: "experts" }, "model.layers.0.experts.1.q", true, false), true);
  assert.equal(targets({ ...config, layersPattern: ["h|layers", "x"] }, "model.layers.1.q", true, false), true);
  assert.equal(targets(config, "model.q", true, false), false, "a path without a number is in no layer");
});

test("a whole path in the list is adapted whatever its layer", () => {
  assert.equal(targets({ targetModules: ["m.h.3.q"], layersToTransform: [0] }, "m.h.3.q", true, false), true);
});

test("exclude_modules counts before target_modules", () => {
  const config: Rules = { targetModules: ["q_proj"] };
  assert.equal(
    targets({ ...config, excludeModules: ["model.layers.1.q_proj"] }, "model.layers.1.q_proj", true, false),
    false,
  );
  assert.equal(targets({ ...config, excludeModules: ["1.q_proj"] }, "model.layers.1.q_proj", true, false), false);
  assert.equal(targets({ ...config, excludeModules: ["1.q_proj"] }, "model.layers.11.q_proj", true, false), true);
  assert.equal(targets({ ...config, excludeModules: ".*\\.1\\..*" }, "model.layers.1.q_proj", true, false), false);
  assert.equal(targets({ ...config, excludeModules: ".*\\.1" }, "model.layers.1.q_proj", true, false), true);
  assert.equal(targets({ ...config, excludeModules: "" }, "model.layers.1.q_proj", true, false), true);
  assert.equal(
    targets({ ...config, targetModules: "all-linear", excludeModules: ["q_proj"] }, "q_proj", true, false),
    false,
  );
});

test("modules_to_save and what is in them are never adapted", () => {
  const config: Rules = { targetModules: "all-linear", modulesToSave: ["score"] };
  for (const [path, expected] of [
    ["score", false],
    ["a.score", false],
    ["a.score.dense", false],
    ["scores", true],
    ["prescore", true],
  ] as const) {
    assert.equal(targets(config, path, true, false), expected, path);
  }
});

test("all-linear: every linear layer but the output layer, in any letter case", () => {
  for (const targetModules of ["all-linear", "ALL-Linear"]) {
    const config: Rules = { targetModules };
    assert.equal(targets(config, "model.layers.0.mlp.up_proj", true, false), true);
    assert.equal(targets(config, "lm_head", true, true), false);
    assert.equal(targets(config, "model.embed_tokens", false, false), false);
  }
});

const MODULES = ["foo", "module.foo", "module.foobar", "module.module.foo", "module.module.barfoo"];
const RANKS: [Record<string, number>, number[]][] = [
  [{ foo: 42 }, [42, 42, 8, 42, 8]],
  [{ "^foo": 42 }, [42, 8, 8, 8, 8]],
  [{ "^module.foo": 42 }, [8, 42, 8, 8, 8]],
  [{ "module.foo": 42 }, [8, 42, 8, 42, 8]],
  [{ "^foo": 42, "^module.module.foo": 55 }, [42, 8, 8, 55, 8]],
];
test("the guide's examples of rank_pattern", () => {
  for (const [pattern, ranks] of RANKS)
    assert.deepEqual(
      MODULES.map((path) => patternValue(pattern, path, 8)),
      ranks,
      JSON.stringify(pattern),
    );
});

test("the first matching key counts, whatever matches better", () => {
  assert.equal(patternValue({ ".*q": 1, "^a.q": 2 }, "a.q", 8), 1);
  assert.equal(patternValue({ "^a.q": 2, ".*q": 1 }, "a.q", 8), 2);
  assert.equal(patternValue({ "(k|v)_proj": 3 }, "layers.0.v_proj", 8), 3);
});

test("the scaling is alpha / r, or alpha / sqrt(r), of the module", () => {
  const config = {
    r: 8,
    loraAlpha: 16,
    rankPattern: { q: 4 },
    alphaPattern: { v: 24 },
    useRslora: false,
  } satisfies Partial<LoraConfig>;
  assert.deepEqual(
    ["k", "q", "v"].map((path) => scalingOf(config, path)),
    [2, 4, 3],
  );
  assert.equal(scalingOf({ ...config, useRslora: true }, "q"), 8);
});

test("a pattern that JavaScript cannot express is an ArgumentError", () => {
  assert.throws(() => targets({ targetModules: "(?i)q" }, "q", true, false), ArgumentError);
  assert.throws(() => patternValue({ "a)|(b": 1 }, "a", 8), ArgumentError);
});

test("more patterns for the names of layers than can be tried are refused", () => {
  const layersPattern = Array.from({ length: 1001 }, (_, i) => `l${i}`);
  assert.throws(
    () => targets({ targetModules: ["q"], layersToTransform: [1], layersPattern }, "m.l.1.q", true, false),
    (e: Error) => e instanceof ArgumentError && /1001 patterns.*at most 1000/.test(e.message),
  );
});

test("a plain key of a megabyte, or 100,000 of them, are read at once", () => {
  assert.equal(patternValue({ ["a.".repeat(500_000)]: 1, q: 2 }, "m.q", -1), 2);
  assert.equal(patternValue({ a_b: 1, "a.b": 2, "^a": 3 }, "m.a.b", -1), 2);
  assert.equal(
    patternValue(Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`m${i}`, i])), "x.m99999", -1),
    99_999,
  );
});

test("the number of a layer is that which backtracking would find first", () => {
  const layer = (layersPattern: string, path: string): number[] =>
    [0, 1, 2, 3, 7].filter((index) =>
      targets({ targetModules: ["q"], layersToTransform: [index], layersPattern }, path, true, false),
    );
  assert.deepEqual(layer("layers.*", "m.layers.0.mlp.3.q"), [3]);
  assert.deepEqual(layer("layers.*?", "m.layers.0.mlp.3.q"), [0]);
  assert.deepEqual(layer(".*", "m.layers.0.experts.3.q"), [3]);
  assert.deepEqual(layer("(layers|mlp)", "m.mlp.1.layers.2.q"), [1]);
  assert.deepEqual(layer("h.0.mlp|h", "m.h.0.mlp.3.q"), [3]);
  assert.deepEqual(layer("h|h.0.mlp", "m.h.0.mlp.3.q"), [0]);
  assert.deepEqual(layer("h", `m.h.${"0".repeat(30)}7.q`), [7]);
  assert.deepEqual(layer("h", `m.h.${"9".repeat(400)}.q`), []);
});

test("keys that are names, names with open dots, whole paths and patterns keep their order", () => {
  const keys = {
    "a.q": 1,
    "(q|k)": 2,
    q: 3,
    "^b.q": 4,
    "b\\.q": 5,
    "x.v": 6,
    "^v$": 7,
    v: 8,
    "\\.v": 9,
    "a.\\.o": 10,
    o$: 11,
  };
  for (const [path, expected] of [
    ["a.q", 1],
    ["m.a.q", 1],
    ["m.aXq", 1],
    ["aX.q", 2],
    ["aXr", 99],
    ["b.q", 2],
    ["q", 2],
    ["m.q", 2],
    ["x.v", 6],
    ["m.xyv", 6],
    ["v", 7],
    ["m.v", 8],
    ["ab.o", 10],
    ["m.o", 11],
    ["mo", 99],
  ] as const)
    assert.equal(patternValue(keys, path, 99), expected, path);
});

test("many names and long ones are looked up, not tried one after another", () => {
  const many = Array.from({ length: 16_000 }, (_, i) => `m${i}`);
  const path = `${"a.".repeat(16_000)}m15999.q`;
  assert.equal(targets({ targetModules: many.map((name) => `${name}.q`) }, path, true, false), true);
  assert.equal(targets({ targetModules: "all-linear", excludeModules: many }, path, true, false), true);
  assert.equal(targets({ targetModules: "all-linear", modulesToSave: many }, path, true, false), false);
  assert.equal(
    targets(
      { targetModules: ["q"], layersToTransform: Array.from({ length: 200_000 }, (_, i) => i) },
      "m.h.199999.q",
      true,
      false,
    ),
    true,
  );
  assert.equal(patternValue(Object.fromEntries(many.map((name, i) => [`${name}.q`, i])), path, -1), 15999);
  assert.equal(patternValue({ ["x.".repeat(100_000)]: 1, q: 2 }, path, -1), 2);
  assert.throws(
    () => patternValue({ ["x+".repeat(100_000)]: 1, q: 2 }, path, -1),
    (e: Error) => e instanceof ArgumentError && e.message.includes("200000 signs long"),
  );
  const config = {
    r: 8,
    loraAlpha: 8,
    alphaPattern: {},
    useRslora: false,
    rankPattern: Object.fromEntries(many.map((_, i) => [`(?:a?){${900 + (i % 90)}}${i}`, 1])),
  };
  assert.throws(
    () => scalingOf(config, "q"),
    (e: Error) => e instanceof ArgumentError && e.message.includes("200000 steps long together"),
  );
});

test.run();

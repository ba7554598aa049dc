/**
 * src/io/peft/regexp/. What each pattern matches was taken from CPython 3: bool(re.fullmatch(pattern, text)).
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError } from "../../../src/runtime/errors.js";
import { matcher } from "../../support/peft_rules.js";

const CASES: [pattern: string, matched: string[], others: string[]][] = [
  ["foo", ["foo"], ["foobar", "barfoo", ""]],
  [".*oo", ["foo", "oo"], ["foot"]],
  [".*\\.(q|v)_proj", ["model.layers.0.self_attn.q_proj", "a.v_proj"], ["q_proj", "a.k_proj", "axq_proj"]],
  [
    ".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$",
    ["decoder.block.0.SelfAttention.q"],
    ["decoder.block.0.DenseReluDense.wi"],
  ],
  ["a|ab", ["a", "ab"], ["b"]],
  [
    "model\\.layers\\.([0-9]|1[0-5])\\..*proj",
    ["model.layers.3.q_proj", "model.layers.15.q_proj"],
    ["model.layers.16.q_proj"],
  ],
  ["h\\.\\d+\\.c_attn", ["h.0.c_attn", "h.12.c_attn"], ["h.x.c_attn"]],
  ["(?!.*lm_head).*proj", ["q_proj"], ["lm_head.proj"]],
  [".*(?<!lm_)head", ["head", "a.head"], ["lm_head"]],
  ["(?<=x)a|xa", ["xa"], ["a"]],
  ["(?:ab){2,3}?", ["abab", "ababab"], ["ab"]],
  ["a\\-b\\_c\\/d\\ e", ["a-b_c/d e"], ["a-b"]],
  ["[]a]+", ["]a]", "a"], ["b"]],
  ["[^]a]+", ["bc"], ["]", "a"]],
  ["[a\\-z]+", ["a-z"], ["b"]],
  ["[[.]+", ["[."], ["x"]],
  ["[\\d.]+\\w\\W\\s\\S", ["1.a- x"], ["1.a-xx"]],
  ["a.c", ["abc", "a\u2028c", "a\rc"], ["a\nc"]],
  ["^a\\b.*$", ["a", "a.b"], ["ab"]],
  ["\\$\\^\\(\\)\\{\\}\\|\\+\\*\\?\\\\", ["$^(){}|+*?\\"], [""]],
  ["\\n\\t\\r\\f\\v", ["\n\t\r\f\u000b"], ["nt"]],
  ["é+\\.😀.", ["éé.😀x", "é.😀😀"], ["é.😀"]],
  ["\\😀?", ["😀", ""], []],
  ["", [""], ["a"]],
  ["a$", ["a"], ["a\n"]],
  ["a$\\n", ["a\n"], ["a"]],
  ["(?:a$|b)+\\s?", ["a\n", "ba", "b\n"], ["ab"]],
  ["\\B", [], [""]],
  ["(?:\\Ba|\\bb)*", ["", "b", "ba", "baa"], ["a", "ab"]],
  ["\\b\\w+\\b(?:-\\b\\w+)*", ["a", "a-b1"], ["a-", "-a"]],
  ["[^\\W\\d]+", ["ab_"], ["a1", "a.b"]],
  ["[\\d\\-x]+", ["1-x"], ["1+x"]],
  ["[-a]+[a-]+[a\\]]", ["-a]", "a-a"], ["-b]"]],
  ["[\\b\\n]+", ["\b\n"], ["b"]],
  ["(a|b(c|d)*)?e{2,}", ["ee", "aee", "bcdceee"], ["e", "abee"]],
  ["(?:a?){3}a{3}", ["aaa", "aaaaaa"], ["aa", "aaaaaaa"]],
  ["(a*)*(a+)+", ["a", "aaaa"], ["", "ab"]],
  ["(?:(?=a)\\w|(?!a)\\d)*", ["a", "a1b".slice(0, 2), "1a"], ["b", "a1b"]],
  ["(?=(?!.*x).*y$).*", ["ay", "y"], ["xy", "yx", "a"]],
  ["(?<=(?<!b)a)?c|.c", ["c", "ac"], ["bac"]],
  [".*(?<=a\\.[xy])(?<!b\\.a\\..)", ["a.x", "c.a.y"], ["b.a.x", "a.z"]],
  ["(x){0}y(?:){9}", ["y"], ["xy"]],
];

for (const [pattern, matched, others] of CASES) {
  test(`${pattern} as in Python`, () => {
    const matches = matcher(pattern);
    for (const text of matched) assert.equal(matches(text), true, JSON.stringify(text));
    for (const text of others) assert.equal(matches(text), false, JSON.stringify(text));
  });
}

test("what only Python knows, what only JavaScript knows, and what neither knows is refused", () => {
  const refused = [
    "(?P<i>\\d+)",
    "(?P=i)",
    "(?<i>a)",
    "(?i)q",
    "(?i:q)",
    "(?#comment)",
    "(?>a)",
    "(?(1)a|b)",
    "\\Aq",
    "q\\Z",
    "(q)\\1",
    "\\0",
    "\\x41",
    "\\u0041",
    "\\N{DIGIT ONE}",
    "\\pL",
    "\\k",
    "\\cA",
    "a++",
    "a*+",
    "a?+",
    "a**",
    "*a",
    "(a",
    "a)",
    "a)|(b",
    "[a",
    "[b-a]",
    "a{2,1}",
    "a{,3}",
    "a{",
    "}",
    "a\\",
    "[]",
    "[^]",
    "(?",
    "(".repeat(100_000),
    "(".repeat(100_000) + ")".repeat(100_000),
    "[a-\\d]",
    "[\\d-z]",
    "[\\q]",
    "^*",
    "\\b+",
    "a{2}{3}",
    "(?<=a*)b",
    "(?<!a|bc)d",
    "(?:a{1000}){1000}",
    "((((a{50}){50}){50}){50}){50}",
    "(?:){100000000000}",
    "a{99999999999999999999}",
    "]",
    "a{2,3",
    "(?:a++)",
  ];
  for (const pattern of refused) {
    assert.throws(
      () => matcher(pattern),
      (error: unknown) => error instanceof ArgumentError && error.message.startsWith("pattern "),
      pattern.slice(0, 20),
    );
  }
});

test("a refusal says what is meant", () => {
  for (const [pattern, word] of [
    ["(?i)q", "(?i"],
    ["a{1000}".repeat(20), "steps when written out"],
    ["q}", "\\\\}"],
    ["*a", "repeats nothing"],
    ["[z-a]", '"z" to "a"'],
    ["(a", "missing"],
  ] as const) {
    assert.throws(
      () => matcher(pattern),
      (error: Error) => error.message.includes(word) && !error.message.includes("\n"),
      `${pattern}: ${word}`,
    );
  }
});

test("what makes a backtracking engine run for ever is matched in a time that grows as the text", () => {
  const a = "a".repeat(4000);
  for (const [pattern, text, expected] of [
    ["(a+)+x", a, false],
    ["(.*)*(.*)*(.*)*x", a, false],
    ["([a-z_0-9]+\\.?)+x", a, false],
    ["(a|aa)+", a, true],
    ["(a|a)*b", a, false],
    [".*.*.*.*.*x", a, false],
    ["(?:a?){400}a{400}", a.slice(0, 400), true],
    ["((l|la|lay|layers)*)*q", "layers".repeat(600), false],
    ["(?=(.+)+x).*", a, false],
    ["(?!(?:(?:a*)*)*b).*", a, true],
    [".*(?<!(?:a)(?:a)x)", a, true],
    ["(?:(?:(?:a*)*)*)*", a, true],
    ["(\\w+\\s?)*$", `${a}!`, false],
  ] as const) {
    assert.equal(matcher(pattern)(text), expected, pattern);
  }
});

test("steps have a limit, which is named", () => {
  assert.throws(
    () => matcher("(?:[ab]*c?){400}d")("a".repeat(20_000)),
    (error: Error) => error instanceof ArgumentError && /more than 20000000 steps/.test(error.message),
  );
});

test.run();

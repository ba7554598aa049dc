/** src/io/python_regexp.ts. What each pattern matches was taken from CPython 3: bool(re.fullmatch(pattern, text)). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { matcher } from "../../src/io/python_regexp.js";
import { ArgumentError } from "../../src/runtime/errors.js";

const CASES: [pattern: string, matched: string[], others: string[]][] = [
  ["foo", ["foo"], ["foobar", "barfoo", ""]],
  [".*oo", ["foo", "oo"], ["foot"]],
  [".*\\.(q|v)_proj", ["model.layers.0.self_attn.q_proj", "a.v_proj"], ["q_proj", "a.k_proj", "axq_proj"]],
  [".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$", ["decoder.block.0.SelfAttention.q"], ["decoder.block.0.DenseReluDense.wi"]],
  ["a|ab", ["a", "ab"], ["b"]],
  ["model\\.layers\\.([0-9]|1[0-5])\\..*proj", ["model.layers.3.q_proj", "model.layers.15.q_proj"], ["model.layers.16.q_proj"]],
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
    "(?P<i>\\d+)", "(?P=i)", "(?<i>a)", "(?i)q", "(?i:q)", "(?#comment)", "(?>a)", "(?(1)a|b)", "\\Aq", "q\\Z", "(q)\\1", "\\0", "\\x41", "\\u0041",
    "\\N{DIGIT ONE}", "\\pL", "\\k", "\\cA", "a++", "a*+", "a?+", "a**", "*a", "(a", "a)", "a)|(b", "[a", "[b-a]", "a{2,1}", "a{,3}", "a{", "}", "a\\",
    "[]", "[^]", "(?", "(".repeat(100_000),
  ];
  for (const pattern of refused) {
    assert.throws(() => matcher(pattern), (error: unknown) => error instanceof ArgumentError && error.message.startsWith("pattern "), pattern.slice(0, 20));
  }
});

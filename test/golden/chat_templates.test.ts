/** Chat templates of many styles, and the language that they are written in, as transformers renders them. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { data } from "../../src/index.js";
import { checkOutcome, checkTemplate, readChatCases, type Outcome } from "../support/chat_cases.js";
import { ROOT } from "../support/root.js";

const folder = new URL("test/fixtures/chat/", ROOT);
const cases = readChatCases(folder);

for (const name of Object.keys(cases.rendered)) {
  test(`${name}: conversations, tools and odd messages as transformers renders or refuses them`, () => {
    assert(checkTemplate(folder, cases, name) >= 4 * Object.keys(cases.conversations).length);
  });
}

const language = JSON.parse(readFileSync(new URL("language.json", folder), "utf8")) as {
  date: string;
  values: Record<string, unknown>;
  expressions: ({ source: string } & Outcome)[];
};

test("expressions and blocks give what jinja2 gives, or raise as it does", () => {
  assert(language.expressions.length > 600);
  for (const { source, ...expected } of language.expressions)
    checkOutcome(source, expected, () =>
      new data.ChatTemplate(source).render([], { date: language.date, kwargs: language.values }),
    );
});

test.run();

/** Chat templates of many styles, and blocks that are apt to be taken otherwise, as transformers renders them. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { data } from "../../src/index.js";
import { checkOutcome, checkTemplate, readChatCases } from "../support/chat_cases.js";
import { ROOT } from "../support/root.js";

const folder = new URL("test/fixtures/chat/", ROOT);
const cases = readChatCases(folder);

for (const name of Object.keys(cases.rendered)) {
  test(`${name}: conversations, tools and odd messages as transformers renders or refuses them`, () => {
    assert(checkTemplate(folder, cases, name) >= 4 * Object.keys(cases.conversations).length);
  });
}

test("blocks give what jinja2 gives, or raise as it does", () => {
  const { blocks, values, date } = cases;
  for (const { source, ...expected } of blocks!)
    checkOutcome(source, expected, () => new data.ChatTemplate(source).render([], { date, kwargs: values }));
});

test.run();

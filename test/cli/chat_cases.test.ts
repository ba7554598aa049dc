/**
 * More templates: those of a folder as test/fixtures/chat, named by WASM_LORA_CHAT_CASES. Templates of real models are
 * not to be kept here; whoever has some renders them by transformers and lets this test compare.
 */
import { pathToFileURL } from "node:url";
import { test } from "uvu";
import { checkTemplate, readChatCases } from "../support/chat_cases.js";

const path = process.env["WASM_LORA_CHAT_CASES"];

if (path === undefined) test.skip("templates of a folder named by WASM_LORA_CHAT_CASES");
else {
  const folder = pathToFileURL(`${path}/`);
  const cases = readChatCases(folder);
  for (const name of Object.keys(cases.rendered))
    test(`${name} of ${path}`, () => {
      console.log(`${name}: ${checkTemplate(folder, cases, name)} renderings are equal`);
    });
}

test.run();

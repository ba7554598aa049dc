/** The JavaScript of the README, of the site's first page and of the guides runs; links lead to files. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { LETTER_TOKENIZER } from "../../support/letter_tokenizer.js";
import { ROOT } from "../../support/root.js";

const guides = readdirSync(new URL("docs/guides", ROOT)).map((name) => `docs/guides/${name}`);
const documents = ["README.md", "docs/index.md", ...guides].map((path) => ({
  path,
  text: readFileSync(new URL(path, ROOT), "utf8"),
}));

/**
 * Blocks for Node: `js`, and the README's `ts`, which needs no types. Folders that they call "my-llama" and "smollm"
 * are the base model, "minilm" and "vit" reference cases of these families.
 */
const BLOCK = /^```(?:js|ts)((?: file=\S+)?)\n([^]*?)^```/gm;
/** What a comment behind console.log says that it prints. */
const PRINTED = /^.*(?:console\.log|printTrainableParameters)\(.*\);[^\S\n]*\/\/ (.+)$/gm;

for (const { path, text } of documents) {
  for (const [i, [, settings, code]] of [...text.matchAll(BLOCK)].entries()) {
    test(`${path}, block ${i + 1}`, async () => {
      // Inside the package, so that `import "wasm-lora"` finds it.
      const folder = mkdtempSync(fileURLToPath(new URL("dist/readme-", ROOT)));
      try {
        const file = join(folder, /file=(\S+)/.exec(settings!)?.[1] ?? "block.mjs");
        for (const [, name] of code!.matchAll(/"(my-llama|smollm)"/g))
          cpSync(new URL("models/base", ROOT), join(folder, name!), { recursive: true });
        for (const [, name] of code!.matchAll(/"(minilm|vit)"/g)) {
          const family = name === "vit" ? "vit_cls" : "minilm_embed";
          cpSync(new URL(`test/fixtures/families/${family}`, ROOT), join(folder, name!), { recursive: true });
          writeFileSync(join(folder, name!, "tokenizer.json"), JSON.stringify(LETTER_TOKENIZER));
        }
        mkdirSync(join(folder, "runs"));
        writeFileSync(file, code!);
        const { stdout } = await promisify(execFile)(process.execPath, [file], { cwd: folder });
        const printed = stdout.split("\n");
        for (const [, expected] of code!.matchAll(PRINTED))
          assert(printed.includes(expected!), `printed ${JSON.stringify(stdout)}; the comment says ${expected}`);
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
  }
}

test("links lead to files", () => {
  const all = documents.flatMap(({ path, text }) =>
    [...text.replace(/^```[^]*?^```/gm, "").matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map((m) => ({ path, link: m[1]! })),
  );
  const links = all.filter(({ link }) => !link.startsWith("http"));
  assert(links.length > 30);
  for (const { path, link } of links) assert(existsSync(new URL(link, new URL(path, ROOT))), `${path}: ${link}`);
});

test.run();

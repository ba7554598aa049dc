/** Every JavaScript block of the README runs, and every file it links to exists. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = new URL("../../../", import.meta.url);
const readme = readFileSync(new URL("README.md", root), "utf8");
const blocks = [...readme.matchAll(/```js\n([^]*?)```/g)].map((m) => m[1]!);

for (const [i, code] of blocks.entries()) {
  test(`README block ${i + 1}`, () => {
    // Inside the package, so that `import "wasm-lora"` finds it.
    const file = fileURLToPath(new URL(`dist/readme_block_${i + 1}.mjs`, root));
    writeFileSync(file, code);
    try {
      execFileSync(process.execPath, [file], { cwd: fileURLToPath(root), stdio: "pipe" });
    } finally {
      rmSync(file);
    }
  });
}

test("links lead to files", () => {
  const links = [...readme.matchAll(/\]\(([^)#]+)\)/g)].map((m) => m[1]!).filter((link) => !link.startsWith("http"));
  assert(links.length > 30);
  for (const link of links) assert(existsSync(new URL(link, root)), link);
});

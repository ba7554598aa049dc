/** Rooms that pages, Workers and the command line share ask for nothing that only some of these have. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "uvu";
import { ROOT } from "../../support/root.js";

/** A console, a disk, a clock, a process, the page's or Node's own names. */
const FOREIGN = /from "node:|\b(console|process|Date|performance|setTimeout|setImmediate|document|Buffer)\b\s*[.(]/;

for (const room of ["train", "data"]) {
  test(`src/${room} has no console, no disk, no clock`, () => {
    const files = readdirSync(new URL(`src/${room}`, ROOT), { recursive: true, encoding: "utf8" }).filter((file) =>
      file.endsWith(".ts"),
    );
    assert(files.length > 3);
    for (const file of files) {
      const code = readFileSync(new URL(`src/${room}/${file}`, ROOT), "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
      for (const [i, line] of code.split("\n").entries()) assert.doesNotMatch(line, FOREIGN, `${file}:${i + 1}`);
      for (const [, path] of code.matchAll(/from "(\.\.?\/[^"]+)"/g))
        assert(!/^(\.\.\/)+cli\//.test(path!), `${file} imports ${path}`);
    }
  });
}

test.run();

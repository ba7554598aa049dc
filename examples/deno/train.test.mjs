/** The file that Node runs, run by Deno, prints the same losses and writes the same adapter to the byte. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "uvu";

const node = fileURLToPath(new URL("../node", import.meta.url));
const deno = fileURLToPath(new URL(".", import.meta.url));

const npm = (folder, ...command) =>
  execFileSync("npm", ["--silent", "--prefix", folder, ...command], { encoding: "utf8" });

function train(folder) {
  rmSync(`${node}/runs`, { recursive: true, force: true });
  return { printed: npm(folder, "start"), adapter: readFileSync(`${node}/runs/adapter/adapter_model.safetensors`) };
}

test("Deno's losses and adapter are Node's", () => {
  npm(node, "ci");
  const expected = train(node);
  const actual = train(deno);
  assert.match(expected.printed, /^merged: Knead the dough for ten minutes/m);
  assert.equal(actual.printed, expected.printed);
  assert(actual.adapter.equals(expected.adapter));
});

test.run();

/** examples/task: its rows are what its script makes, what is held out is held out, and the command line takes it. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { data } from "../../src/index.js";
import { ROOT } from "../support/root.js";
import { filesBelow, succeed, temporaryFolder } from "../support/cli.js";

const TASK = fileURLToPath(new URL("examples/task", ROOT));
const { files } = (await import(new URL("examples/task/make.mjs", ROOT).href)) as { files: () => [string, string][] };

/** The requests of a file with their answers. */
async function rowsOf(name: string): Promise<{ request: string; device: string; room: string }[]> {
  const rows = await data.parseRows(readFileSync(join(TASK, name)), name);
  return data.readExamples(rows).flatMap((example) => {
    assert(example.kind === "messages");
    const said = example.messages.map(({ content }) => content as string);
    return said.flatMap((request, i) =>
      i % 2 === 0 ? [{ request, ...(JSON.parse(said[i + 1]!) as { device: string; room: string }) }] : [],
    );
  });
}

test("the rows are what the script makes", () => {
  for (const [name, text] of files()) assert.equal(readFileSync(join(TASK, name), "utf8"), text, name);
});

test("no row is in two files, and tests are of devices in rooms where no other row has them", async () => {
  const [train, valid, held] = await Promise.all(["train.jsonl", "valid.jsonl", "test.jsonl"].map(rowsOf));
  const learnt = [...train!, ...valid!];
  const all = [...learnt, ...held!].map(({ request }) => request.toLowerCase().replace(/[.?]$/, ""));
  assert.equal(new Set(all).size, all.length);
  const places = new Set(learnt.map(({ device, room }) => `${device} in the ${room}`));
  for (const { device, room } of held!) assert(!places.has(`${device} in the ${room}`), `${device} in the ${room}`);
});

test("a short run takes the folder: it measures on valid.jsonl, eval on test.jsonl", async () => {
  const folder = temporaryFolder();
  const short = ["--steps", "4", "--r", "2", "--eval-every", "0"];
  const { stdout } = await succeed(folder, ["finetune", "--data", TASK, "--out", "run", ...short]);
  assert.match(stdout, /700 rows to train on, 90 rows held out/);
  assert(filesBelow(join(folder, "run")).includes("report.html"));
  const judged = ["eval", "--data", TASK, "--adapter", "run/adapter", "--limit", "4", "--json"];
  const { base, adapted, rows, ofRows } = JSON.parse((await succeed(folder, judged)).stdout);
  assert.deepEqual([rows, ofRows, base.exact, adapted.exact], [4, 140, 0, 0]);
  assert(adapted.loss < base.loss);
});

test.run();

/** npm run finetune:task does what the README says: from no exact answer to at least four of five. */
import assert from "node:assert/strict";
import { exec } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test } from "uvu";
import { temporaryFolder } from "../support/cli.js";
import { ROOT } from "../support/root.js";

test("the embedded model learns the task", async () => {
  const out = join(temporaryFolder(), "task");
  const { scripts } = JSON.parse(readFileSync(new URL("package.json", ROOT), "utf8"));
  const [, finetune, judge] = (scripts["finetune:task"] as string).replaceAll("runs/task", out).split(" && ");
  const run = (command: string): Promise<{ stdout: string }> =>
    promisify(exec)(command, { cwd: fileURLToPath(ROOT), maxBuffer: 2 ** 26 });
  await run(finetune!);
  const { base, adapted, rows } = JSON.parse((await run(`${judge!} --json`)).stdout);
  assert.deepEqual([rows, base.exact], [140, 0]);
  assert(adapted.exact >= 0.8 * rows, `${adapted.exact} of ${rows}`);
});

test.run();

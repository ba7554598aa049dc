/** One run owns its folder: the living are refused, the dead are not waited for. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { LOCK_FILE, lockFolder } from "../../src/cli/lock.js";
import { FileError } from "../../src/runtime/errors.js";
import { temporaryFolder } from "../support/cli.js";
import { ROOT } from "../support/root.js";

const folder = temporaryFolder();
function fresh(name: string): { out: string; file: string } {
  const out = join(folder, name);
  mkdirSync(out);
  return { out, file: join(out, LOCK_FILE) };
}
const lockModule = new URL("dist/src/cli/lock.js", ROOT).href;
/** Another process that takes the folder and then does what `then` says. */
function script(out: string, then: string): string[] {
  return [
    "--input-type=module",
    "-e",
    `const { lockFolder } = await import(${JSON.stringify(lockModule)}); const lock = lockFolder("test", ` +
      `${JSON.stringify(out)}); ${then}`,
  ];
}
function refused(out: string): void {
  assert.throws(
    () => lockFolder("finetune", out),
    (error: unknown) => error instanceof FileError && error.message.includes(out) && error.message.includes(LOCK_FILE),
  );
}
/** An hour ago. */
function age(file: string): void {
  const then = Date.now() / 1000 - 3600;
  utimesSync(file, then, then);
}

test("a folder is taken once, and free again after release", () => {
  const { out, file } = fresh("once");
  const lock = lockFolder("finetune", out);
  assert.deepEqual(readdirSync(out), [LOCK_FILE]);
  refused(out);
  // Of a process that lives here it does not matter how long ago it gave a sign.
  age(file);
  refused(out);
  lock.keep();
  lock.release();
  assert.deepEqual(readdirSync(out), []);
  lockFolder("finetune", out).release();
});

test("a folder in memory, too", () => {
  const lock = lockFolder("finetune", "memory:run");
  assert.throws(() => lockFolder("finetune", "memory:run"), FileError);
  lockFolder("finetune", "memory:other").release();
  lock.keep();
  lock.release();
  lockFolder("finetune", "memory:run").release();
});

test("a process that ended, by itself or killed, leaves the folder free", () => {
  const { out, file } = fresh("killed");
  assert.equal(spawnSync(process.execPath, script(out, "process.exit(0);")).status, 0);
  assert.deepEqual(readdirSync(out), []);
  assert.equal(spawnSync(process.execPath, script(out, 'process.kill(process.pid, "SIGKILL");')).signal, "SIGKILL");
  assert.ok(existsSync(file));
  const lock = lockFolder("finetune", out);
  assert.equal(JSON.parse(readFileSync(file, "utf8")).process, process.pid);
  lock.release();
});

test("a living process elsewhere is refused by name", async () => {
  const { out } = fresh("living");
  const child = spawn(process.execPath, script(out, 'console.log("taken"); setInterval(() => {}, 1000);'));
  await new Promise((resolve) => child.stdout.once("data", resolve));
  assert.throws(() => lockFolder("merge", out), new RegExp(`merge: another run has .*process ${child.pid} on `));
  child.kill("SIGKILL");
  await new Promise((resolve) => child.once("close", resolve));
  lockFolder("merge", out).release();
});

test("an owner that cannot be seen from here lives as long as it gives signs", () => {
  const { out, file } = fresh("elsewhere");
  const mine = lockFolder("finetune", out);
  const owner = JSON.parse(readFileSync(file, "utf8"));
  mine.release();
  for (const other of [
    { ...owner, host: "another" },
    { ...owner, space: "pid:[1]" },
    { ...owner, boot: "before" },
  ]) {
    writeFileSync(file, JSON.stringify({ ...other, token: "t" }));
    refused(out);
    age(file);
    lockFolder("finetune", out).release();
  }
  // The same process number, given to another process since.
  writeFileSync(file, JSON.stringify({ ...owner, began: "1" }));
  if (owner.began !== "") lockFolder("finetune", out).release();
});

test("a file that names no owner counts by its age", () => {
  const { out, file } = fresh("garbage");
  for (const text of ["", "null", "{}", "[]", '{"process":"x"}', "\u001b[2J"]) {
    writeFileSync(file, text);
    refused(out);
    age(file);
    lockFolder("finetune", out).release();
    assert.deepEqual(readdirSync(out), []);
  }
});

test("a run whose folder was taken over writes no more", () => {
  const { out, file } = fresh("taken");
  const lock = lockFolder("finetune", out);
  const contents = readFileSync(file, "utf8");
  writeFileSync(file, contents.replace(/"token":"\w+"/, '"token":"of another"'));
  const now = Date.now;
  Date.now = () => now() + 60_000;
  try {
    assert.throws(() => lock.keep(), /finetune: another run has taken/);
    lock.release();
  } finally {
    Date.now = now;
  }
  assert.ok(existsSync(file), "the other's lock stays");
});

test("of many that begin at once, over a dead one's lock, one gets the folder", async () => {
  const { out } = fresh("race");
  spawnSync(process.execPath, script(out, 'process.kill(process.pid, "SIGKILL");'));
  // Who has it keeps it until all have tried.
  const children = Array.from({ length: 4 }, () =>
    spawn(
      process.execPath,
      script(out, 'console.log("taken"); process.stdin.resume().once("end", () => lock.release());'),
      { stdio: ["pipe", "pipe", "ignore"] },
    ),
  );
  const codes = children.map((child) => new Promise<number | null>((resolve) => child.once("close", resolve)));
  const outcomes = await Promise.all(
    children.map((child, i) =>
      Promise.race([
        codes[i]!.then(() => "refused"),
        new Promise((resolve) =>
          child.stdout.once("data", () => {
            resolve("taken");
          }),
        ),
      ]),
    ),
  );
  for (const child of children) child.stdin.end();
  await Promise.all(codes);
  assert.deepEqual(outcomes.sort(), ["refused", "refused", "refused", "taken"]);
  assert.deepEqual(readdirSync(out), []);
});

test.run();

/** scripts/test.mjs, on planted files: whatever a file does or leaves undone, no test passes in silence. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { temporaryFolder } from "../support/cli.js";
import { ROOT } from "../support/root.js";

const folder = temporaryFolder();
const runner = fileURLToPath(new URL("scripts/test.mjs", ROOT));
const HEAD = 'import assert from "node:assert/strict";\nimport { suite, test } from "uvu";\n';

/** Runs the runner on files with these contents, in a folder of their own. */
function run(name: string, files: Record<string, string>, ...options: string[]) {
  const where = join(folder, name);
  mkdirSync(where);
  for (const [file, code] of Object.entries(files)) writeFileSync(join(where, `${file}.test.mjs`), HEAD + code);
  const { status, stdout, stderr } = spawnSync(process.execPath, [runner, "--in", where, "--limit", "5", ...options], {
    encoding: "utf8",
  });
  /** What is said of each failure, by "file > test". */
  const failures = new Map(
    stdout
      .split(/^FAIL /m)
      .slice(1)
      .map((text) => {
        const [head, ...rest] = text.split("\n");
        return [head!.replace(`${where}/`, "").replace(".test.mjs", ""), rest.join("\n")] as const;
      }),
  );
  return { status, stdout, stderr, failures, last: stdout.trimEnd().split("\n").at(-1)! };
}

test("counts what passes and what is skipped, in suites too, and shows progress from the start", () => {
  const { status, stdout, last } = run("good", {
    one: 'test("a", () => {}); test("b", async () => {}); test.skip("c", () => assert.fail()); test.run();',
    two: 'const s = suite("group"); s("d", () => console.log("said")); s.run(); test("e", () => {}); test.run();',
  });
  assert.equal(status, 0, stdout);
  assert.match(last, /^4 passed, 0 failed, 1 skipped in 2 files, \d+\.\d s$/);
  assert.match(stdout, /^0\/2 files: 0 passed, 0 failed, 0 s, about \d+ s left\n/);
  assert.match(stdout, /^SKIP .*good\/one\.test\.mjs > c$/m);
  assert.ok(!stdout.includes("said"));
  assert.ok(
    run("shown", { one: 'console.log("said"); test("a", () => {}); test.run();' }, "--output").stdout.includes("said"),
  );
});

test("installed packages are not searched: one may be a link to what it is installed in", () => {
  const installed = join(folder, "linked/node_modules");
  mkdirSync(installed, { recursive: true });
  for (const name of ["itself", "again"]) symlinkSync("..", join(installed, name), "junction");
  writeFileSync(join(installed, "theirs.test.mjs"), "process.exit(1);");
  writeFileSync(join(folder, "linked/ours.test.mjs"), `${HEAD}test("a", () => {}); test.run();`);
  const { status, stdout } = spawnSync(process.execPath, [runner, "--in", join(folder, "linked")], {
    encoding: "utf8",
    timeout: 20_000,
  });
  assert.equal(status, 0);
  assert.match(stdout, /^1 passed, 0 failed, 0 skipped in 1 files/m);
});

test("a failure is shown with its file, its test, the difference, its place, and what the file printed", () => {
  const { status, failures, last, stdout } = run("failing", {
    equal: 'console.log("said before"); test("one", () => assert.equal(1, 2)); test("two", () => {}); test.run();',
    worded:
      'const s = suite("group"); s("deep", () => assert.deepEqual({ a: 1 }, { a: 2 }, "my words")); s.run(); ' +
      'test("equal", () => assert.equal(1, 2, "my words")); test.run();',
    other: 'test("text", () => { throw "a text"; }); test("nothing", () => Promise.reject()); test.run();',
  });
  assert.equal(status, 1);
  assert.match(last, /^1 passed, 5 failed, 0 skipped in 3 files/);
  assert.deepEqual([...failures.keys()].sort(), [
    "equal > one",
    "other > nothing",
    "other > text",
    "worded > equal",
    "worded > group: deep",
  ]);
  assert.match(failures.get("equal > one")!, /AssertionError: Expected values to be strictly equal:\s+1 !== 2/);
  assert.match(failures.get("equal > one")!, /equal\.test\.mjs:3:\d+/);
  assert.match(failures.get("worded > group: deep")!, /my words[^]*a: 1[^]*a: 2/);
  assert.match(failures.get("worded > equal")!, /my words[^]*\b1\b[^]*\b2\b/);
  assert.match(failures.get("other > text")!, /thrown: 'a text'/);
  assert.match(failures.get("other > nothing")!, /thrown: undefined/);
  assert.ok(stdout.includes("said before"));
});

test("a file that does not load, has no test, or does not run what it registers", () => {
  const { status, failures } = run("empty", {
    broken: 'throw new Error("no good");',
    missing: 'import "./nowhere.mjs";',
    none: "",
    onlyRun: "test.run();",
    noRun: 'test("a", () => {});',
    noRunOfSuite: 'const s = suite("s"); s("a", () => {}); test("b", () => {}); test.run();',
  });
  assert.equal(status, 1);
  assert.match(failures.get("broken > while the file loads")!, /exit code 1[^]*no good/);
  assert.match(failures.get("missing > while the file loads")!, /nowhere/);
  assert.match(failures.get("none > the file")!, /registers no test/);
  assert.match(failures.get("onlyRun > the file")!, /registers no test/);
  assert.match(failures.get("noRun > the file")!, /run\(\) is not called/);
  assert.match(failures.get("noRunOfSuite > s")!, /run\(\) is not called/);
});

test("a process that ends, hangs or stays, whenever it does", () => {
  const { status, failures, last } = run("ending", {
    atOnce: "process.exit(0);",
    inside: 'test("a", () => {}); test("b", () => process.exit(0)); test("c", () => {}); test.run();',
    killed: 'test("a", () => process.kill(process.pid, "SIGKILL")); test.run();',
    forgotten: 'test("a", () => new Promise(() => {})); test.run();',
    rejected:
      'test("a", () => { Promise.reject(new Error("of nobody")); return new Promise(setImmediate); }); test.run();',
    code: 'test("a", () => { process.exitCode = 3; }); test.run();',
    waiting: 'test("a", () => new Promise(() => setInterval(() => {}, 1000))); test.run();',
    busy: 'test("a", () => { for (;;); }); test.run();',
    open: 'test("a", () => { setInterval(() => {}, 1000); }); test.run();',
  });
  assert.equal(status, 1);
  assert.match(failures.get("atOnce > while the file loads")!, /exit code 0, before its last test/);
  assert.match(failures.get("inside > b")!, /exit code 0, before its last test/);
  assert.match(failures.get("killed > a")!, /SIGKILL, before its last test/);
  assert.match(failures.get("forgotten > a")!, /before its last test/);
  assert.match(failures.get("rejected > a")!, /before its last test[^]*of nobody/);
  assert.match(failures.get("code > the process")!, /exit code 3/);
  assert.match(failures.get("waiting > a")!, /no end after 5 s/);
  assert.match(failures.get("busy > a")!, /no end after 5 s/);
  assert.match(failures.get("open > the process")!, /still there 5 s after its last test/);
  assert.match(last, /^3 passed, 9 failed, 0 skipped in 9 files/);
});

test("hooks that throw, and test.only", () => {
  const { status, failures } = run("hooks", {
    before: 'test.before(() => { throw new Error("in vain"); }); test("a", () => {}); test.run();',
    after: 'test.after(async () => { throw new Error("left over"); }); test("a", () => {}); test.run();',
    each: 'test.before.each(() => { throw new Error("each time"); }); test("a", () => {}); test.run();',
    only: 'test.only("a", () => {}); test("b", () => assert.fail()); test.run();',
  });
  assert.equal(status, 1);
  assert.match(failures.get("before > before")!, /in vain/);
  assert.match(failures.get("after > after")!, /left over/);
  assert.match(failures.get("each > before.each")!, /each time/);
  assert.match(failures.get("only > a")!, /test\.only leaves others out/);
});

test("words choose files, --only tests; where nothing matches it fails", () => {
  const files = {
    first: 'test("red", () => {}); test("blue", () => assert.fail()); test.run();',
    second: 'const s = suite("red"); s("a", () => {}); s.run(); test("blue", () => assert.fail()); test.run();',
  };
  assert.match(run("words", files, "second", "-t", "^red: ").last, /^1 passed, 0 failed, 0 skipped in 1 files/);
  assert.match(run("names", files, "--only", "red").last, /^2 passed, 0 failed, 0 skipped in 2 files/);
  for (const [name, ...options] of [
    ["no-file", "third"],
    ["no-test", "--only", "green"],
  ] as const) {
    const { status, stderr, last } = run(name, files, ...options);
    assert.equal(status, 1);
    assert.match(stderr, /^No test matches/);
    assert.match(last, /^0 passed, 0 failed/);
  }
});

test.run();

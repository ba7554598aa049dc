/** src/io/files.ts: atomic writes, JSON faults with their place, errors that say what to do. */
import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { test } from "uvu";
import {
  ensureWritableDirectory,
  exists,
  readBytes,
  readJson,
  removeTemporaries,
  writeAtomic,
  writeTogether,
} from "../../../src/io/files.js";
import { FileError, FormatError } from "../../../src/runtime/errors.js";
import { ROOT } from "../../support/root.js";

const folder = mkdtempSync(join(tmpdir(), "files-"));
test.after(() => rmSync(folder, { recursive: true }));

function throwsFileError(action: () => unknown, message: RegExp): void {
  assert.throws(action, (error: unknown) => {
    assert.ok(error instanceof FileError, String(error));
    assert.match(error.message, message);
    assert.ok(!error.message.includes("\n"), "one line");
    return true;
  });
}

test("readBytes: the bytes; a missing file, a directory and a path through a file say what to do", () => {
  const path = join(folder, "bytes");
  writeFileSync(path, Uint8Array.of(0, 255, 10));
  assert.deepEqual(readBytes(path), Uint8Array.of(0, 255, 10));
  writeFileSync(path, "");
  assert.deepEqual(readBytes(path), new Uint8Array(0));
  throwsFileError(() => readBytes(join(folder, "none")), /cannot read .*none: it does not exist; check the path/);
  throwsFileError(() => readBytes(folder), /it is a directory; name a file in it/);
  throwsFileError(() => readBytes(join(path, "x")), /a part of the path is a file/);
  if (existsSync("/dev/null")) throwsFileError(() => readBytes("/dev/null"), /not a regular file/);
  assert.equal(exists(path), true);
  assert.equal(exists(join(folder, "none")), false);
});

test("no permission to read, write or create", () => {
  const secret = join(folder, "secret");
  const closed = join(folder, "closed");
  writeFileSync(secret, "x");
  chmodSync(secret, 0);
  mkdirSync(closed);
  chmodSync(closed, 0o500);
  // Root may do everything, so it becomes "nobody" meanwhile.
  const isRoot = process.getuid!() === 0;
  chmodSync(folder, 0o755);
  if (isRoot) process.seteuid!(65534);
  try {
    throwsFileError(() => readBytes(secret), /cannot read .*secret: permission was denied/);
    throwsFileError(() => writeAtomic(join(closed, "x"), "x"), /cannot write .*: permission was denied/);
    throwsFileError(() => ensureWritableDirectory(closed), /cannot write into .*: permission was denied/);
    throwsFileError(() => ensureWritableDirectory(join(closed, "x")), /cannot write into .*: permission was denied/);
  } finally {
    if (isRoot) process.seteuid!(0);
  }
});

test("readJson: values as JSON.parse gives them", () => {
  const path = join(folder, "good.json");
  for (const text of [
    '{"a": [1, -2.5e3, true, false, null, "\\u00e9\\n"]}',
    " 1 ",
    '"\\ud800"',
    "[]",
    "{}",
    '{"__proto__": 1}',
  ]) {
    writeFileSync(path, text);
    assert.deepEqual(readJson(path), JSON.parse(text));
  }
});

test("readJson: a fault is named with path, line and column", () => {
  const path = join(folder, "bad.json");
  const cases: [string, RegExp][] = [
    ["", /the file is empty/],
    [" ", /line 1, column 2: expected a value, got the end of the text/],
    ['{"a": 1,\n "b": }', /line 2, column 7: expected a value, got "}"/],
    ['{"a": 1\n', /line 2, column 1: expected "}", got the end of the text/],
    ['{"a" 1}', /line 1, column 6: expected ":", got "1"/],
    ["[1, 2,]", /line 1, column 7: expected a value, got "]"/],
    ["{a: 1}", /line 1, column 2: expected a string, got "a"/],
    ['{"a": 1} x', /line 1, column 10: expected nothing more, got "x"/],
    ['["a\nb"]', /line 1, column 4: expected an escape sequence/],
    ["['a']", /line 1, column 2/],
    ["[01]", /line 1, column 2/],
    ["[nul]", /line 1, column 2: expected a value, got "n"/],
    ["NaN", /line 1, column 1/],
    ["\ufeff{", /line 1, column 2/],
    ["version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", /a git-lfs pointer.*git lfs pull/],
    ["\n<!DOCTYPE html><html></html>", /a web page \(HTML\)/],
    ["PK\x03\x04", /a zip archive/],
    ['["abc', /expected a closing "/],
    ["[".repeat(100_000), /not JSON/],
  ];
  for (const [text, message] of cases) {
    writeFileSync(path, text);
    assert.throws(
      () => readJson(path),
      (error: unknown) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.ok(error.message.startsWith(`${path}: not JSON: `), error.message);
        assert.match(error.message, message);
        return true;
      },
    );
  }
  writeFileSync(path, '\ufeff{"a": 1}');
  assert.deepEqual(readJson(path), { a: 1 });
  writeFileSync(path, Uint8Array.of(0xff, 0xfe, 0x7b, 0, 0x7d, 0));
  assert.throws(
    () => readJson(path),
    (error: unknown) => error instanceof FormatError && error.message.includes("UTF-16"),
  );
  writeFileSync(path, Uint8Array.of(0x22, 0xff, 0x22));
  assert.throws(
    () => readJson(path),
    (error: unknown) => error instanceof FormatError && error.message.includes("UTF-8"),
  );
});

const HOUR = 3600;
/** A file as a writer leaves that was killed `seconds` ago. */
function leaveTemporary(path: string, seconds: number): void {
  writeFileSync(path, "half of");
  const then = Date.now() / 1000 - seconds;
  utimesSync(path, then, then);
}

test("writeAtomic: new contents in place of old ones; nothing beside them but what others may still be writing", () => {
  const directory = join(folder, "atomic");
  mkdirSync(directory);
  const path = join(directory, "a");
  writeAtomic(path, "é");
  assert.equal(readFileSync(path, "utf8"), "é");
  leaveTemporary(`${path}.1.0123456789abcdef.tmp`, 2 * HOUR);
  leaveTemporary(`${path}.1.fedcba9876543210.tmp`, HOUR / 2);
  leaveTemporary(`${path}.tmp`, 2 * HOUR);
  leaveTemporary(join(directory, "b.1.0123456789abcdef.tmp"), 2 * HOUR);
  writeAtomic(path, Uint8Array.of(1, 2, 3));
  assert.deepEqual([...readFileSync(path)], [1, 2, 3]);
  assert.deepEqual(readdirSync(directory), ["a", "a.1.fedcba9876543210.tmp", "a.tmp", "b.1.0123456789abcdef.tmp"]);
  removeTemporaries(directory);
  assert.deepEqual(readdirSync(directory), ["a", "a.tmp"]);
});

test("writeAtomic: the old contents are kept where it is told", () => {
  const path = join(folder, "kept");
  const previous = join(folder, "kept.previous");
  writeAtomic(path, "1", previous);
  assert.equal(existsSync(previous), false);
  writeAtomic(path, "2", previous);
  writeAtomic(path, "3", previous);
  assert.deepEqual(
    [path, previous].map((p) => readFileSync(p, "utf8")),
    ["3", "2"],
  );
});

test("writeTogether: if one cannot be written, none is changed, and nothing is left", () => {
  const directory = join(folder, "together");
  mkdirSync(directory);
  const [a, b] = [join(directory, "a"), join(directory, "b")];
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  writeTogether([
    { path: a, bytes: bytes("a1") },
    { path: b, bytes: bytes("b1") },
  ]);
  throwsFileError(
    () =>
      writeTogether([
        { path: a, bytes: bytes("a2") },
        { path: join(directory, "none", "b"), bytes: bytes("b2") },
      ]),
    /cannot write .*none.b: it does not exist/,
  );
  // The contents fail halfway, as a full disk does.
  throwsFileError(
    () =>
      writeTogether([
        { path: a, bytes: bytes("a2") },
        { path: b, bytes: { length: 4 } as Uint8Array },
      ]),
    /cannot write .*b: /,
  );
  assert.deepEqual(
    [readFileSync(a, "utf8"), readFileSync(b, "utf8"), ...readdirSync(directory)],
    ["a1", "b1", "a", "b"],
  );
  writeTogether([
    { path: a, bytes: bytes("a3") },
    { path: b, bytes: bytes("b3"), previous: `${b}.old` },
  ]);
  assert.deepEqual(
    readdirSync(directory).map((name) => readFileSync(join(directory, name), "utf8")),
    ["a3", "b3", "b1"],
  );
});

test("writeAtomic: threads of one process writing one file, and a reader that always finds a whole one", async () => {
  const path = join(folder, "shared");
  const size = 200_000;
  const writers = 3;
  const writes = 40;
  const code =
    `
    const { workerData: { files, path, size, writes, mark } } = require("node:worker_threads");
    import(files).then(({ writeAtomic }) => { for (let i = 0; i < writes; i++) writeAtomic(path, new ` +
    `Uint8Array(size).fill(mark)); });`;
  writeAtomic(path, new Uint8Array(size).fill(99));
  const files = new URL("dist/src/io/files.js", ROOT).href;
  const ends = Array.from(
    { length: writers },
    (_, i) =>
      new Promise<void>((resolve, reject) => {
        const worker = new Worker(code, { eval: true, workerData: { files, path, size, writes, mark: i } });
        worker.on("error", reject);
        worker.on("exit", () => {
          resolve();
        });
      }),
  );
  let running = true;
  let reads = 0;
  const done = Promise.all(ends).finally(() => {
    running = false;
  });
  while (running) {
    const bytes = readBytes(path);
    assert.equal(bytes.length, size);
    assert.ok(bytes.every((b) => b === bytes[0]));
    reads++;
    await new Promise((resolve) => setImmediate(resolve));
  }
  await done;
  assert.ok(reads > 0);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith("shared")),
    ["shared"],
  );
});

test("writeAtomic: on failure the old file stays and the temporary goes", () => {
  const directory = join(folder, "failing");
  mkdirSync(join(directory, "occupied", "inside"), { recursive: true });
  throwsFileError(() => writeAtomic(join(directory, "occupied"), "x"), /cannot write .*occupied: /);
  throwsFileError(() => writeAtomic(join(directory, "none", "x"), "x"), /cannot write .*none.x: it does not exist/);
  const path = join(directory, "kept");
  writeAtomic(path, "old");
  // The contents fail halfway: the first read of their length succeeds, the writing does not.
  throwsFileError(() => writeAtomic(path, { length: 4 } as Uint8Array), /cannot write/);
  assert.equal(readFileSync(path, "utf8"), "old");
  assert.deepEqual(readdirSync(directory).sort(), ["kept", "occupied"]);
});

test("ensureWritableDirectory: creates parents, accepts what exists, refuses files", () => {
  const path = join(folder, "x", "y");
  ensureWritableDirectory(path);
  ensureWritableDirectory(path);
  assert.ok(existsSync(path));
  writeFileSync(join(path, "file"), "");
  throwsFileError(
    () => ensureWritableDirectory(join(path, "file")),
    /cannot write into .*file: a file of that name is in the way/,
  );
  throwsFileError(() => ensureWritableDirectory(join(path, "file", "z")), /a part of the path is a file/);
});

test.run();

/** A test file in a process of its own, and what came of it. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const child = fileURLToPath(new URL("child.mjs", import.meta.url));
const hasGroups = process.platform !== "win32";
/** Seconds after its last test in which a process must end, or it has left something open. */
const GRACE_S = 10;

const running = new Set();

/** Ends a process and all that it started. */
function kill({ pid }) {
  try {
    process.kill(hasGroups ? -pid : pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}

/** Ends all that run. */
export function killAll() {
  for (const process_ of running) kill(process_);
}

/**
 * Runs the file's tests whose names match the pattern, for at most `limit` seconds. Gives { passed, skipped: names,
 * failures: [{ name, message, difference, stack }], output }, with a failure for what is wrong with the process.
 */
export function runFile(path, pattern, limit) {
  const result = { passed: 0, skipped: [], failures: [], output: "" };
  const fail = (name, message) => result.failures.push({ name, message, difference: "", stack: "" });
  if (!existsSync(path)) {
    fail("the file", "is not built: npm run build:ts");
    return Promise.resolve(result);
  }
  const process_ = spawn(process.execPath, [child, path, pattern], {
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    detached: hasGroups,
  });
  running.add(process_);
  let current = "while the file loads";
  let [ended, expired] = [false, false];
  const expire = () => {
    if (ended) fail("the process", `is still there ${Math.min(limit, GRACE_S)} s after its last test`);
    else fail(current, `no end after ${limit} s, which is the limit for a file`);
    expired = true;
    kill(process_);
  };
  let timer = setTimeout(expire, limit * 1000);
  for (const stream of [process_.stdout, process_.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      result.output += text;
    });
  }
  process_.on("message", ({ event, name, ...failure }) => {
    if (event === "start") current = name;
    if (event === "pass") result.passed++;
    if (event === "skip") result.skipped.push(name);
    if (event === "fail") result.failures.push({ name, ...failure });
    if (event === "end") {
      ended = true;
      clearTimeout(timer);
      timer = setTimeout(expire, Math.min(limit, GRACE_S) * 1000);
    }
  });
  return new Promise((resolve) => {
    process_.on("error", (error) => fail("the process", error.message));
    process_.on("close", (code, signal) => {
      clearTimeout(timer);
      running.delete(process_);
      const how = signal ?? `exit code ${code}`;
      if (!ended && !expired) fail(current, `the process ended, with ${how}, before its last test`);
      if (ended && !expired && code !== 0) fail("the process", `ended with ${how}, though after its last test`);
      // Without uvu's marks and counts.
      result.output = result.output.replace(/[•✘] | {2}\(\d+ \/ \d+\)\n/g, "").trimEnd();
      resolve(result);
    });
  });
}

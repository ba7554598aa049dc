/** node:test on uvu: `test`, `before` and `after` at a file's top level, and `t.diagnostic`. */
import "./uvu_globals.mjs";
import { suite } from "uvu";

const file = suite("", { diagnostic() {} });

export function test(name, handler) { file(name, handler); }
export const before = file.before, after = file.after;

/** Runs what the file registered. */
export async function runTests() {
  file.run();
  const [failures, passed, , total] = await globalThis.UVU_QUEUE[0][0]();
  return { passed, total, failures: failures === true ? "" : failures };
}

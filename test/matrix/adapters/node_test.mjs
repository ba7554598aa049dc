/** node:test on uvu: `test`, `describe`, `before` and `after` at a file's top level, and `t.diagnostic`. */
import "./uvu_globals.mjs";
import { suite } from "uvu";

const file = suite("", { diagnostic() {} });

/** Names of the groups that are being told. */
const groups = [];

/** As node:test's, with options in between: a time limit, which the matrix has for whole files. */
export function test(name, ...rest) {
  file([...groups, name].join(": "), rest.at(-1));
}
export function describe(name, tell) {
  groups.push(name);
  tell();
  groups.pop();
}
export const before = file.before,
  after = file.after;

/** Runs what the file registered. */
export async function runTests() {
  file.run();
  const [failures, passed, , total] = await globalThis.UVU_QUEUE[0][0]();
  return { passed, total, failures: failures === true ? "" : failures };
}

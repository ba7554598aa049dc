/**
 * What the tests of threads compare, the bits of one thread and of some, tells a kernel that is wrong from one that is
 * right: one whose parts go along a sum, and one whose threads share their working space.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { sharing } from "../../src/runtime/sharing.js";
import { Threads } from "../../src/runtime/threads.js";
import { temporaryFolder } from "../support/cli.js";
import { randomArray } from "../support/random.js";
import { ROOT } from "../support/root.js";

const root = fileURLToPath(ROOT);
const folder = temporaryFolder();
const threads = JSON.stringify(relative(folder, join(root, "assembly/threads")));

/** y[i] = the sum along row i of x [m, k], which goes through a room of k floats. */
const SOURCE = `
import { first, last, own, part, split } from ${threads};
export { enterCall, leaveCall, threadControlBytes, useThread } from ${threads};
export function heapBase(): usize { return __heap_base; }
export function useBigTile(on: bool): void {}
export function usesBigTile(): bool { return false; }

function row(y: usize, x: usize, k: i32, room: usize): void {
  memory.copy(room, x, (<usize>k) << 2);
  let sum = load<f32>(y);
  for (let p = 0; p < k; p++) sum += load<f32>(room + ((<usize>p) << 2));
  store<f32>(y, sum);
}
function rows(y: usize, x: usize, k: i32, room: usize): void {
  for (let i = <usize>first; i < <usize>last; i++) row(y + (i << 2), x + ((i * <usize>k) << 2), k, room);
}

export function right(y: usize, x: usize, m: i32, k: i32, room: usize): void {
  for (split(m, <f64>k * 4); part(); ) rows(y, x, k, own(room, (<usize>k) << 2));
}
export function sharesItsRoom(y: usize, x: usize, m: i32, k: i32, room: usize): void {
  for (split(m, <f64>k * 4); part(); ) rows(y, x, k, room);
}
export function cutsItsSum(y: usize, x: usize, m: i32, k: i32, room: usize): void {
  for (split(k, <f64>m * 4); part(); )
    for (let i: usize = 0; i < <usize>m; i++) {
      let sum: f32 = 0;
      for (let p = first; p < last; p++) sum += load<f32>(x + ((i * <usize>k + <usize>p) << 2));
      store<f32>(y + (i << 2), load<f32>(y + (i << 2)) + sum);
    }
}
`;

const M = 300;
const K = 1000;
const THREADS = 3;

writeFileSync(join(folder, "planted.ts"), SOURCE);
const asc = join(
  dirname(createRequire(join(root, "package.json")).resolve("assemblyscript/package.json")),
  "bin/asc.js",
);
const FLAGS = "-O3 --noAssert --runtime stub --importMemory --initialMemory 1 --maximumMemory 65536 --enable threads";
execFileSync(process.execPath, [asc, "planted.ts", "-o", "planted.wasm", ...FLAGS.split(" ")], { cwd: folder });
const module = await WebAssembly.compile(sharing(new Uint8Array(readFileSync(join(folder, "planted.wasm")))));

type Exports = Record<string, (...args: unknown[]) => number>;
const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared: true });
const exports = new WebAssembly.Instance(module, { env: { memory } }).exports as Exports;
const names = Object.keys(exports);
const [control, y, x, room] = [65536, 2 * 65536, 3 * 65536, 3 * 65536 + 4 * M * K];
new Float32Array(memory.buffer, x, M * K).set(randomArray(1, M * K));

/** What a kernel makes of x, by however many threads compute. */
function computed(name: string, call: (...args: number[]) => unknown): string {
  const out = new Float32Array(memory.buffer, y, M).fill(0);
  call(y, x, M, K, room);
  return `${name}: ${out.join()}`;
}

const one = new Map(names.map((name) => [name, ""]));
for (const name of ["right", "sharesItsRoom", "cutsItsSum"]) one.set(name, computed(name, exports[name]!));
const some = new Threads(THREADS, exports as never, memory, control);
await some.start(module, memory);

/** Whether the bits were those of one thread in each of many calls. */
function isRight(name: string): boolean {
  for (let call = 0; call < 300; call++) {
    const result = computed(name, (...args) => some.call(exports[name]!, names.indexOf(name), args));
    if (result !== one.get(name)) return false;
  }
  return true;
}

test("a kernel by the rules has the bits of one thread", () => assert(isRight("right")));
test("a sum that is cut has not", () => assert(!isRight("cutsItsSum")));
test("working space that threads share is found out", () => assert(!isRight("sharesItsRoom")));
test("and the threads end", () => some.end());

test.run();

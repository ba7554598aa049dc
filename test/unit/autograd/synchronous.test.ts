/**
 * What is asynchronous or lazy is refused where a function must be done when it returns, and leaves no rejection to
 * nobody.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  gradientCheckpoint,
  init,
  memoryStats,
  nn,
  noGrad,
  ones,
  peft,
  scope,
  StateError,
  tensor,
  type Tensor,
} from "../../../src/index.js";
import { enableGrad, isRecording } from "../../../src/autograd/tape.js";

await init();

class Model extends nn.Module {
  fc = new nn.Linear(2, 2);
}
const adapted = peft.getLoraModel(new Model(), { targetModules: ["fc"] }, "a");

const callers: Record<string, (fn: () => unknown) => unknown> = {
  scope: (fn) => scope(fn),
  noGrad: (fn) => noGrad(fn),
  enableGrad: (fn) => enableGrad(fn),
  gradientCheckpoint: (fn) => gradientCheckpoint(fn as () => Tensor),
  disableAdapter: (fn) => adapted.disableAdapter(fn),
  withAdapterNames: (fn) => adapted.withAdapterNames(["a"], fn),
};

const later = (): Promise<number> => Promise.reject(new Error("nobody's"));
function* numbers(): Generator<number> {
  yield 1;
}

/** What is refused by what it is, before it runs. */
const functions: Record<string, () => unknown> = {
  "an async function": async () => {
    throw new Error("it ran");
  },
  "a generator function": function* () {
    throw new Error("it ran");
  },
  "an async generator function": async function* () {
    throw new Error("it ran");
  },
};
const results: Record<string, () => unknown> = {
  "a promise": later,
  "a promise in an object": () => ({ a: 1, p: later() }),
  "promises in an array": () => [later(), later()],
  "a promise deep down": () => ({ a: [{ p: later() }] }),
  "a thenable": () => ({
    then(_: unknown, reject: (e: Error) => void) {
      reject(new Error("nobody's"));
    },
  }),
  "a thenable that throws": () => ({
    then() {
      throw new Error("at once");
    },
  }),
  "a generator": () => numbers(),
  "an iterator": () => [1].values(),
  "a map's iterator": () => new Map().entries(),
  "an iterator in an object": () => ({ i: numbers() }),
  "an async iterator": () => ({ [Symbol.asyncIterator]: () => ({ next: later }) }),
};

for (const [name, call] of Object.entries(callers)) {
  test(`${name}: only functions that are done when they return`, async () => {
    const rejections: unknown[] = [];
    const note = (e: unknown): void => {
      rejections.push(e);
    };
    // Where there is no such event the rejection would end the test otherwise.
    const host = (
      globalThis as {
        process?: {
          on?(name: string, f: (e: unknown) => void): void;
          off?(name: string, f: (e: unknown) => void): void;
        };
      }
    ).process;
    host?.on?.("unhandledRejection", note);
    const before = memoryStats();
    for (const [what, fn] of Object.entries({ ...functions, ...results })) {
      assert.throws(
        () => call(() => fn()),
        (e: Error) => e instanceof StateError && e.message.includes(name) && e.message.includes("synchronous"),
        what,
      );
    }
    for (const [what, fn] of Object.entries(functions))
      assert.throws(
        () => call(fn),
        (e: Error) => e instanceof StateError && e.message.includes("Nothing was run"),
        what,
      );
    for (const other of [undefined, null, 3, "fn", {}, tensor([1])]) {
      assert.throws(
        () => call(other as () => unknown),
        (e: Error) => e instanceof ArgumentError && e.message.includes(`${name}: fn must be a function`),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
    host?.off?.("unhandledRejection", note);
    assert.deepEqual(rejections, []);
    assert.equal(isRecording(), true);
    assert.equal(memoryStats().blocks, before.blocks + 1);
  });
}

test("what is there already may be returned, in whatever shape", () => {
  const ring: unknown[] = [];
  ring.push(ring);
  const values = [
    1,
    "a",
    null,
    undefined,
    [1, [2]],
    { a: { b: 1 } },
    new Map([[1, 2]]),
    new Set([1]),
    new Float32Array(3),
    "text",
    () => 1,
    new Date(),
    ring,
    { next: 1 },
    { then: 1 },
  ];
  for (const value of values)
    for (const call of [scope, noGrad, enableGrad])
      assert.equal(
        call(() => value),
        value,
      );
  const t = scope(() => ({ y: ones([2]), n: 1 }));
  assert.equal(t.y.disposed, false);
});

test.run();

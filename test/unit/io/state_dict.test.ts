/** io.saveStateDict and io.loadStateDict: a module of one's own, to the bit. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  FileError,
  FormatError,
  init,
  io,
  lora,
  manualSeed,
  nn,
  ops,
  optim,
  tensor,
} from "../../../src/index.js";

await init();
test.after(() => io.memoryFiles.clear());

class Net extends nn.Module {
  embed = new nn.Linear(3, 4);
  head = new lora.Linear(4, 2, { r: 2 });
}
const PATH = "memory:net.safetensors";
const bits = (state: Map<string, { data: Float32Array }>) =>
  [...state].map(([key, { data }]) => [key, ...new Uint32Array(data.slice().buffer)]).sort();

test("a module's state comes back to the bit, into another one of the kind", () => {
  manualSeed(1);
  const net = new Net();
  net.embed.weight.set(Float32Array.of(-0, 1e-45, 3.4e38, ...net.embed.weight.data.subarray(3)));
  io.saveStateDict(PATH, net.stateDict());
  const other = new Net();
  const state = io.loadStateDict(PATH);
  assert.notDeepEqual(bits(other.stateDict()), bits(net.stateDict()));
  other.loadStateDict(state);
  assert.deepEqual(bits(other.stateDict()), bits(net.stateDict()));
  assert.deepEqual(state.get("embed.weight")!.shape, [4, 3]);
});

test("an optimiser's state, and none at all", () => {
  const net = new Net();
  const optimizer = new optim.AdamW(net.parameters());
  ops.mseLoss(net.head.forward(net.embed.forward(tensor([1, 2, 3], [1, 3]))), tensor([1, 1], [1, 2])).backward();
  optimizer.step();
  io.saveStateDict(PATH, optimizer.stateDict());
  assert.deepEqual(bits(io.loadStateDict(PATH)), bits(optimizer.stateDict()));
  io.saveStateDict(PATH, new Map());
  assert.equal(io.loadStateDict(PATH).size, 0);
});

test("files of Python, which have no digest and other dtypes", () => {
  io.memoryFiles.set(
    PATH,
    io.serializeSafetensors([{ name: "w", dtype: "BF16", shape: [2], data: Float32Array.of(1, -2) }], { format: "pt" }),
  );
  assert.deepEqual(io.loadStateDict(PATH), new Map([["w", { shape: [2], data: Float32Array.of(1, -2) }]]));
});

test("what is not finite, or no state, is not written", () => {
  io.saveStateDict(PATH, new Net().stateDict());
  const before = io.memoryFiles.get(PATH);
  for (const value of [NaN, Infinity, -Infinity]) {
    assert.throws(
      () => io.saveStateDict(PATH, new Map([["a.w", { shape: [3], data: Float32Array.of(0, 1, value) }]])),
      (error: unknown) =>
        error instanceof ArgumentError && error.message.includes('"a.w"') && error.message.includes("position 2"),
    );
    assert.throws(
      () =>
        io.saveLoralib(
          PATH,
          new Map([
            ["lora_A", { shape: [1, 1], data: Float32Array.of(value) }],
            ["lora_B", { shape: [1, 1], data: Float32Array.of(0) }],
          ]),
        ),
      ArgumentError,
    );
  }
  for (const state of [
    null,
    undefined,
    {},
    new Net(),
    [["a", 1]],
    new Map([["a", null]]),
    new Map([["a", { shape: [1], data: [1] }]]),
    new Map([["a", { data: new Float32Array(1) }]]),
  ]) {
    assert.throws(() => io.saveStateDict(PATH, state as never), ArgumentError);
  }
  assert.equal(io.memoryFiles.get(PATH), before);
});

test("a flipped bit is noticed, a missing file named", () => {
  io.saveStateDict(PATH, new Net().stateDict());
  const bytes = io.memoryFiles.get(PATH)!.slice();
  bytes[bytes.length - 2]! ^= 4;
  io.memoryFiles.set(PATH, bytes);
  assert.throws(
    () => io.loadStateDict(PATH),
    (error: unknown) => error instanceof FormatError && error.message.includes("SHA-256"),
  );
  assert.throws(() => io.loadStateDict("memory:none"), FileError);
});

test.run();

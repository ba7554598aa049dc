/**
 * The fuzzers' harness: planted faults of every kind are found, named by their input, and the run goes on behind them.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init } from "../../src/index.js";
import { Random } from "../fuzz/random.js";
import { referenceReads } from "../fuzz/safetensors_reference.js";
import { fromText, inputAt, toText } from "../fuzz/target.js";
import { TARGETS } from "../fuzz/targets/index.js";
import { planted } from "../fuzz/targets/planted.js";
import { watch } from "../fuzz/watch.js";

await init();

test("an alien error, a broken promise, a leak, a hang, a changed prototype, much memory: all are found", async () => {
  let progress = 0;
  const { inputs, accepted, refused, faults } = await watch(planted, {
    seed: 0,
    inputs: planted.inputs,
    mostFaults: 99,
    progress: (done) => {
      progress = done;
    },
  });
  assert.equal(inputs, planted.inputs);
  assert.equal(progress, planted.inputs);
  assert.equal(accepted, 2);
  assert.deepEqual(refused, { FormatError: 1 });
  const expected = [
    [2, /^TypeError: not ours/],
    [3, /^Finding: does not hold/],
    [4, /^Finding: 128 bytes of linear memory are left/],
    [5, /^hangs: more than 1000 ms/],
    [6, /^Finding: Object\.prototype/],
    [7, /^Finding: \d+ bytes were taken/],
  ] as const;
  assert.deepEqual(
    faults.map(({ index }) => index),
    expected.map(([index]) => index),
  );
  for (const [i, [, title]] of expected.entries()) assert.match(faults[i]!.title, title);
});

test("an input is what target, seed and number say, and a corpus keeps it", async () => {
  for (const target of TARGETS.filter(({ names }) => !names)) {
    await target.prepare?.();
    assert.deepEqual(inputAt(target, 3, 5), inputAt(target, 3, 5), target.name);
    assert.notDeepEqual(inputAt(target, 3, 5), inputAt(target, 4, 5), target.name);
    for (let i = 0; i < 20; i++)
      assert.deepEqual(fromText(toText(inputAt(target, 0, i))), inputAt(target, 0, i), target.name);
  }
  const draws = Array.from({ length: 4000 }, (_, i) => new Random("x", 0, i).below(4));
  for (const n of [0, 1, 2, 3])
    assert.ok(Math.abs(draws.filter((d) => d === n).length - 1000) < 150, `${n} is drawn as often as others at first`);
});

test("the checker of safetensors decides as the reference does", () => {
  const file = (header: string, data = 0): Uint8Array => {
    const bytes = new Uint8Array(8 + Buffer.byteLength(header) + data);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(Buffer.byteLength(header)), true);
    bytes.set(Buffer.from(header), 8);
    return bytes;
  };
  // What safetensors 0.8.0 answers.
  const cases: [taken: boolean, file: Uint8Array][] = [
    [true, file("{}")],
    [true, file(' {"__metadata__":null}\n')],
    [true, file('{"a":["U8",[1],[0,1]]}', 1)],
    [true, file('{"a":{"dtype":{"F32":null},"shape":[],"data_offsets":[0,4],"x":[{}]}}', 4)],
    [
      true,
      file(
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
      ),
    ],
    [true, file('{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', 1)],
    [false, file('{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}', 2)],
    [false, file("[]")],
    [false, file("{}x")],
    [false, file("{}", 1)],
    [false, file('{"__metadata__":{"a":1}}')],
    [false, file('{"__metadata__":null,"__metadata__":{}}')],
    [false, file('{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', 1)],
    [false, file('{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}')],
    [false, file('{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}')],
    [false, file('{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')],
    [false, file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":${"[".repeat(200)}${"]".repeat(200)}}}`)],
    [true, file('{"a":{"dtype":"U8","shape":[4294967296,0],"data_offsets":[0,0]}}')],
    [false, file('{"a":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}')],
    [false, file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2)],
  ];
  for (const [taken, bytes] of cases) assert.equal(referenceReads(bytes).taken, taken, Buffer.from(bytes).toString());
});

test.run();

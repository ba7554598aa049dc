/** SHA-256 against the vectors of FIPS 180-4's examples and NIST's long message; parts against the whole. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { digestOfTensors, Sha256 } from "../../../src/io/digest.js";

const sha256 = (data: ArrayBufferView | string): string => new Sha256().update(data).digest();

test("the examples of FIPS 180-4, the empty message, and a million times a", () => {
  assert.equal(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert.equal(
    sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
  );
  assert.equal(
    sha256(
      "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn" +
        "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
    ),
    "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
  );
  assert.equal(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  assert.equal(sha256("a".repeat(1_000_000)), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
});

test("every length around the block's end, in one piece, two or many: the platform's digest", async () => {
  for (let length = 0; length <= 200; length++) {
    const bytes = Uint8Array.from({ length }, (_, i) => i * 7 + length);
    const single = new Sha256();
    for (const byte of bytes) single.update(Uint8Array.of(byte));
    const whole = sha256(bytes);
    const middle = (length * 5) >> 3;
    assert.equal(single.digest(), whole);
    assert.equal(new Sha256().update(bytes.subarray(0, middle)).update(bytes.subarray(middle)).digest(), whole);
    // A page that is not served securely has no crypto.subtle.
    if (globalThis.crypto?.subtle) {
      const expected = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
      assert.equal(whole, Array.from(expected, (b) => b.toString(16).padStart(2, "0")).join(""));
    }
  }
});

test("a typed array counts as its bytes, wherever it begins; text as UTF-8", () => {
  const floats = Float32Array.of(9, 1, -2.5, 3e38);
  assert.equal(sha256(floats.subarray(1)), sha256(new Uint8Array(floats.buffer.slice(4))));
  assert.equal(
    sha256("Ishmael \u{1f40b}"),
    sha256(Uint8Array.of(73, 115, 104, 109, 97, 101, 108, 32, 0xf0, 0x9f, 0x90, 0x8b)),
  );
});

test("digestOfTensors: the order does not count, everything else does, the entry digest excepted", () => {
  const a = { name: "a", dtype: "F32", shape: [2], bytes: Float32Array.of(1, 2) };
  const b = { name: "b", dtype: "F32", shape: [0], bytes: new Float32Array(0) };
  const whole = digestOfTensors([a, b], { format: "pt", x: "y" });
  assert.match(whole, /^[0-9a-f]{64}$/);
  assert.equal(digestOfTensors([b, a], { x: "y", format: "pt", digest: "any" }), whole);
  const others = [
    digestOfTensors([a], { format: "pt", x: "y" }),
    digestOfTensors([{ ...a, name: "c" }, b], { format: "pt", x: "y" }),
    digestOfTensors([{ ...a, dtype: "I32" }, b], { format: "pt", x: "y" }),
    digestOfTensors([{ ...a, shape: [1, 2] }, b], { format: "pt", x: "y" }),
    digestOfTensors([{ ...a, bytes: Float32Array.of(1, -2) }, b], { format: "pt", x: "y" }),
    digestOfTensors([a, b], { format: "pt", x: "z" }),
    digestOfTensors([a, b], { format: "pt" }),
    digestOfTensors([a, b], {}),
  ];
  assert.equal(new Set([whole, ...others]).size, others.length + 1);
});

test.run();

/** What stands between the kernels' file and a module says what it met, and the way out. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { EngineError } from "../../../src/index.js";
import { compile, inPackage } from "../../../src/runtime/compile.js";
import { sharing } from "../../../src/runtime/sharing.js";
import { BufferLike } from "../../support/buffer_like.js";

const bytes = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(new TextEncoder().encode(text));
const WASM = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

for (const [what, contents, named] of [
  ["a page that a server answers for every path", "<!doctype html><title>404</title>", "an HTML page"],
  ["the same behind white space", "\r\n  <html>", "an HTML page"],
  ["an empty answer", "", "empty"],
  ["a text", "version https://git-lfs.github.com/spec/v1", "something else"],
  ["a module cut off in its first word", "\0as", "something else"],
] as const) {
  test(`instead of the kernels: ${what}`, () =>
    assert.rejects(
      compile(bytes(contents), "https://host/a.wasm", { fused: false, shared: false }),
      (e: unknown) =>
        e instanceof EngineError &&
        e.message.includes("https://host/a.wasm") &&
        e.message.includes(named) &&
        e.message.includes("wasm-lora/inline"),
    ));
}

test("kernels are made shared in a copy: the same bytes serve one thread, then several, then one", () => {
  const memory = [..."\0asm\u0003env\u0006memory"].map((c) => c.charCodeAt(0));
  const own = BufferLike.from([...memory, 2, 1, 9]);
  assert.deepEqual([...sharing(own)], [...memory, 2, 3, 9]);
  assert.deepEqual([...own], [...memory, 2, 1, 9]);
});

/** What engines say, to the word, where a policy or a host forbids to compile. */
const REFUSALS = {
  "'wasm-unsafe-eval'": [
    "WebAssembly.compile(): Refused to compile or instantiate WebAssembly module because 'unsafe-eval' is not an " +
      "allowed source of script in the following Content Security Policy directive: \"script-src 'self'\"",
    "WebAssembly.compile(): Compiling or instantiating WebAssembly module violates the following Content Security " +
      "policy directive because neither 'wasm-eval' nor 'unsafe-eval' is an allowed source of script",
    "call to WebAssembly.compile() blocked by CSP",
    "Refused to create a WebAssembly object because 'unsafe-eval' or 'wasm-unsafe-eval' is not an allowed source " +
      "of script in the following Content Security Policy directive: \"script-src 'self'\".",
  ],
  "wasm-lora/wasm-lora.wasm": ["WebAssembly.compile(): Wasm code generation disallowed by embedder"],
  SIMD: ["WebAssembly.Module doesn't validate: invalid opcode 253, in function at index 3"],
};

for (const [advice, messages] of Object.entries(REFUSALS)) {
  test(`a refusal to compile says ${advice}`, async () => {
    const original = WebAssembly.compile;
    try {
      for (const message of messages) {
        WebAssembly.compile = () => Promise.reject(new WebAssembly.CompileError(message));
        await assert.rejects(
          compile(WASM, "here", { fused: false, shared: false }),
          (e: unknown) => e instanceof EngineError && e.message.includes(advice) && e.message.includes(message),
        );
      }
    } finally {
      WebAssembly.compile = original;
    }
  });
}

test("a URL that cannot be made, since a bundle has no import.meta.url, names the way out", () => {
  for (const base of [undefined, ""]) {
    assert.throws(
      () => inPackage(() => new URL("../build/wasm-lora.wasm", base)),
      (e: unknown) =>
        e instanceof EngineError &&
        e.code === "ERR_ENGINE" &&
        e.message.includes("import.meta.url") &&
        e.message.includes("wasm-lora/inline"),
    );
  }
  assert.equal(inPackage(() => new URL("a/b.wasm", "https://host/c/")).href, "https://host/c/a/b.wasm");
});

test.run();

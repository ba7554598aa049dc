/** What must not be in the build or the sources, or engines would differ; and that the build stays small. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "uvu";
import binaryen from "binaryen";
import { ROOT } from "../../support/root.js";

const wasm = readFileSync(new URL("build/wasm-lora.wasm", ROOT));
const fused = readFileSync(new URL("build/wasm-lora.fused.wasm", ROOT));

test("the wasm imports memory and nothing else", () => {
  const module = new WebAssembly.Module(new Uint8Array(wasm));
  assert.deepEqual(WebAssembly.Module.imports(module), [{ module: "env", name: "memory", kind: "memory" }]);
});

test("the wasm has SIMD and no relaxed SIMD", () => {
  const text = binaryen.readBinary(wasm).emitText();
  assert.match(text, /f32x4\.mul/);
  assert.doesNotMatch(text, /relaxed/);
});

test("the fused build: one relaxed instruction, no import more, its own tile, an export that tells it", () => {
  const module = binaryen.readBinary(fused);
  const names = (of: binaryen.Module): string[] =>
    Array.from({ length: of.getNumExports() }, (_, i) => binaryen.getExportInfo(of.getExportByIndex(i)).name)
      .filter((name) => !name.startsWith("micro"))
      .sort();
  const text = module.emitText();
  assert.deepEqual([...new Set(text.match(/\S*relaxed_\w+/g))], ["(f32x4.relaxed_madd"]);
  assert.deepEqual(
    text.match(/\(import .*/g)?.map((line) => line.split(" ").slice(1, 3).join(" ")),
    ['"env" "memory"'],
  );
  assert.deepEqual(names(module), [...names(binaryen.readBinary(wasm)), "fuses"].sort());
});

test("each wasm is at most 95 KB", () => {
  for (const { length } of [wasm, fused]) assert(length <= 95 * 1024, `${length} bytes`);
});

test("the inner loop of the 2x16 tile is eight steps of 8 products, 8 sums, 2 splats and 4 loads", () => {
  const text = binaryen.readBinary(wasm).emitText();
  const tile = {
    "(f32x4.mul": 64,
    "(f32x4.add": 64,
    "(v128.load32_splat": 16,
    "(v128.load ": 32,
    "(v128.load\n": 0,
    "(v128.store": 0,
  };
  const found = innermostLoops(text.replace(/\(v128\.load( offset=\d+)?\n/g, "(v128.load \n")).filter((body) =>
    Object.entries(tile).every(([what, times]) => body.split(what).length - 1 === times),
  );
  assert(found.length >= 1, "no innermost loop has that make-up");
});

/** Bodies of the loops that hold no other loop. */
function innermostLoops(text: string): string[] {
  return text
    .split("(loop")
    .slice(1)
    .map((rest) => {
      let depth = 1;
      let end = 0;
      for (; depth > 0 && end < rest.length; end++) depth += rest[end] === "(" ? 1 : rest[end] === ")" ? -1 : 0;
      return end < rest.length ? rest.slice(0, end) : "";
    });
}

/** Host maths whose last bits are the engine's own affair; sqrt, abs, floor and their like are exact. */
const HOST_MATHS = /Math\.(expm?1?|log(1p|2|10)?|pow|a?(sin|cos|tan)h?|atan2|cbrt|hypot|random)\b|\*\*[^/*]|JSMath/;

for (const folder of ["src", "assembly"]) {
  test(`no host maths in ${folder}/`, () => {
    for (const file of readdirSync(new URL(folder, ROOT), { recursive: true, encoding: "utf8" })) {
      if (!file.endsWith(".ts")) continue;
      const code = readFileSync(new URL(`${folder}/${file}`, ROOT), "utf8")
        .replace(/\/\*[^]*?\*\//g, "")
        .replace(/\/\/.*/g, "");
      // AssemblyScript's NativeMath is a deterministic port; its host maths is called JSMath.
      assert.doesNotMatch(code.replaceAll("NativeMath", "Ported"), HOST_MATHS, `${folder}/${file}`);
    }
  });
}

test.run();

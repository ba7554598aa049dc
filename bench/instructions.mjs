/**
 * What the multiplying loops of build/wasm-lora.wasm consist of, where timing is noisy: instructions of one turn, by
 * kind. Only innermost loops with at least four vector products and as many additions are multiply-add loops; locals
 * and constants are left out, since engines keep them in registers. "All" counts vector and scalar arithmetic, loads,
 * stores and branches for one vector multiply-add, which has two instructions itself: 2 is the wall.
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));
const KINDS = {
  mul: /^f32x4\.mul$/,
  add: /^f32x4\.add$/,
  splat: /^v128\.load32_splat$|^f32x4\.splat$/,
  load: /^v128\.load$/,
  store: /^v128\.store$/,
  shuffle: /^i8x16\.shuffle$|_lane$/,
  scalar: /^[if](32|64)\.(?!const)/,
  branch: /^br|^if$|^select$/,
};

/** The innermost loops of a module in text form: { kind: instructions }. */
function innermostLoops(text) {
  const loops = [];
  const stack = [];
  for (const [token, name] of text.matchAll(/\(([\w.]+)|\)/g)) {
    if (token === ")") {
      const node = stack.pop();
      if (node?.name === "loop" && !node.nested) loops.push(node.counts);
      continue;
    }
    const loop = stack.findLast((node) => node.name === "loop");
    const kind = Object.keys(KINDS).find((kind) => KINDS[kind].test(name));
    if (loop && kind) loop.counts[kind]++;
    if (name === "loop") for (const node of stack) node.nested = true;
    stack.push({
      name,
      nested: false,
      counts: name === "loop" ? Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, 0])) : null,
    });
  }
  return loops;
}

const text = execFileSync(
  process.execPath,
  [`${root}node_modules/binaryen/bin/wasm-dis`, `${root}build/wasm-lora.wasm`, "--all-features"],
  { encoding: "utf8", maxBuffer: 1 << 28 },
);
const rows = innermostLoops(text)
  .filter(({ mul, add }) => mul >= 4 && mul === add)
  .map((counts) =>
    [
      ...Object.values(counts),
      (Object.values(counts).reduce((sum, count) => sum + count) / counts.mul).toFixed(2),
    ].join(" | "),
  );
console.log(
  `| loops | ${Object.keys(KINDS).join(" | ")} | all / multiply-add ` +
    `|\n|---:|${"---:|".repeat(Object.keys(KINDS).length + 1)}`,
);
for (const row of [...new Set(rows)]) console.log(`| ${rows.filter((other) => other === row).length} | ${row} |`);

/**
 * asc, with loops unrolled: what stands between `// unroll N` and `// end of unroll` is compiled N times over, STEP
 * being 0, 1, ... N - 1. AssemblyScript has no macros, and Binaryen's unrolling would come with its reordering.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import asc from "assemblyscript/asc";

const UNROLL = /^ *\/\/ unroll (\d+)\b.*\n([^]*?)^ *\/\/ end of unroll\n/gm;

function readFile(name, base) {
  let text;
  try {
    text = readFileSync(resolve(base, name), "utf8");
  } catch {
    return null; // asc tries several places for an import.
  }
  return text.replace(UNROLL, (_, times, body) =>
    Array.from({ length: times }, (_, step) => body.replaceAll("STEP", step)).join(""),
  );
}

const { error } = await asc.main(process.argv.slice(2), { readFile, stdout: process.stdout, stderr: process.stderr });
if (error) process.exitCode = 1;

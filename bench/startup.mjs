/** start.mjs for each engine that trains, in processes of their own. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { JAX, OURS, TFJS } from "./engines.mjs";
import { median } from "./median.mjs";

const script = fileURLToPath(new URL("start.mjs", import.meta.url));

/** { engine: the medians of what start.mjs prints } */
export function startOf({ quick }, progress) {
  const runs = Array.from({ length: quick ? 3 : 7 }, (_, round) =>
    [OURS, TFJS, JAX].map((name, at) => {
      progress(3 * round + at, 3 * (quick ? 3 : 7), name);
      return JSON.parse(
        execFileSync(process.execPath, [script, name], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
          .trimEnd()
          .split("\n")
          .pop(),
      );
    }),
  );
  return Object.fromEntries(
    [OURS, TFJS, JAX].map((name, at) => [
      name,
      Object.fromEntries(Object.keys(runs[0][at]).map((key) => [key, median(runs.map((round) => round[at][key]))])),
    ]),
  );
}

// The long forms of tests that try a few cases each time: thirty kills of each command, 200 flipped bits a region, a
// full disk, four threads. Prints what came of them; several minutes. (The full disk takes root, to mount a small one.)
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const runner = fileURLToPath(new URL("test.mjs", import.meta.url));
process.exitCode =
  spawnSync(process.execPath, [runner, "--output", "--limit", "3600", "cli/kill", "cli/checkpoint"], {
    stdio: "inherit",
    env: { ...process.env, WASM_LORA_PROOFS: "1" },
  }).status ?? 1;

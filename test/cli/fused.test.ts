/** A run ends in the arithmetic that it began in: its checkpoint says which, and --resume holds it. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { checkpointPath, readCheckpoint, saveCheckpoint } from "../../src/cli/checkpoint.js";
import { finetuneWith, refuse, succeed, temporaryFolder } from "../support/cli.js";
import { TEXT, writeTinyModel } from "../support/tiny_model.js";

const folder = temporaryFolder();
const TINY = ["--prompt", "call", "--seq", "16", "--batch", "1", "--r", "1", "--steps", "2"];
const finetune = finetuneWith("--model", "m", "--data", "t.txt", ...TINY);
await writeTinyModel(join(folder, "m"));
writeFileSync(join(folder, "t.txt"), TEXT);

test("--resume refuses the other arithmetic by name", async () => {
  await succeed(folder, finetune("out"));
  const out = join(folder, "out");
  saveCheckpoint(out, { ...readCheckpoint(checkpointPath(out)), arithmetic: "fused" }, false);
  await refuse(folder, finetune("out", "--resume"), "ArgumentError", "--resume goes on in fused arithmetic", "--fused");
});

test.run();

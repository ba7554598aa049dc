/** A whole `wasm-lora finetune` with dropout, from file to file: SHA-256 of the adapter and the losses. */
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { io } from "../../dist/src/index.js";
import { root } from "./bundle.mjs";

/** The adapter's file without its digests, which say the same again. */
function asPeftWrites(bytes) {
  const { tensors } = io.parseSafetensors(bytes);
  return io.serializeSafetensors(
    [...tensors.values()].map((t) => ({ name: t.name, dtype: t.dtype, shape: t.shape, data: t.bytes })),
    { format: "pt" },
  );
}

export async function finetune({ command, args }) {
  const work = mkdtempSync(join(tmpdir(), "wasm-lora-matrix-"));
  try {
    const data = join(work, "moby-dick.txt");
    const out = join(work, "out");
    execFileSync(process.execPath, [join(root, "scripts/moby-dick.mjs"), data]);
    await promisify(execFile)(command, [
      ...args,
      join(root, "dist/src/cli/main.js"),
      "finetune",
      "--data",
      data,
      "--out",
      out,
      "--steps",
      "20",
      "--batch",
      "4",
      "--dropout",
      "0.05",
    ]);
    return createHash("sha256")
      .update(asPeftWrites(readFileSync(join(out, "adapter/adapter_model.safetensors"))))
      .update(JSON.stringify(JSON.parse(readFileSync(join(out, "result.json"), "utf8")).losses))
      .digest("hex");
  } finally {
    rmSync(work, { recursive: true });
  }
}

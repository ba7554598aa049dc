/** wasm-lora export */
import { existsSync, readdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { exportAdapter, type ExportTarget } from "../export/index.js";
import { DTYPE_NAMES } from "../export/targets.js";
import { ensureWritableDirectory, writeAtomic, writeTogether } from "../io/files.js";
import { init } from "../runtime/engine.js";
import { FileError } from "../runtime/errors.js";
import { count, megabytes, oneLine } from "./format.js";
import { findFolder } from "./hub.js";
import { modelFor } from "./places.js";

interface ExportCommand {
  adapter: string;
  base?: string | undefined;
  to: ExportTarget;
  dtype: string;
  from?: string | undefined;
  out: string;
  offline?: boolean | undefined;
}

/** How a type of 16 bits rounds, as the commands say it. */
export const ROUNDING = "rounded to nearest, ties to even";

export async function exportCommand(options: ExportCommand): Promise<void> {
  const { to, dtype, out, from } = options;
  const { path: adapter } = await findFolder("export", options.adapter, "adapter", options);
  const base = await modelFor("export", {
    model: options.base,
    adapter,
    option: "--base",
    offline: options.offline,
  });
  const isFile = to === "gguf" && /\.gguf$/i.test(out);
  refuseOccupied(out, isFile);
  await init();
  const { files, modules, folded, notes, largestDifference, largestUpdate } = exportAdapter(adapter, {
    to,
    base,
    dtype: DTYPE_NAMES[dtype],
    from,
  });
  if (isFile) {
    ensureWritableDirectory(dirname(out));
    writeAtomic(out, files.get("adapter.gguf")!);
  } else {
    ensureWritableDirectory(out);
    writeTogether(Array.from(files, ([name, bytes]) => ({ path: `${out}/${name}`, bytes })));
  }
  console.log(`Exported ${oneLine(adapter)} for ${to}: ${count(modules)} modules, ${dtype}.`);
  for (const [name, bytes] of files)
    console.log(`  ${oneLine(isFile ? out : `${out}/${name}`)}  ${megabytes(bytes.length)} MB`);
  if (folded > 0) console.log(`${count(folded)} have their own scaling in B, since ${to} knows one for all modules.`);
  console.log(
    `Read back: the update differs by at most ${shown(largestDifference)} where it is up to ${shown(largestUpdate)}` +
      `${dtype === "f32" ? "" : ` (${dtype}, ${ROUNDING})`}.`,
  );
  for (const note of notes) console.log(note);
}

function shown(value: number): string {
  return value === 0 ? "0" : value.toExponential(1);
}

/** Nothing is overwritten: a file must be new, a folder new or empty. */
function refuseOccupied(out: string, isFile: boolean): void {
  if (!existsSync(out)) return;
  if (isFile || !statSync(out).isDirectory())
    throw new FileError(`export: --out ${out} is there already; name another, or remove it first.`);
  const [first] = readdirSync(out);
  if (first !== undefined)
    throw new FileError(
      `export: --out ${out} is not empty (it holds ${oneLine(first)}); name a new folder, or empty it first.`,
    );
}

/** Commands to paste into a shell: what a run tells its user to do next. */
import { delimiter, dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { printable } from "../runtime/printable.js";

/**
 * As a word of a POSIX shell. What is in it (a checkpoint's prompt is a stranger's) must neither run nor act on the
 * terminal.
 */
export function shellWord(text: string): string {
  if (/^[\w./:@%+,=-]+$/.test(text)) return text;
  // In single quotes nothing has a meaning but the quote itself.
  if (printable(text) === text && !/[\n\t]/.test(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  // Control characters by number, as bash, zsh and ksh read them.
  const escaped = printable(text.replace(/[\\']/g, "\\$&")).replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  return `$'${escaped}'`;
}

/**
 * How this program was started, for lines to paste: by npx where npm knows the name, by its file where nothing does.
 */
export function programName(
  script = process.argv[1] ?? "wasm-lora",
  path = process.env["PATH"] ?? "",
  folder = process.cwd(),
  startedByNpm = process.env["npm_command"] !== undefined,
): string {
  const isLocal = /[\\/]node_modules[\\/]\.bin[\\/]/.test(script);
  if (
    !isLocal &&
    !startedByNpm &&
    path.split(delimiter).some((entry) => entry !== "" && resolve(entry) === dirname(resolve(script)))
  )
    return "wasm-lora";
  const fromPackage = relative(fileURLToPath(new URL("../../../", import.meta.url)), folder);
  if (isLocal || startedByNpm || !/^\.\.|^([a-z]:)?[\\/]/i.test(fromPackage)) return "npx wasm-lora";
  return `node ${shellWord(script)}`;
}

/** A stack as a reader of the sources wants it. */
import { existsSync, readFileSync } from "node:fs";
import { SourceMap } from "node:module";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

const FRAMES = 8;

/** Lines of the test's and the library's TypeScript; those of Node, uvu and the runner left out. */
export function shownStack(stack, root) {
  return stack
    .split("\n")
    .filter((line) => /\bat /.test(line) && !/\(?node:|node_modules[\\/]uvu|scripts[\\/]test[\\/]/.test(line))
    .slice(0, FRAMES)
    .map((line) =>
      line.replace(/(file:\/\/[^)\s]+|\/[^)\s]+):(\d+):(\d+)/, (_, path, row, column) =>
        placed(path.startsWith("file:") ? fileURLToPath(path) : path, Number(row), Number(column), root),
      ),
    )
    .join("\n");
}

/** Where the source has it, if the file was compiled. */
function placed(path, row, column, root) {
  const map = `${path}.map`;
  if (existsSync(map)) {
    const { originalLine, originalColumn } = new SourceMap(JSON.parse(readFileSync(map, "utf8"))).findEntry(
      row - 1,
      column - 1,
    );
    if (originalLine !== undefined) {
      const source = relative(root, path)
        .replace(/^dist[\\/]/, "")
        .replace(/js$/, "ts");
      return `${source}:${originalLine + 1}:${originalColumn + 1}`;
    }
  }
  return `${path.startsWith(root) ? relative(root, path) : path}:${row}:${column}`;
}

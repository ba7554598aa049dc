/** Dotted paths of modules. */

/** Where the path and what follows each of its dots begins. */
export function starts(path: string): number[] {
  const all = [0];
  for (let dot = path.indexOf("."); dot >= 0; dot = path.indexOf(".", dot + 1)) all.push(dot + 1);
  return all;
}

/** The path and what follows each of its dots. */
export function endsOf(path: string): string[] {
  return starts(path).map((at) => path.slice(at));
}

/** What follows the path's last dot. */
export function lastName(path: string): string {
  return path.slice(path.lastIndexOf(".") + 1);
}

/** The last names of these paths, each once, without indices. */
export function lastNames(paths: readonly string[]): string[] {
  return [...new Set(paths.map(lastName))].filter((name) => !/^\d+$/.test(name));
}

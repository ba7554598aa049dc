/**
 * Imports point down. Rooms (the folders of src/ and assembly/) lie on floors, and a file imports from its own room and
 * from floors below; types count as well. No circle of files or of folders. ARCHITECTURE.md draws the same.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { test } from "uvu";
import { ROOT } from "../support/root.js";

/** Rooms, the lowest first; those on one floor do not know each other. A file beside the rooms is one of its own. */
type Floors = readonly (readonly string[])[];
const SRC: Floors = [
  ["runtime"],
  ["tensor", "io"],
  ["random", "data"],
  ["linalg", "autograd"],
  ["nn"],
  ["lora", "peft", "optim", "models"],
  ["export"],
  ["train"],
  ["cli", "index", "inline"],
];
const ASSEMBLY: Floors = [
  ["abi", "threads"],
  ["math"],
  ["gemm", "linalg", "optim", "random"],
  ["nn"],
  ["lora"],
  ["index", "probes", "fused"],
];

/** The sources by their paths. */
type Files = ReadonlyMap<string, string>;
/** What each leads to. */
type Graph = ReadonlyMap<string, ReadonlySet<string>>;

const root = fileURLToPath(ROOT);
const read = (path: string): string => readFileSync(root + path, "utf8");

function sourcesOf(folder: string): Files {
  const names = readdirSync(root + folder, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".ts"),
  );
  return new Map(names.sort().map((name) => [`${folder}/${name}`, read(`${folder}/${name}`)] as const));
}

/** Where package.json's "imports" lead, in all conditions: "#disk" -> the sources of both its files. */
const CHOSEN = new Map(
  Object.entries(JSON.parse(read("package.json")).imports as Record<string, Record<string, string>>).map(
    ([name, files]) => [name, Object.values(files).map((file) => file.replace("./dist/", "").replace(/js$/, "ts"))],
  ),
);

/** Which of the files each imports, for values or types, at its top or in between. */
function importsOf(files: Files): Graph {
  const target = (from: string, to: string): string[] => {
    if (!to.startsWith(".")) return CHOSEN.get(to) ?? [];
    const path = posix.join(posix.dirname(from), to.replace(/\.js$/, ""));
    return files.has(`${path}.ts`) ? [`${path}.ts`] : files.has(`${path}.d.ts`) ? [`${path}.d.ts`] : [path];
  };
  return new Map(
    [...files].map(([path, text]) => {
      const named = ts.preProcessFile(text, true, false).importedFiles.flatMap((to) => target(path, to.fileName));
      // What lies outside, such as the built kernels, is no source.
      return [path, new Set(named.filter((to) => to.split("/")[0] === path.split("/")[0]))];
    }),
  );
}

function joined(graph: Graph, node: (path: string) => string): Graph {
  const result = new Map<string, Set<string>>();
  for (const [path, targets] of graph) {
    const from = node(path);
    const all = result.get(from) ?? new Set();
    for (const to of targets) if (node(to) !== from) all.add(node(to));
    result.set(from, all);
  }
  return result;
}

const roomOf = (path: string): string => path.split("/")[1]!.replace(/\.ts$/, "");

/** One circle, if there is any. */
function circleIn(graph: Graph): string[] {
  const left = new Map(graph);
  const next = (node: string): string | undefined => [...left.get(node)!].find((to) => left.has(to));
  for (let before = Infinity; left.size < before; ) {
    before = left.size;
    for (const node of [...left.keys()]) if (next(node) === undefined) left.delete(node);
  }
  // From all that is left, a way leads on and on.
  const way: string[] = [];
  for (let node = left.keys().next().value; node !== undefined; node = next(node)) {
    if (way.includes(node)) return [...way.slice(way.indexOf(node)), node];
    way.push(node);
  }
  return [];
}

/** What is wrong with these files' imports, in words. */
function faultsOf(files: Files, floors: Floors): string[] {
  const graph = importsOf(files);
  const faults: string[] = [];
  const floorOf = (path: string): number => floors.findIndex((rooms) => rooms.includes(roomOf(path)));
  for (const [path, targets] of graph) {
    if (floorOf(path) < 0) faults.push(`${path}: its room is on no floor`);
    for (const to of targets) {
      if (!files.has(to)) faults.push(`${path} imports ${to}, which is not there`);
      else if (roomOf(to) !== roomOf(path) && floorOf(to) >= floorOf(path)) faults.push(`${path} imports ${to}: up`);
    }
  }
  // A folder's index.ts is its face, above all that lies in it; and a file beside the rooms lies in none.
  const folderOf = (path: string): string => (path.split("/").length > 2 ? posix.dirname(path) : path);
  const folders = joined(new Map([...graph].filter(([path]) => !path.endsWith("/index.ts"))), folderOf);
  for (const [kind, circle] of [
    ["files", circleIn(graph)],
    ["folders", circleIn(folders)],
  ] as const) {
    if (circle.length > 0) faults.push(`a circle of ${kind}: ${circle.join(" -> ")}`);
  }
  return faults;
}

/** The arrows of the mermaid picture under the heading "Imports point one way". */
function arrowsOf(text: string): Graph {
  const arrows = new Map<string, Set<string>>();
  const [, picture] = /## Imports point one way\n[^]*?```mermaid\n([^]*?)```/.exec(text)!;
  for (const [, from, to] of picture!.matchAll(/^ *(\w+) -[-.].*> (\w+)/gm)) {
    arrows.set(from!, (arrows.get(from!) ?? new Set()).add(to!));
  }
  return arrows;
}

/** Where a picture and the imports between rooms differ: arrows that nothing follows, imports along no arrows. */
function differences(arrows: Graph, rooms: Graph): string[] {
  const reached = (from: string): Set<string> => {
    const all = new Set([from]);
    for (const room of all) for (const to of arrows.get(room) ?? []) all.add(to);
    return all;
  };
  const stale = [...arrows].flatMap(([from, targets]) =>
    [...targets].filter((to) => !rooms.get(from)?.has(to)).map((to) => `${from} --> ${to} is drawn, not imported`),
  );
  const missing = [...rooms].flatMap(([from, targets]) =>
    [...targets].filter((to) => !reached(from).has(to)).map((to) => `${from} --> ${to} is imported, not drawn`),
  );
  return [...stale, ...missing];
}

/** These sources with others put in their place, or added. */
const withFiles = (files: Files, changed: Record<string, string>): Files =>
  new Map([...files, ...Object.entries(changed)]);

const src = sourcesOf("src");
const assembly = sourcesOf("assembly");

test("imports of src/ and of assembly/ point down, without circles", () => {
  assert.ok(src.size > 100 && assembly.size > 40);
  assert.deepEqual(faultsOf(src, SRC), []);
  assert.deepEqual(faultsOf(assembly, ASSEMBLY), []);
});

test("every import is seen: of types, of values for later, of a whole module, by a name of package.json", () => {
  const files = new Map([
    ["src/nn/a.ts", 'import type { B } from "./b.js";\nexport * from "./c.js";\nimport "./d.js";\n'],
    ["src/nn/b.ts", 'const c = await import("./c.js");\nexport type B = import("./d.js").D;\n'],
    ["src/nn/c.ts", '// import "./d.js";\nimport {\n  d,\n} from "./d.js";\nimport { readFileSync } from "node:fs";\n'],
    ["src/nn/d.ts", 'import { disk } from "#disk";\n'],
  ]);
  const seen = [...importsOf(files)].map(([path, targets]) => [path, [...targets].sort()]);
  assert.deepEqual(seen, [
    ["src/nn/a.ts", ["src/nn/b.ts", "src/nn/c.ts", "src/nn/d.ts"]],
    ["src/nn/b.ts", ["src/nn/c.ts", "src/nn/d.ts"]],
    ["src/nn/c.ts", ["src/nn/d.ts"]],
    ["src/nn/d.ts", ["src/io/disk.node.ts", "src/io/disk.none.ts"]],
  ]);
});

test("a planted import that points up, sideways or nowhere is found", () => {
  for (const [path, text, fault] of [
    ["src/tensor/planted.ts", 'import type { Linear } from "../nn/layers.js";', "imports src/nn/layers.ts: up"],
    ["src/optim/planted.ts", 'import { Linear } from "../lora/linear.js";', "imports src/lora/linear.ts: up"],
    ["src/nn/planted.ts", 'export * from "../index.js";', "imports src/index.ts: up"],
    ["src/nn/planted.ts", 'import "./nowhere.js";', "imports src/nn/nowhere, which is not there"],
    ["src/attic/planted.ts", "", "its room is on no floor"],
  ] as const) {
    assert.match(faultsOf(withFiles(src, { [path]: text }), SRC)[0]!, new RegExp(`^${path}:? ${fault}$`));
  }
  const up = { "assembly/math/planted.ts": 'import { sum } from "../nn/reduce";' };
  assert.equal(
    faultsOf(withFiles(assembly, up), ASSEMBLY)[0],
    "assembly/math/planted.ts imports assembly/nn/reduce.ts: up",
  );
});

test("a planted circle of files, or of folders, is found", () => {
  const files = withFiles(src, {
    "src/nn/one.ts": 'import { two } from "./two.js";',
    "src/nn/two.ts": 'import type { three } from "./three.js";',
    "src/nn/three.ts": 'export const three = () => import("./one.js");',
  });
  assert.deepEqual(faultsOf(files, SRC), [
    "a circle of files: src/nn/one.ts -> src/nn/two.ts -> src/nn/three.ts -> src/nn/one.ts",
  ]);
  const folders = withFiles(assembly, {
    "assembly/nn/a/one.ts": 'import { two } from "../b/two";',
    "assembly/nn/b/two.ts": "",
    "assembly/nn/b/one.ts": 'import { three } from "../a/three";',
    "assembly/nn/a/three.ts": "",
  });
  assert.deepEqual(faultsOf(folders, ASSEMBLY), [
    "a circle of folders: assembly/nn/a -> assembly/nn/b -> assembly/nn/a",
  ]);
});

test("ARCHITECTURE.md draws every import between rooms, and no other", () => {
  const arrows = new Map(arrowsOf(read("ARCHITECTURE.md")));
  // The kernels' own arrow leads out of src/.
  assert.deepEqual([...arrows.get("runtime")!], ["abi"]);
  arrows.delete("runtime");
  const rooms = new Map(joined(importsOf(src), roomOf));
  for (const face of ["index", "inline"]) rooms.delete(face);
  assert.deepEqual(differences(arrows, rooms), []);
});

test("a picture that lacks an import, or has one too many, is found", () => {
  const arrows = arrowsOf(
    "## Imports point one way\n\n```mermaid\nflowchart TD\n  a --> b\n  b -. types .-> c[the last]\n  a --> c\n```",
  );
  const rooms = new Map([
    ["a", new Set(["b", "c"])],
    ["b", new Set(["a"])],
    ["c", new Set<string>()],
  ]);
  assert.deepEqual(differences(arrows, rooms), ["b --> c is drawn, not imported", "b --> a is imported, not drawn"]);
});

test.run();

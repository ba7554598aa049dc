/**
 * What the site needs beyond TypeDoc: names in comments and guides become links where they name something public, the
 * long lists of a namespace are grouped by what their files are about, and links to files of the repository lead to the
 * repository.
 */
import { existsSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { CommentTag, Converter, ReflectionKind } from "typedoc";

const root = fileURLToPath(new URL("..", import.meta.url));
const REPOSITORY = "https://github.com/wasm-lora/wasm-lora/blob/main/";

/** Categories by source file, for the namespaces whose lists are long. */
const CATEGORIES = [
  ["src/runtime/errors.ts", "Errors"],
  ["src/runtime/", "Engine"],
  ["src/tensor/", "Tensors"],
  ["src/random/", "Randomness"],
  ["src/autograd/ops/arithmetic.ts", "Arithmetic"],
  ["src/autograd/ops/matmul.ts", "Arithmetic"],
  ["src/autograd/ops/elementwise.ts", "Element by element"],
  ["src/autograd/ops/arrange.ts", "Shapes"],
  ["src/autograd/ops/narrow.ts", "Shapes"],
  ["src/autograd/ops/reduce.ts", "Sums and means"],
  ["src/autograd/ops/norm.ts", "Norms and softmax"],
  ["src/autograd/ops/attention.ts", "Attention"],
  ["src/autograd/ops/loss.ts", "Losses"],
  ["src/autograd/ops/", "Layers as functions"],
  ["src/autograd/", "Gradients"],
];

/** A reflection's name as users write it. */
function pathOf(reflection) {
  if (reflection.isProject() || reflection.kindOf(ReflectionKind.Module)) return [];
  return [...pathOf(reflection.parent), reflection.name];
}

/** Everything public by its dotted name, and by its last part where that is one thing's alone. */
function namesOf(project) {
  const full = new Map();
  const last = new Map();
  for (const reflection of Object.values(project.reflections)) {
    if (
      !reflection.isDeclaration() ||
      reflection.isReference() ||
      reflection.kindOf(ReflectionKind.Module | ReflectionKind.Constructor | ReflectionKind.TypeLiteral)
    )
      continue;
    full.set(pathOf(reflection).join("."), reflection);
    if (reflection.inheritedFrom || reflection.parent.kindOf(ReflectionKind.TypeLiteral)) continue;
    last.set(reflection.name, last.has(reflection.name) ? null : reflection);
  }
  return { full, last };
}

/** What `code` in a comment of `from` names, or undefined. */
function targetOf(code, from, { full, last }) {
  const name = /^(?:await |new )?([A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*)(?:\([^()]*\))?$/.exec(code)?.[1];
  if (name === undefined) return undefined;
  for (let path = pathOf(from); ; path = path.slice(0, -1)) {
    const found = full.get([...path, name].join("."));
    if (found) return found;
    if (path.length === 0) break;
  }
  // A short word in a sentence is more often an argument's name.
  return name.length > 7 || /^[A-Z]/.test(name) ? (last.get(name) ?? undefined) : undefined;
}

function linked(parts, from, names) {
  return parts.map((part) => {
    if (part.kind !== "code" || part.text.startsWith("``")) return part;
    const text = part.text.slice(1, -1);
    const target = targetOf(text, from, names);
    return target === undefined || target === from || target === from.parent
      ? part
      : { kind: "inline-tag", tag: "@linkcode", text, target };
  });
}

/** Links to files that are no page of the site. */
function outward(parts, folder) {
  return parts.map((part) => {
    if (part.kind !== "relative-link" || part.target === undefined || /\.(svg|png)$/.test(part.text)) return part;
    const path = relative(root, join(folder, part.text));
    if (/^docs\/[^/]*(\/[^/]*)?\.md$/.test(path) || !existsSync(join(root, path))) return part;
    return { kind: "text", text: REPOSITORY + path + (part.targetAnchor ? `#${part.targetAnchor}` : "") };
  });
}

export function load(app) {
  // Before TypeDoc groups by them. A function's comment is its signature's.
  app.converter.on(
    Converter.EVENT_RESOLVE_BEGIN,
    ({ project }) => {
      for (const reflection of project.getReflectionsByKind(ReflectionKind.SomeExport)) {
        const file = reflection.sources?.[0]?.fullFileName;
        const comment = reflection.comment ?? reflection.signatures?.[0]?.comment;
        const category = reflection.kindOf(ReflectionKind.Namespace)
          ? "Namespaces"
          : file && CATEGORIES.find(([prefix]) => relative(root, file).startsWith(prefix))?.[1];
        if (category && comment)
          comment.blockTags.push(new CommentTag("@category", [{ kind: "text", text: category }]));
      }
    },
    1000,
  );
  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
    const names = namesOf(project);
    for (const reflection of Object.values(project.reflections)) {
      if (reflection.isDocument()) {
        const file = project.files.getReflectionPath(reflection);
        reflection.content = linked(
          file ? outward(reflection.content, dirname(file)) : reflection.content,
          project,
          names,
        );
      }
      const { comment } = reflection;
      if (!comment) continue;
      comment.summary = linked(comment.summary, reflection, names);
      for (const tag of comment.blockTags)
        if (tag.tag !== "@example") tag.content = linked(tag.content, reflection, names);
    }
    if (project.readme) project.readme = linked(project.readme, project, names);
  });
}

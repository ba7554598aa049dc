/**
 * An asc transform: writes src/runtime/abi.ts, the TypeScript side of the kernels' calls, once asc has compiled
 * assembly/index.ts. Types of arguments, names of fields and their places are the compiler's own; nothing is parsed
 * twice.
 *
 * A kernel whose one argument is an `@unmanaged` class (assembly/abi.ts) becomes a method that takes an object of that
 * class's fields; for each such class there is an interface, and a function that writes one into linear memory.
 */
import { writeFileSync } from "node:fs";
import { Transform } from "assemblyscript/transform";

const OUT = "src/runtime/abi.ts";
/** asc's bit for `@unmanaged`. */
const UNMANAGED = 1 << 4;
/** Arguments that a kernel may take by position. */
const MOST = 8;
/** The view that writes a field of each type, and the bytes of its elements. */
const VIEWS = {
  usize: ["i32", 4],
  i32: ["i32", 4],
  u32: ["i32", 4],
  bool: ["u8", 1],
  f32: ["f32", 4],
  f64: ["f64", 8],
};

export default class Abi extends Transform {
  afterCompile() {
    const kernels = exportsOf(this.program);
    const blocks = new Set(kernels.flatMap(({ block }) => (block ? lineage(block) : [])));
    writeFileSync(OUT, textOf(kernels, [...blocks]));
  }
}

/** Every function that assembly/index.ts exports, in its order; what governs threads is no kernel. */
function exportsOf(program) {
  const file = program.filesByName.get("assembly/index");
  return [...file.exports]
    .filter(([, element]) => element.instances && !element.internalName.startsWith("assembly/threads/"))
    .map(([name, { instances, functionTypeNode, internalName }]) => {
      const [instance] = instances.values();
      const { parameterTypes, returnType } = instance.signature;
      const [first] = parameterTypes;
      const block = first?.classReference;
      if (block && (parameterTypes.length > 1 || !block.hasDecorator(UNMANAGED)))
        throw new Error(`${internalName}: a block is an @unmanaged class, and the kernel's only argument`);
      if (parameterTypes.length > MOST)
        throw new Error(`${internalName}: more than ${MOST} arguments; declare a block for them in assembly/abi.ts`);
      const parameters = functionTypeNode.parameters.map((p, i) => [p.name.text, parameterTypes[i].toString()]);
      return { name, block, parameters, result: returnType.toString(), file: internalName.replace(/\/\w+$/, ".ts") };
    });
}

/** A class behind what it extends. */
const lineage = (block) => (block.base ? [...lineage(block.base), block] : [block]);

/** The fields that a class adds to what it extends. */
function fieldsOf(block) {
  return [...block.members.values()]
    .filter(({ instance, parent }) => instance?.isField && parent === block)
    .map(({ name, instance, fieldDeclaration }) => {
      const type = instance.type.toString();
      const [view, bytes] = VIEWS[type] ?? [];
      if (!view) throw new Error(`${block.name}.${name}: a block has no fields of type ${type}`);
      return { name, type, view, index: instance.memoryOffset / bytes, comment: commentOf(fieldDeclaration) };
    });
}

/** The comment that ends where a declaration begins. */
function commentOf({ range }) {
  const before = range.source.text.slice(0, range.start);
  return /\/\*\*(?:[^*]|\*(?!\/))*\*\/(?=\s*(?:@unmanaged\s*(?:export\s*)?)?$)/.exec(before)?.[0] ?? "";
}

const typescript = (type) => (type === "bool" ? "boolean" : type === "void" ? "void" : "number");

function textOf(kernels, blocks) {
  const bytes = Math.max(...blocks.map((block) => block.nextMemoryOffset));
  return [
    "// Generated from assembly/ by scripts/asc-abi.mjs; not in version control.",
    ...blocks.map(interfaceOf),
    "/** The kernels; what takes a block takes its fields here. */\nexport interface Kernels {",
    ...kernels.map(methodOf),
    "}",
    "/** A block in linear memory, by the types of its fields. */",
    "export interface Block {\n  i32: Int32Array;\n  f32: Float32Array;\n  f64: Float64Array;\n  u8: Uint8Array;\n}",
    `/** Bytes of the largest block. */\nexport const BLOCK_BYTES = ${Math.ceil(bytes / 8) * 8};`,
    ...blocks.map(writerOf),
    "/** What writes a kernel's fields into its block. */\nexport const WRITERS = {",
    ...kernels.filter(({ block }) => block).map(({ name, block }) => `  ${name}: write${block.name},`),
    "};\n",
  ].join("\n");
}

function interfaceOf(block) {
  const parent = block.base ? ` extends ${block.base.name}` : "";
  const fields = fieldsOf(block).flatMap(({ name, type, comment }) => [
    ...(comment ? [`  ${comment}`] : []),
    `  ${name}: ${typescript(type)};`,
  ]);
  return [commentOf(block.declaration), `export interface ${block.name}${parent} {`, ...fields, "}"].join("\n");
}

function methodOf({ name, block, parameters, result, file }) {
  const types = block ? "" : ` (${parameters.map(([, type]) => type).join(", ")})`;
  const list = block ? `call: ${block.name}` : parameters.map(([p, type]) => `${p}: ${typescript(type)}`).join(", ");
  return `  /** ${file}${types} */\n  ${name}(${list}): ${typescript(result)};`;
}

function writerOf(block) {
  const stores = fieldsOf(block).map(({ name, view, index }) =>
    view === "u8" ? `  to.u8[${index}] = call.${name} ? 1 : 0;` : `  to.${view}[${index}] = call.${name};`,
  );
  const inherited = block.base ? [`  write${block.base.name}(to, call);`] : [];
  return [`function write${block.name}(to: Block, call: ${block.name}): void {`, ...inherited, ...stores, "}"].join(
    "\n",
  );
}

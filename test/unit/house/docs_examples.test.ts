/**
 * Every @example in src/ runs as it stands, and everything public that can be called has one.
 *
 * An example sees the names of wasm-lora and of its own file. A line `console.log(...); // text` prints that text, and
 * `const y = ...; // [2, 3]` makes something of that shape. Examples run in a temporary folder in which models/ is the
 * repository's, gpt2/ a small checkpoint, and bert/, minilm/ and others are the reference cases of these families.
 */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { fileURLToPath, pathToFileURL } from "node:url";
import { format } from "node:util";
import ts from "typescript";
import * as wasmLora from "../../../src/index.js";
import { LETTER_TOKENIZER } from "../../support/letter_tokenizer.js";
import { ROOT } from "../../support/root.js";

const root = fileURLToPath(ROOT);
const home = process.cwd();
const folder = mkdtempSync(join(tmpdir(), "examples-"));
test.after(() => {
  process.chdir(home);
  rmSync(folder, { recursive: true });
});
process.chdir(folder);
symlinkSync(join(root, "models"), "models");
await wasmLora.init();
writeGpt2("gpt2");
for (const family of ["bert", "roberta", "distilbert", "modernbert", "vit", "llama"])
  symlinkSync(join(root, "test/fixtures/families", `${family}_cls`), family);
cpSync(join(root, "test/fixtures/families/minilm_embed"), "minilm", { recursive: true });
writeFileSync("minilm/tokenizer.json", JSON.stringify(LETTER_TOKENIZER));

function writeGpt2(directory: string): void {
  mkdirSync(directory);
  writeFileSync(
    join(directory, "config.json"),
    JSON.stringify({ model_type: "gpt2", n_embd: 16, n_layer: 1, n_head: 2, n_positions: 8, vocab_size: 11 }),
  );
  const model = new wasmLora.models.Gpt2({
    modelType: "gpt2",
    vocabSize: 11,
    hiddenSize: 16,
    intermediateSize: 64,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    maxPositionEmbeddings: 8,
    layerNormEpsilon: 1e-5,
    tieWordEmbeddings: true,
    bosTokenId: null,
    eosTokenId: null,
  });
  const tensors = [...model.stateDict()].map(([name, entry]) => ({ name, dtype: "F32" as const, ...entry }));
  writeFileSync(join(directory, "model.safetensors"), wasmLora.io.serializeSafetensors(tensors));
}

interface Example {
  file: string;
  line: number;
  name: string;
  code: string;
}

function examplesOf(file: string): Example[] {
  const source = ts.createSourceFile(file, readFileSync(join(root, file), "utf8"), ts.ScriptTarget.ES2022, true);
  const found = new Map<number, Example>();
  const visit = (node: ts.Node): void => {
    for (const tag of ts.getJSDocTags(node)) {
      if (tag.tagName.text !== "example") continue;
      const name = ((node as ts.NamedDeclaration).name ?? node).getText(source);
      const { line } = source.getLineAndCharacterOfPosition(tag.pos);
      found.set(tag.pos, { file, line: line + 1, name, code: ts.getTextOfJSDocComment(tag.comment) ?? "" });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return [...found.values()];
}

const PRINTED = /^\s*(?:console\.log\(.*\)|.*\.printTrainableParameters\(\)); \/\/ (.*)$/gm;
const SHAPED = /^(const (\w+) = .*;) \/\/ (\[[\d, ]*\])$/gm;

async function run({ file, code }: Example): Promise<void> {
  const own = (await import(pathToFileURL(join(root, "dist", file.replace(/\.ts$/, ".js"))).href)) as object;
  const names = { ...wasmLora, ...own };
  const body = code
    .replace(/^import .* from "wasm-lora(?:\/inline)?";$/gm, "")
    .replace(SHAPED, "$1 assert.deepEqual($2.shape, $3);");
  const text = `return async ({ ${Object.keys(names).join(", ")} }, assert) => {\n{\n${body}\n}\n};`;
  const { outputText } = ts.transpileModule(text, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  const { log } = console;
  const lines: string[] = [];
  console.log = (...args: unknown[]) => {
    lines.push(format(...args));
  };
  try {
    await (new Function(outputText)() as (scope: object, a: typeof assert) => Promise<void>)(names, assert);
  } finally {
    console.log = log;
  }
  assert.deepEqual(
    lines,
    [...code.matchAll(PRINTED)].map((match) => match[1]),
  );
}

const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((file) =>
  /(?<!\.d)\.ts$/.test(file),
);
const examples = files.sort().flatMap((file) => examplesOf(join("src", file)));
for (const example of examples) test(`${example.file}:${example.line} ${example.name}`, () => run(example));

test("every public class and function has an example", () => {
  const shown = new Set(examples.map(({ name }) => name));
  const silent: string[] = [];
  const visit = (prefix: string, value: object): void => {
    for (const [name, item] of Object.entries(value)) {
      if (typeof item === "object") visit(`${prefix}${name}.`, item);
      else if (!shown.has(name) && !(item.prototype instanceof wasmLora.WasmLoraError)) silent.push(prefix + name);
    }
  };
  visit("", wasmLora);
  // Bases of Conv1d, Conv2d and Conv3d.
  assert.deepEqual(silent, ["lora.ConvLoRA", "nn.ConvNd"]);
});

test.run();

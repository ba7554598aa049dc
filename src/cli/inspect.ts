/** wasm-lora inspect. Files may be a stranger's: what is shown of them is cut and made safe for a terminal. */
import { existsSync, statSync } from "node:fs";
import { openFile, readJson } from "../io/files.js";
import { isGgufName, openGguf } from "../io/gguf/files.js";
import { shownValue } from "../io/gguf/header.js";
import { readWeightMap } from "../io/huggingface.js";
import { readHeader, type SafetensorsHeader, type StoredTensor } from "../io/safetensors_header.js";
import { FileError } from "../runtime/errors.js";
import { count, oneLine } from "./format.js";
import { findFolder } from "./hub.js";

const WEIGHTS = ["adapter_model.safetensors", "model.safetensors"];
const INDEX = "model.safetensors.index.json";
const CONFIGS = ["adapter_config.json", "config.json"];
/** Of a file, at most so many tensors and entries of metadata are listed, and of a config so many lines. */
const MOST_LINES = 5_000;

export async function inspect(named: string, options: { offline?: boolean | undefined } = {}): Promise<void> {
  const { path } = await findFolder("inspect", named, "either", options);
  if (!existsSync(path)) throw new FileError(`inspect: ${path} does not exist.`);
  if (!statSync(path).isDirectory()) return printTensors(path);
  const files = WEIGHTS.map((file) => `${path}/${file}`).filter((file) => existsSync(file));
  if (existsSync(`${path}/${INDEX}`) && !files.includes(`${path}/model.safetensors`)) {
    files.push(...new Set(Array.from(readWeightMap(`${path}/${INDEX}`).values(), (shard) => `${path}/${shard}`)));
  }
  if (files.length === 0) throw new FileError(`inspect: ${path} holds neither ${WEIGHTS.join(" nor ")} nor ${INDEX}.`);
  for (const config of CONFIGS.map((name) => `${path}/${name}`)) {
    if (existsSync(config)) console.log(`${oneLine(config)}\n${[...linesOf(readJson(config))].join("\n")}\n`);
  }
  for (const file of files) printTensors(file);
}

/** What is listed of a file, of either format. */
interface Listed {
  metadata: (readonly [key: string, value: string])[];
  tensors: (Pick<StoredTensor, "name" | "shape" | "length"> & { dtype: string })[];
}

function listed(path: string): Listed {
  if (isGgufName(path)) {
    const { metadata, tensors, close } = openGguf(path);
    close();
    const shown = Array.from(metadata, ([key, value]) => [key, shownValue(value)] as const);
    return { metadata: shown, tensors: [...tensors.values()] };
  }
  const { metadata, tensors } = headerOf(path);
  return { metadata: Object.entries(metadata), tensors: [...tensors.values()] };
}

function headerOf(path: string): SafetensorsHeader {
  const file = openFile(path);
  try {
    return readHeader(file);
  } finally {
    file.close();
  }
}

function printTensors(file: string): void {
  const { metadata: entries, tensors: all } = listed(file);
  const rows = all
    .slice(0, MOST_LINES)
    .map((t) => [oneLine(t.name), t.dtype, oneLine(`[${t.shape.join(", ")}]`), count(t.length)]);
  const widths = [0, 1, 2, 3].map((c) => rows.reduce((width, row) => Math.max(width, row[c]!.length), 0));
  const lines = [
    oneLine(file),
    ...rows.map(
      (row) =>
        "  " +
        row.map((cell, c) => (c === 3 ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!))).join("  ") +
        " bytes",
    ),
  ];
  if (all.length > rows.length) lines.push(`  ... and ${count(all.length - rows.length)} more`);
  const values = all.reduce((n, t) => n + t.shape.reduce((a, b) => a * b, 1), 0);
  lines.push(`  ${all.length} tensors, ${count(values)} values`);
  for (const [key, value] of entries.slice(0, MOST_LINES)) lines.push(`  ${oneLine(key, 100)}: ${oneLine(value, 100)}`);
  if (entries.length > MOST_LINES) lines.push(`  ... and ${count(entries.length - MOST_LINES)} entries more`);
  console.log(lines.join("\n"));
}

/** How deep a config is shown; JSON.stringify itself runs out of stack on what JSON.parse took. */
const MOST_LEVELS = 20;

/** As JSON.stringify(value, null, 2), but no deeper, longer or wider than a reader follows. */
function linesOf(value: unknown): string[] {
  const lines: string[] = [];
  /** Puts the value behind what its line begins with, and a comma behind it. */
  const put = (start: string, v: unknown, end: string, level: number): void => {
    if (lines.length >= MOST_LINES) return;
    const isList = Array.isArray(v);
    const [open, close] = isList ? ["[", "]"] : ["{", "}"];
    if (typeof v !== "object" || v === null) lines.push(start + oneLine(JSON.stringify(v), 1_000) + end);
    else if (Object.keys(v).length === 0 || level === MOST_LEVELS)
      lines.push(start + open + (Object.keys(v).length === 0 ? "" : "...") + close + end);
    else {
      lines.push(start + open);
      const keys = Object.keys(v);
      for (const [i, key] of keys.entries()) {
        if (lines.length >= MOST_LINES) break;
        put(
          "  ".repeat(level + 1) + (isList ? "" : `${oneLine(JSON.stringify(key), 200)}: `),
          (v as Record<string, unknown>)[key],
          i < keys.length - 1 ? "," : "",
          level + 1,
        );
      }
      lines.push("  ".repeat(level) + close + end);
    }
  };
  put("", value, "", 0);
  return lines.length >= MOST_LINES ? [...lines.slice(0, MOST_LINES), "..."] : lines;
}

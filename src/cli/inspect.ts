/** wasm-lora inspect */
import { existsSync, statSync } from "node:fs";
import { readBytes, readJson } from "../io/files.js";
import { parseSafetensors } from "../io/safetensors.js";
import { FileError } from "../runtime/errors.js";

export async function inspect(path: string): Promise<void> {
  if (!existsSync(path)) throw new FileError(`inspect: ${path} does not exist.`);
  const folder = statSync(path).isDirectory();
  const files = folder ? ["adapter_model.safetensors", "model.safetensors"].map((f) => `${path}/${f}`).filter((f) => existsSync(f)) : [path];
  if (files.length === 0) throw new FileError(`inspect: ${path} holds neither adapter_model.safetensors nor model.safetensors.`);
  for (const name of folder ? ["adapter_config.json", "config.json"] : []) {
    if (existsSync(`${path}/${name}`)) console.log(`${path}/${name}\n${JSON.stringify(readJson(`${path}/${name}`), null, 2)}\n`);
  }
  for (const file of files) printTensors(file);
}

function printTensors(file: string): void {
  const { metadata, tensors } = parseSafetensors(readBytes(file), { name: file });
  const rows = [...tensors.values()].map((t) => [t.name, t.dtype, `[${t.shape.join(", ")}]`, t.bytes.length.toLocaleString("en-US")]);
  const widths = [0, 1, 2, 3].map((c) => Math.max(0, ...rows.map((row) => row[c]!.length)));
  console.log(file);
  for (const row of rows) {
    console.log("  " + row.map((cell, c) => (c === 3 ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!))).join("  ") + " bytes");
  }
  const values = [...tensors.values()].reduce((n, t) => n + t.shape.reduce((a, b) => a * b, 1), 0);
  console.log(`  ${tensors.size} tensors, ${values.toLocaleString("en-US")} values`);
  for (const [key, value] of Object.entries(metadata)) console.log(`  ${key}: ${value.length > 100 ? `${value.slice(0, 100)}...` : value}`);
}

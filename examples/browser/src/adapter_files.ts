/** Adapters to and from the visitor's disk: a zip of PEFT's folder, or its two files. */
import { strToU8, unzipSync, zipSync } from "fflate";
import { Refusal } from "./refusal";
import type { Adapter } from "./run";

const CONFIG = "adapter_config.json", WEIGHTS = "adapter_model.safetensors";
/** Of each file, unpacked: a small archive may claim to hold anything. */
const MOST_BYTES = 256 * 1024 * 1024;
/** The earliest date of a zip: the same adapter is the same file. */
const DATE = new Date(1980, 0, 1);

export function toZip({ config, weights }: Adapter): Blob {
  const readme = "A LoRA adapter in PEFT's format for the base model of wasm-lora (models/base).\n";
  const files = { [CONFIG]: config, [WEIGHTS]: weights, "README.txt": strToU8(readme) };
  return new Blob([zipSync({ adapter: files }, { mtime: DATE }) as Uint8Array<ArrayBuffer>], { type: "application/zip" });
}

/** @throws Refusal naming what is missing */
export async function fromFiles(files: readonly File[]): Promise<Adapter> {
  const found = new Map<string, Uint8Array>();
  for (const file of files) {
    if (file.size > MOST_BYTES) throw new Refusal("upload", `${file.name} is too large for this page. Choose an adapter of the small model here.`);
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (/\.zip$/i.test(file.name)) for (const [name, entry] of unzip(file.name, bytes)) found.set(name, entry);
    else found.set(file.name, bytes);
  }
  const config = found.get(CONFIG), weights = found.get(WEIGHTS);
  if (!config || !weights) {
    const missing = [config ? [] : CONFIG, weights ? [] : WEIGHTS].flat().join(" and ");
    throw new Refusal("upload", `${missing} ${config || weights ? "is" : "are"} missing. Choose a zip of an adapter's folder, or both of its files at once.`);
  }
  return { config, weights };
}

/** The two files, whatever folder they are in. */
function unzip(name: string, bytes: Uint8Array): [string, Uint8Array][] {
  const base = (path: string): string => path.slice(path.lastIndexOf("/") + 1);
  try {
    const entries = unzipSync(bytes, {
      filter: (file) => [CONFIG, WEIGHTS].includes(base(file.name)) && file.originalSize <= MOST_BYTES,
    });
    return Object.entries(entries).map(([path, entry]) => [base(path), entry]);
  } catch {
    throw new Refusal("upload", `${name} cannot be read as a zip. Download it again, or choose adapter_config.json and adapter_model.safetensors themselves.`);
  }
}

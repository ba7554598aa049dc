/** Adapters to and from the visitor's disk: a zip of PEFT's folder, or its two files. */
import { strToU8, unzipSync, zipSync } from "fflate";
import { fileName } from "../format";
import { Refusal } from "../refusal";
import type { Adapter } from "../worker/run";

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";
/**
 * Of all files, unpacked: a small archive may claim to hold anything. The largest adapter of the model here has a tenth
 * of it.
 */
const MOST_BYTES = 64 * 1024 * 1024;
/** The earliest date of a zip: the same adapter is the same file. */
const DATE = new Date(1980, 0, 1);

export function toZip({ config, weights }: Adapter): Blob {
  const { base_model_name_or_path: base } = JSON.parse(new TextDecoder().decode(config));
  const readme = `A LoRA adapter in PEFT's format, for ${
    base === "models/base" ? "the base model of wasm-lora (models/base)" : base
  }.\n`;
  const files = { [CONFIG]: config, [WEIGHTS]: weights, "README.txt": strToU8(readme) };
  return new Blob([zipSync({ adapter: files }, { mtime: DATE }) as Uint8Array<ArrayBuffer>], {
    type: "application/zip",
  });
}

/** What llama.cpp and Ollama read. */
export function toLlamaZip(files: ReadonlyMap<string, Uint8Array>): Blob {
  const readme = [
    "adapter.gguf is a LoRA adapter: llama-cli -m base.gguf --lora adapter.gguf, where base.gguf is the model that it",
    "was trained on, which wasm-lora merge --model <folder> --to gguf --out base.gguf writes.",
    "For Ollama: put base.gguf here, then ollama create <name> -f Modelfile.",
    "",
  ].join("\n");
  const all = { ...Object.fromEntries(files), "README.txt": strToU8(readme) };
  return new Blob([zipSync({ adapter: all }, { mtime: DATE }) as Uint8Array<ArrayBuffer>], { type: "application/zip" });
}

/** @throws Refusal naming what is missing */
export async function fromFiles(files: readonly File[]): Promise<Adapter> {
  const found = new Map<string, Uint8Array>();
  const add = (name: string, bytes: Uint8Array): void => {
    // Two of a kind belong to two adapters, and nobody knows which of the others goes with which.
    if (found.has(name))
      throw new Refusal("upload", `There is more than one ${name}. Choose one adapter: its zip, or its two files.`);
    found.set(name, bytes);
  };
  let left = MOST_BYTES;
  for (const file of files) {
    if ((left -= file.size) < 0)
      throw new Refusal(
        "upload",
        `${fileName(file.name)} is too large for this page. Choose an adapter of the small model here.`,
      );
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (/\.zip$/i.test(file.name)) for (const [name, entry] of unzip(fileName(file.name), bytes)) add(name, entry);
    else if ([CONFIG, WEIGHTS].includes(file.name)) add(file.name, bytes);
  }
  const config = found.get(CONFIG);
  const weights = found.get(WEIGHTS);
  if (!config || !weights) {
    const missing = [config ? [] : CONFIG, weights ? [] : WEIGHTS].flat().join(" and ");
    throw new Refusal(
      "upload",
      `${missing} ${config || weights ? "is" : "are"} missing. Choose a zip of an adapter's folder, or both of its ` +
        `files at once.`,
    );
  }
  return { config, weights };
}

/** The two files, whatever folder they are in. */
function unzip(name: string, bytes: Uint8Array): [string, Uint8Array][] {
  const base = (path: string): string => path.slice(path.lastIndexOf("/") + 1);
  let left = MOST_BYTES;
  let count = 0;
  try {
    const entries = unzipSync(bytes, {
      filter: (file) => {
        if (![CONFIG, WEIGHTS].includes(base(file.name))) return false;
        if ((left -= file.originalSize) < 0 || ++count > 2) throw new Refusal("upload", "");
        return true;
      },
    });
    return Object.entries(entries).map(([path, entry]) => [base(path), entry]);
  } catch {
    if (count > 2) throw new Refusal("upload", `${name} holds more than one adapter. Choose a zip of one.`);
    if (left < 0)
      throw new Refusal(
        "upload",
        `${name} would be too large for this page when it is unpacked. Choose an adapter of the small model here.`,
      );
    throw new Refusal(
      "upload",
      `${name} cannot be read as a zip. Download it again, or choose adapter_config.json and ` +
        `adapter_model.safetensors themselves.`,
    );
  }
}

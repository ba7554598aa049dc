/**
 * For Ollama: the adapter in GGUF, and a Modelfile that names it, with the chat template and what ends an answer.
 * Source: ollama/ollama, docs/modelfile.md.
 */
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { GGUF_ADAPTER_FILE, writeGgufAdapter } from "./gguf.js";
import { goTemplateOf } from "./go_template.js";
import type { Task, Written } from "./target.js";

const MODELFILE = "Modelfile";

export function writeOllama(task: Task): Written {
  const { where, tokenizer, from } = task;
  if (typeof from !== "string" || !/^\S[^\n]*$/.test(from))
    throw new ArgumentError(`${where}: from must name a model of Ollama's or a path, on one line; got ${shown(from)}.`);
  const written = writeGgufAdapter(task);
  const lines = [`FROM ${from}`, `ADAPTER ./${GGUF_ADAPTER_FILE}`];
  const template = tokenizer && goTemplateOf(tokenizer);
  if (template) {
    lines.push(`TEMPLATE """${template.text}"""`);
    if (template.system !== null) lines.push(`SYSTEM """${template.system}"""`);
    for (const stop of template.stops)
      lines.push(`PARAMETER stop ${stop.includes('"') ? `"""${stop}"""` : `"${stop}"`}`);
  } else {
    written.notes.push(
      tokenizer?.chatTemplate
        ? `No template of Ollama's says what ${tokenizer.chatTemplate.name} does, so the Modelfile has none: Ollama ` +
            "takes that of the base."
        : "The base has no chat template, so the Modelfile has none.",
    );
  }
  written.files.set(MODELFILE, new TextEncoder().encode(`${lines.join("\n")}\n`));
  const advice = from === "./base.gguf" ? ": put the base there in GGUF (wasm-lora merge --to gguf writes it)" : "";
  written.notes.push(`${MODELFILE} is FROM ${from}${advice}. Then: ollama create <name> -f ${MODELFILE}.`);
  return written;
}

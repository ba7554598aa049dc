/** Which of a repository's files a command needs: the same weights are often there again, in other formats. */
import { isGgufName, partsOf } from "../io/gguf/files.js";
import { INDEX_FILE, MODEL_FILE } from "../io/huggingface.js";
import type { HubFile } from "./hub_client.js";
import { FileError } from "../runtime/errors.js";

/** What a repository is used as. */
export type Wanted = "model" | "adapter";

export const ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors"] as const;

/** Configs, tokenizers, chat templates, and what makes sentence embeddings of a model. */
const SMALL = new RegExp(
  "^(" +
    "(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template|" +
    "preprocessor_config|modules|sentence_bert_config|config_sentence_transformers|1_Pooling/config)\\.json|" +
    "merges\\.txt|vocab\\.txt|tokenizer\\.model|spiece\\.model|sentencepiece\\.bpe\\.model|" +
    "chat_template\\.jinja|additional_chat_templates/\\w[\\w.-]*\\.jinja" +
    ")$",
);

type Files = ReadonlyMap<string, HubFile>;

/**
 * The files to have before it is known which weights there are.
 * @throws FileError if the repository is not what was asked for
 */
export function firstFiles(files: Files, wanted: Wanted, repo: string): HubFile[] {
  if (wanted === "adapter") {
    const missing = ADAPTER_FILES.find((file) => !files.has(file));
    if (missing !== undefined)
      throw new FileError(
        `${repo} is no PEFT adapter: it has no ${missing}${
          files.has("config.json") ? "; it is a model, so name it with --model" : ""
        }.`,
      );
    return ADAPTER_FILES.map((file) => files.get(file)!);
  }
  if (!files.has("config.json"))
    throw new FileError(
      `${repo} is no model that loads here: it has no config.json${
        files.has(ADAPTER_FILES[0]) ? "; it is a PEFT adapter, so name it with --adapter" : ggufAdvice(files, repo)
      }.`,
    );
  if (!files.has(MODEL_FILE) && !files.has(INDEX_FILE)) {
    const other = [...files.keys()].find((file) => /\.(bin|gguf|onnx|msgpack|h5|pt|pth)$/.test(file));
    throw new FileError(
      `${repo} has neither ${MODEL_FILE} nor ${INDEX_FILE}${other ? ` (it has ${other})` : ""}; name a repository or ` +
        `a revision with safetensors${ggufAdvice(files, repo)}.`,
    );
  }
  return [...files.values()].filter(({ path }) => SMALL.test(path) || (path === INDEX_FILE && !files.has(MODEL_FILE)));
}

/** What to write for a GGUF file of the repository, if there is one. */
function ggufAdvice(files: Files, repo: string): string {
  const file = [...files.keys()].find((name) => isGgufName(name));
  return file === undefined ? "" : `, or one of its GGUF files, as ${repo}:${file}`;
}

/**
 * A GGUF file, or all of its parts.
 * @throws FileError naming a part that is not there
 */
export function ggufFiles(files: Files, name: string, repo: string): HubFile[] {
  return partsOf(name).map((part) => {
    const file = files.get(part);
    if (!file) throw new FileError(`${repo} has no ${part}, which is a part of ${name}; name another file.`);
    return file;
  });
}

/**
 * The weights of a model: model.safetensors, or, where there is none, the shards that the index names.
 * @throws FileError naming a shard that is not there
 */
export function weightFiles(files: Files, shards: Iterable<string>, repo: string): HubFile[] {
  const whole = files.get(MODEL_FILE);
  if (whole) return [whole];
  return [...new Set(shards)].map((shard) => {
    const file = files.get(shard);
    if (!file) throw new FileError(`${repo} has no ${shard}, which its ${INDEX_FILE} names; name another revision.`);
    return file;
  });
}

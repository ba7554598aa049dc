/** Text to tokens and back, as transformers' tokenizer of the same folder does it. */
import { exists, readBytes, readJson } from "../io/files.js";
import { isGgufFile, openGguf } from "../io/gguf/files.js";
import type { GgufMetadata } from "../io/gguf/types.js";
import { asObject, show } from "../io/json.js";
import { ArgumentError, FileError, FormatError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { AnchorFinder } from "./anchors.js";
import { ChatTemplate, type RenderOptions } from "./chat_template.js";
import { cleanUp, decoderStage, type Stage, type StageMaker } from "./decoder.js";
import type { ChatMessage } from "./examples.js";
import { tokenizerOfGguf } from "./gguf_tokenizer.js";
import type { Fail } from "./json_fields.js";
import { makeTokenizer, type OnPieces } from "./library.js";
import { decodeText } from "./text.js";
import {
  addedToken,
  checkTogether,
  modelPart,
  normalizer,
  postProcessor,
  preTokenizer,
  type AddedToken,
} from "./tokenizer_json.js";

/** What other tokenizers keep their vocabularies in. */
const OTHER_FILES = ["tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"];

/** Options of `Tokenizer.encode`. */
export interface EncodeOptions {
  /** Whether the tokenizer's post-processor adds its tokens: begin-of-text, mostly. Default true. */
  addSpecialTokens?: boolean | undefined;
  /** Called now and then while a long text is encoded, with the characters that are done and all; last with all. */
  onProgress?: ((done: number, all: number) => void) | undefined;
}

/** Options of `Tokenizer.decode` and `decodeStream`. */
export interface DecodeOptions {
  /** Whether special tokens ("<|endoftext|>" and its like) are left out. Default false. */
  skipSpecialTokens?: boolean | undefined;
}

/** Files of chat templates, by the names of those that are taken by themselves: the second where there are tools. */
const TEMPLATE_FILES: Readonly<Record<string, string>> = {
  default: "chat_template.jinja",
  tool_use: "additional_chat_templates/tool_use.jinja",
};

/**
 * The tokenizer of a model's folder: its tokenizer.json, tokenizer_config.json if there is one, and its chat template,
 * wherever the folder keeps that: chat_template.jinja (with additional_chat_templates/tool_use.jinja for conversations
 * with tools), else chat_template in tokenizer_config.json. Of a GGUF file: the tokenizer inside.
 *
 * Source: transformers 5, AutoTokenizer.from_pretrained.
 * @throws FileError if there is no tokenizer.json; FormatError naming file and field of what is damaged or not
 * supported
 *
 * @example
 * const tokenizer = data.loadTokenizer("models/base");
 * const ids = tokenizer.encode("Call me Ishmael.");
 * console.log(ids.length, tokenizer.decode(ids)); // 11 <|endoftext|>Call me Ishmael.
 */
export function loadTokenizer(directory: string): Tokenizer {
  if (typeof directory !== "string")
    throw new ArgumentError(`loadTokenizer: directory must be the path of a folder; got ${show(directory)}.`);
  if (/^https?:/i.test(directory))
    throw new ArgumentError(
      `loadTokenizer: ${directory} is a web address; await models.fetchModel(url) gives the model and its tokenizer.`,
    );
  if (isGgufFile(directory)) {
    const { metadata, close } = openGguf(directory);
    close();
    return ggufTokenizer(metadata, directory);
  }
  const path = `${directory}/tokenizer.json`;
  const other = exists(path) ? undefined : OTHER_FILES.find((file) => exists(`${directory}/${file}`));
  if (other) {
    throw new FileError(
      `cannot read ${path}: it does not exist, but ${other} does. transformers makes the one of the other: ` +
        `AutoTokenizer.from_pretrained(${show(directory)}).save_pretrained(${show(directory)}).`,
    );
  }
  const configPath = `${directory}/tokenizer_config.json`;
  const config = exists(configPath) ? readJson(configPath) : {};
  const templates = Object.entries(TEMPLATE_FILES).flatMap(([name, file]) => {
    const at = `${directory}/${file}`;
    return exists(at) ? [{ name, template: decodeText(readBytes(at), at) }] : [];
  });
  const settings = asObject(config);
  return new Tokenizer(
    readJson(path),
    settings && templates.length > 0 ? { ...settings, chat_template: templates } : config,
    path,
  );
}

/**
 * The tokenizer of a GGUF file whose header has been read.
 * @throws FormatError as `loadTokenizer`
 * @internal
 */
export function ggufTokenizer(metadata: GgufMetadata, path: string): Tokenizer {
  const { tokenizer, config } = tokenizerOfGguf(metadata, path);
  return new Tokenizer(tokenizer, config, path);
}

/**
 * Text to token ids and back. `loadTokenizer` makes one from a folder.
 *
 * Which tokens go around a text is what tokenizer.json's post-processor says, as in transformers 5, which ignores
 * add_bos_token and add_eos_token beside a tokenizer.json.
 *
 * Source: huggingface/tokenizers 0.23; transformers 5, tokenization_utils_tokenizers.py.
 *
 * @example
 * const vocab = { "<s>": 0, low: 1, er: 2 };
 * const model = { type: "WordLevel", vocab, unk_token: "<s>" };
 * const tokenizer = new data.Tokenizer({ model, pre_tokenizer: { type: "WhitespaceSplit" } });
 * console.log(tokenizer.encode("low er").join(" ")); // 1 2
 */
export class Tokenizer {
  /** @internal */ static readonly className: string = "Tokenizer";
  readonly #encoder: ReturnType<typeof makeTokenizer>;
  readonly #fail: Fail;
  #onPieces: OnPieces | null = null;
  /** The token for text that no other has, and the field that names it. */
  readonly #unknown: { token: string | null; field: string };
  /** Whether an added token takes white space along. */
  readonly #strips: boolean;
  readonly #decoder: StageMaker;
  readonly #cleanUp: boolean;
  readonly #tokens = new Map<number, string>();
  readonly #special = new Set<string>();
  /** Added tokens that are looked for in the text as it is. @internal */
  readonly anchors: AnchorFinder;
  readonly #settings: Record<string, unknown>;
  readonly #name: string;
  /** undefined: not asked for yet. */
  #chatTemplate: ChatTemplate | null | undefined;
  /** The one that came with the tokenizer. */
  #own: ChatTemplate | null = null;

  /**
   * @param json of tokenizer.json
   * @param config of tokenizer_config.json
   * @param name of the file, for errors
   * @throws FormatError naming the field that is damaged or not supported
   */
  constructor(json: unknown, config: unknown = {}, name = "tokenizer.json") {
    const fail: Fail = (field, message, cause) => {
      throw new FormatError(`${name}: ${field} ${message}.`, cause === undefined ? undefined : { cause });
    };
    const file = asObject(json) ?? fail("the file", "holds no JSON object");
    const settings = asObject(config) ?? fail("tokenizer_config.json", "holds no JSON object");
    const model = modelPart(file["model"], "model", fail);
    const added = addedTokens(file["added_tokens"] ?? [], settings, model.mends.ids, this.#tokens, fail);
    this.#fail = fail;
    this.#settings = settings;
    this.#name = name;
    this.#unknown = { token: model.mends.unknown, field: model.unknownField };
    this.#decoder = decoderStage(file["decoder"], "decoder", fail);
    const parts = {
      normalizer: normalizer(file["normalizer"], "normalizer", fail),
      pre_tokenizer: preTokenizer(file["pre_tokenizer"], "pre_tokenizer", fail),
      model: model.json,
      post_processor: postProcessor(file["post_processor"], "post_processor", (id) => this.#tokens.get(id), fail),
      decoder: null,
      added_tokens: added,
    };
    checkTogether(added, parts.pre_tokenizer, parts.normalizer !== null, fail);
    this.anchors = new AnchorFinder(added.filter(({ normalized, content }) => !normalized && content !== ""));
    this.#strips = added.some(({ lstrip, rstrip }) => lstrip || rstrip);
    try {
      this.#encoder = makeTokenizer(parts, { unk_token: model.mends.unknown }, model.mends, (characters, all) =>
        this.#onPieces?.(characters, all),
      );
    } catch (cause) {
      throw new FormatError(`${name}: not a tokenizer: ${(cause as Error).message}.`, { cause });
    }
    const evenForBpe = settings["clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"] === true;
    this.#cleanUp = settings["clean_up_tokenization_spaces"] === true && (evenForBpe || !model.isBpe);
    for (const { id, content, special, normalized } of added) {
      // As the text of such a token is looked for, so it is shown.
      if (normalized) this.#tokens.set(id, this.#encoder.normalizer?.normalize(content) ?? content);
      if (special) this.#special.add(content);
    }
  }

  /**
   * The ids of a text; with addSpecialTokens those that the post-processor puts around it too.
   * @throws ArgumentError if text is no string; FormatError if it holds what the tokenizer has no token for
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * console.log(tokenizer.encode("Call me", { addSpecialTokens: false })); // [ 35, 489, 478 ]
   */
  encode(text: string, options?: EncodeOptions): number[] {
    checkOptions("Tokenizer.encode", options, ["addSpecialTokens", "onProgress"]);
    const { addSpecialTokens = true, onProgress } = options ?? {};
    if (onProgress !== undefined && typeof onProgress !== "function")
      throw new ArgumentError(`Tokenizer.encode: onProgress must be a function; got ${show(onProgress)}.`);
    if (typeof text !== "string")
      throw new ArgumentError(`Tokenizer.encode: text must be a string; got ${text === null ? "null" : typeof text}.`);
    // In these two characters alone JavaScript's white space differs from Unicode's, which the original strips by.
    if (this.#strips && /[\ufeff\u0085]/.test(text))
      this.#fail(
        "added_tokens",
        "take white space along, and the text holds U+FEFF or U+0085; take those out of the text",
      );
    let result;
    let done = 0;
    let stopped = false;
    // Pieces count bytes where the model does: of one section of a text it is known how many characters these are.
    this.#onPieces =
      onProgress === undefined
        ? null
        : (characters, all) => {
            done += characters * Math.min(1, text.length / all);
            stopped = true;
            onProgress(Math.min(Math.floor(done), text.length), text.length);
            stopped = false;
          };
    try {
      // A lone surrogate has no bytes in UTF-8, so it is encoded as the replacement character.
      result = this.#encoder.encode(text.replace(/\p{Surrogate}/gu, "\ufffd"), {
        add_special_tokens: addSpecialTokens,
      });
    } catch (cause) {
      // What the caller throws to stop is the caller's.
      if (stopped) throw cause;
      return this.#fail("the tokenizer", `cannot encode the text: ${(cause as Error).message}`, cause);
    } finally {
      this.#onPieces = null;
    }
    onProgress?.(text.length, text.length);
    const missing = result.ids.findIndex((id) => !Number.isSafeInteger(id));
    if (missing < 0) return result.ids as number[];
    const { token, field } = this.#unknown;
    const part = result.tokens[missing] ?? "";
    return this.#fail(
      field,
      `is ${show(token)}${token === null ? "" : ", which the vocabulary lacks"}, and the text has what no token ` +
        `stands for${part === token ? "" : `, ${show(part)}`}`,
    );
  }

  /**
   * The text of ids. Ids that the tokenizer has no token for are left out, as transformers leaves them out: a model may
   * have more rows than there are tokens.
   * @throws ArgumentError if ids are not integers of at least 0
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * console.log(tokenizer.decode([0, 35, 489, 478], { skipSpecialTokens: true })); // Call me
   */
  decode(ids: Iterable<number>, options?: DecodeOptions): string {
    return [...this.decodeStream(ids, options)].join("");
  }

  /**
   * The text of ids in pieces, each as soon as no later id can change it: for a text that is shown while it is
   * generated. Joined, the pieces are `decode` of all ids, whatever the decoder does to spaces, joiners and characters
   * of several tokens.
   * @throws ArgumentError if ids are not integers of at least 0
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * const pieces = [...tokenizer.decodeStream(tokenizer.encode("naïve", { addSpecialTokens: false }))];
   * console.log(pieces.join("") === "naïve"); // true
   */
  decodeStream(ids: Iterable<number>, options?: DecodeOptions): IterableIterator<string> {
    checkOptions("Tokenizer.decodeStream", options, ["skipSpecialTokens"]);
    if (typeof ids !== "object" || ids === null || !(Symbol.iterator in ids))
      throw new ArgumentError(
        `Tokenizer.decode: ids must be a list of token ids; got ${ids === null ? "null" : typeof ids}.`,
      );
    return this.#decode(ids, options?.skipSpecialTokens ?? false);
  }

  *#decode(ids: Iterable<number>, skipSpecialTokens: boolean): IterableIterator<string> {
    let text = "";
    const sink: Stage = {
      add(more) {
        text += more;
      },
      next() {},
      end() {},
    };
    const stage = this.#decoder(this.#cleanUp ? cleanUp(sink) : sink);
    const settled = (): string => {
      const piece = text;
      text = "";
      return piece;
    };
    for (const id of ids) {
      if (!Number.isSafeInteger(id) || id < 0)
        throw new ArgumentError(`Tokenizer.decode: ids must be integers of at least 0; got ${show(id)}.`);
      const token = this.#tokens.get(id);
      if (token === undefined || (skipSpecialTokens && this.#special.has(token))) continue;
      stage.add(token);
      stage.next();
      if (text !== "") yield settled();
    }
    stage.end();
    if (text !== "") yield settled();
  }

  /**
   * The template that writes conversations as texts, from chat_template of the config: a text, or a list of templates
   * with names, of which "default" counts, and "tool_use" where there are tools. Null: there is none. Can be set.
   * @throws FormatError for what is no template
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * const text = tokenizer.chatTemplate.render([{ role: "user", content: "Hi" }]);
   * console.log(JSON.stringify(text)); // "<|endoftext|>Q: Hi\n"
   * tokenizer.chatTemplate = new data.ChatTemplate("{{ messages[0].content }}");
   */
  get chatTemplate(): ChatTemplate | null {
    if (this.#chatTemplate === undefined) this.#own = this.#chatTemplate = this.#ownTemplate();
    return this.#chatTemplate;
  }

  /** Takes another one, or none. @throws ArgumentError for what is no template */
  set chatTemplate(template: ChatTemplate | null) {
    if (template !== null && !(template instanceof ChatTemplate))
      throw new ArgumentError(
        `Tokenizer.chatTemplate: it must be a data.ChatTemplate or null; got ${shown(template)}.`,
      );
    this.#chatTemplate = template;
  }

  /** Whether a template came with the tokenizer. @internal */
  hasOwn(template: ChatTemplate): boolean {
    return template === this.#own;
  }

  #ownTemplate(): ChatTemplate | null {
    const { chat_template: given = null } = this.#settings;
    if (given === null) return null;
    const list = typeof given === "string" ? [{ name: "default", template: given }] : given;
    const byName = new Map<unknown, unknown>(
      Array.isArray(list) ? list.map((one) => [asObject(one)?.["name"], asObject(one)?.["template"]]) : [],
    );
    const source = byName.get("default") ?? byName.get("tool_use");
    const toolUse = byName.get("tool_use");
    if (typeof source !== "string" || (toolUse !== undefined && typeof toolUse !== "string"))
      return this.#fail(
        "chat_template",
        `is ${show(given)}; expected a text, or a list of { name, template } with one that is called "default"`,
      );
    const name = `the chat template of ${this.#name}`;
    return new ChatTemplate(source, { name, specialTokens: this.specialTokensMap, toolUse });
  }

  /**
   * Special tokens by what the config calls them (bos_token, eos_token, ...): what a template may write.
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * const specialTokens = tokenizer.specialTokensMap;
   * console.log(specialTokens.eos_token); // <|endoftext|>
   * tokenizer.chatTemplate = new data.ChatTemplate("{{ messages[0].content }}{{ eos_token }}", { specialTokens });
   */
  get specialTokensMap(): Readonly<Record<string, string>> {
    return Object.fromEntries(
      NAMED.flatMap((key) => {
        const token = contentOf(this.#settings[key]);
        return token === undefined ? [] : [[key, token]];
      }),
    );
  }

  /**
   * A conversation as the text that the model was trained on. It holds all special tokens: encode it with
   * `addSpecialTokens: false`.
   *
   * Source: transformers, apply_chat_template with tokenize=False.
   * @throws FormatError if there is no template, or with the template's words; ArgumentError as `ChatTemplate.render`
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * tokenizer.chatTemplate = new data.ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}");
   * console.log(tokenizer.applyChatTemplate([{ role: "user", content: "Hi" }])); // user: Hi
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: RenderOptions): string {
    const { chatTemplate } = this;
    if (chatTemplate) return chatTemplate.render(messages, options);
    throw new FormatError(
      `Tokenizer.applyChatTemplate: ${this.#name} has no chat template; set one: tokenizer.chatTemplate = new ` +
        `data.ChatTemplate(source).`,
    );
  }

  /** Of ids that end a text, the one that the tokenizer's config calls so, else the first. @internal */
  preferredOf(eosTokenIds: readonly number[]): number {
    const token = contentOf(this.#settings["eos_token"]);
    return eosTokenIds.find((id) => token !== undefined && this.#tokens.get(id) === token) ?? eosTokenIds[0]!;
  }

  /**
   * A token as the vocabulary spells it, or undefined: to name an id in a message.
   *
   * @example
   * console.log(data.loadTokenizer("models/base").idToToken(0)); // <|endoftext|>
   */
  idToToken(id: number): string | undefined {
    return this.#tokens.get(id);
  }
}

const NAMED = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/**
 * tokenizer.json's added tokens, and those of tokenizer_config.json that it lacks.
 * @param tokens gets every token by its id
 */
function addedTokens(
  json: unknown,
  settings: Record<string, unknown>,
  ids: ReadonlyMap<string, number>,
  tokens: Map<number, string>,
  fail: Fail,
): AddedToken[] {
  if (!Array.isArray(json)) return fail("added_tokens", `is ${show(json)}; expected a list`);
  const added = new Map<string, AddedToken>();
  let next = 0;
  for (const [token, id] of ids) {
    tokens.set(id, token);
    next = Math.max(next, id + 1);
  }
  const add = (token: AddedToken, field: string): void => {
    const { content, id } = token;
    const own = ids.get(content);
    const other = tokens.get(id);
    if (own !== undefined && own !== id)
      return fail(field, `is ${show(content)} with id ${id}, but the vocabulary has it as ${own}`);
    if (other !== undefined && other !== content)
      return fail(field, `is ${show(content)} with id ${id}, which the vocabulary has for ${show(other)}`);
    tokens.set(id, content);
    next = Math.max(next, id + 1);
    added.set(content, token);
  };
  json.forEach((one, i) => add(addedToken(one, `added_tokens[${i}]`, fail), `added_tokens[${i}]`));
  for (const [id, one] of Object.entries(asObject(settings["added_tokens_decoder"]) ?? {})) {
    const field = `added_tokens_decoder[${show(id)}]`;
    const token = addedToken(one, field, fail, Number(id));
    if (!added.has(token.content)) add(token, field);
  }
  const extra = settings["extra_special_tokens"] ?? settings["additional_special_tokens"] ?? [];
  for (const value of [
    ...NAMED.map((key) => settings[key]),
    ...(Array.isArray(extra) ? extra : Object.values(asObject(extra) ?? {})),
  ]) {
    const content = contentOf(value);
    if (content === undefined || content === "") continue;
    const before = added.get(content);
    const id = before?.id ?? ids.get(content) ?? next++;
    tokens.set(id, content);
    added.set(
      content,
      before
        ? { ...before, special: true }
        : { id, content, special: true, normalized: false, lstrip: false, rstrip: false },
    );
  }
  return [...added.values()];
}

/** A special token's text: the config has it as that, or as an object that holds it. */
function contentOf(value: unknown): string | undefined {
  const content = typeof value === "string" ? value : asObject(value)?.["content"];
  return typeof content === "string" ? content : undefined;
}

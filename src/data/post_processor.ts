/**
 * The special tokens around a text, as tokenizer.json's "post_processor" says.
 *
 * Source: huggingface/tokenizers 0.23, src/processors/ (for a single text).
 */
import { asObject, fields, type Fail } from "./json_fields.js";

/** Ids that go before and after a text's own. */
export interface Surroundings {
  before: readonly number[];
  after: readonly number[];
}

const NOTHING: Surroundings = { before: [], after: [] };

/** @param json of the post-processor; null: nothing is added */
export function postProcessor(json: unknown, field: string, fail: Fail): Surroundings {
  if (json === null || json === undefined) return NOTHING;
  const { object, type, list, unsupported } = fields(json, field, fail);
  switch (type) {
    case "ByteLevel": return NOTHING;
    case "TemplateProcessing": return template();
    case "BertProcessing": case "RobertaProcessing": return { before: [named("cls")], after: [named("sep")] };
    case "Sequence":
      return list("processors").map((one, i) => postProcessor(one, `${field}.processors[${i}]`, fail))
        .reduce((inner, outer) => ({ before: [...outer.before, ...inner.before], after: [...inner.after, ...outer.after] }), NOTHING);
    default: return unsupported("TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing and Sequence");
  }

  /** ["</s>", 2] */
  function named(key: string): number {
    const pair = object[key];
    return Array.isArray(pair) && isId(pair[1]) ? pair[1] : fail(`${field}.${key}`, "is no pair of a token and its id");
  }

  function template(): Surroundings {
    const before: number[] = [], after: number[] = [], known = asObject(object["special_tokens"]) ?? {};
    let text = false;
    for (const [i, item] of list("single").entries()) {
      const place = `${field}.single[${i}]`, { Sequence: sequence, SpecialToken: special } = asObject(item) ?? {};
      if (asObject(sequence)?.["id"] === "A" && !text) text = true;
      else {
        const { string } = fields(special, `${place}.SpecialToken`, fail), token = string("id");
        const ids = Object.hasOwn(known, token) ? asObject(known[token])?.["ids"] : undefined;
        if (!Array.isArray(ids) || !ids.every(isId)) return fail(`${field}.special_tokens`, `has no ids for the token of ${place}`);
        (text ? after : before).push(...ids);
      }
    }
    return text ? { before, after } : fail(`${field}.single`, "has no place for the text (Sequence A)");
  }
}

function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

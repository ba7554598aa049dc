/**
 * Texts before they are split, as tokenizer.json's "normalizer" says.
 *
 * Source: huggingface/tokenizers 0.23, src/normalizers/.
 */
import { BertNormalizer } from "./library.js";
import { toByteCharacters } from "./byte_level.js";
import { fields, type Fail } from "./json_fields.js";
import { patternOf, replaceAll, SPACE } from "./pattern.js";

const AT_START = new RegExp(`^${SPACE}+`, "u"), AT_END = new RegExp(`${SPACE}+$`, "u");

/** By characters, as Rust: a whole word's last sigma would become another one. */
const lowercase = (text: string): string => Array.from(text, (character) => character.toLowerCase()).join("");

/** @param json of the normalizer; null: texts stay as they are */
export function normalizer(json: unknown, field: string, fail: Fail): (text: string) => string {
  if (json === null || json === undefined) return (text) => text;
  const { object, type, string, flag, list, unsupported } = fields(json, field, fail);
  switch (type) {
    case "NFC": case "NFD": case "NFKC": case "NFKD": return (text) => text.normalize(type);
    case "Lowercase": return lowercase;
    case "StripAccents": return (text) => text.replace(/\p{M}/gu, "");
    case "Strip": {
      const left = flag("strip_left", true), right = flag("strip_right", true);
      return (text) => {
        const rest = left ? text.replace(AT_START, "") : text;
        return right ? rest.replace(AT_END, "") : rest;
      };
    }
    case "Prepend": {
      const prefix = string("prepend");
      return (text) => (text === "" ? text : prefix + text);
    }
    case "Replace": {
      const pattern = patternOf(object["pattern"], `${field}.pattern`, fail), content = string("content");
      return (text) => replaceAll(text, pattern, content);
    }
    case "ByteLevel": return toByteCharacters;
    case "BertNormalizer": {
      const bert = new BertNormalizer({
        type, clean_text: flag("clean_text", true), handle_chinese_chars: flag("handle_chinese_chars", true), strip_accents: false, lowercase: false,
      });
      const lower = flag("lowercase", true), strips = object["strip_accents"] == null ? lower : flag("strip_accents");
      return (text) => {
        const clean = bert.normalize(text), bare = strips ? clean.normalize("NFD").replace(/\p{Mn}/gu, "") : clean;
        return lower ? lowercase(bare) : bare;
      };
    }
    case "Sequence": {
      const all = list("normalizers").map((one, i) => normalizer(one, `${field}.normalizers[${i}]`, fail));
      return (text) => all.reduce((rest, one) => one(rest), text);
    }
    default: return unsupported("NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace, ByteLevel, BertNormalizer and Sequence");
  }
}

/**
 * Tokens to text, as tokenizer.json's "decoder" says, while the tokens come. Each decoder of Hugging Face's tokenizers
 * is a stage that gives on whatever can no longer change and holds the rest back, so that the pieces of a text that is
 * shown token by token are the text decoded whole, by construction: both go through the same stages.
 *
 * Source: huggingface/tokenizers 0.23, src/decoders/ and src/pre_tokenizers/{byte_level,metaspace}.rs (decode_chain).
 */
import { fields, type Fail } from "./json_fields.js";
import { patternOf, prependScheme } from "./tokenizer_json.js";

/** A list of tokens on its way: any number of times (add* next), then end. */
export interface Stage {
  /** Takes more text of the present token. */
  add(text: string): void;
  /** Says that the present token is complete; another one may follow. */
  next(): void;
  /** Says that no more tokens come. */
  end(): void;
}

/** Makes a decoder's stage before `out`. */
export type StageMaker = (out: Stage) => Stage;

/** A stage that looks at whole tokens: `emit` gets each with its position. */
function wholeTokens(out: Stage, emit: (token: string, index: number) => void, end: () => void = () => {}): Stage {
  let token = "";
  let index = 0;
  return {
    add(text) {
      token += text;
    },
    next() {
      const whole = token;
      token = "";
      emit(whole, index++);
    },
    end() {
      end();
      out.end();
    },
  };
}

function send(out: Stage, token: string): void {
  out.add(token);
  out.next();
}

/** Replaces each occurrence of `pattern`; holds back no more than could be the beginning of one. */
function replacing(out: Stage, pattern: string, content: string): Stage {
  let held = "";
  return {
    add(text) {
      const parts = (held + text).split(pattern);
      const rest = parts.pop()!;
      let keep = Math.min(rest.length, pattern.length - 1);
      while (keep > 0 && !pattern.startsWith(rest.slice(rest.length - keep))) keep--;
      held = rest.slice(rest.length - keep);
      out.add(parts.map((part) => part + content).join("") + rest.slice(0, rest.length - keep));
    },
    next() {
      out.add(held);
      held = "";
      out.next();
    },
    end() {
      out.end();
    },
  };
}

/** transformers' clean_up_tokenization_spaces, in its order. */
const CLEAN_UP = [
  [" .", "."],
  [" ?", "?"],
  [" !", "!"],
  [" ,", ","],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];
/** The cleanup of the WordPiece and CTC decoders, which has one line more. */
const DECODER_CLEAN_UP = [...CLEAN_UP.slice(0, 7), [" do not", " don't"], ...CLEAN_UP.slice(7)];

const chain = (out: Stage, makers: readonly StageMaker[]): Stage => makers.reduceRight((next, make) => make(next), out);
const cleaning =
  (lines: string[][]): StageMaker =>
  (out) =>
    chain(
      out,
      lines.map(
        ([from, to]) =>
          (next) =>
            replacing(next, from!, to!),
      ),
    );

/** Joins all tokens into one. */
const fuse: StageMaker = (out) => ({
  add(text) {
    out.add(text);
  },
  next() {},
  end() {
    out.next();
    out.end();
  },
});

/** Takes spaces away before punctuation and contractions in the whole text (clean_up_tokenization_spaces). */
export const cleanUp: StageMaker = (out) => fuse(cleaning(CLEAN_UP)(out));

/** Without a decoder, tokens stand apart by spaces. */
const joinBySpaces: StageMaker = (out) =>
  wholeTokens(out, (token, index) => send(out, index === 0 ? token : ` ${token}`));

/** GPT-2's characters for bytes: printable Latin-1 stands for itself, the other bytes for U+0100 onwards. */
const BYTES = new Map<string, number>();
for (let byte = 0, next = 256; byte < 256; byte++) {
  const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  BYTES.set(String.fromCharCode(printable ? byte : next++), byte);
}

/** The bytes of a token; one with any other character stands for itself. */
function tokenBytes(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => BYTES.get(character));
  return bytes.includes(undefined) ? new TextEncoder().encode(token) : Uint8Array.from(bytes as number[]);
}

const byteLevel: StageMaker = (out) => {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return wholeTokens(
    out,
    (token) => out.add(decoder.decode(tokenBytes(token), { stream: true })),
    () => {
      out.add(decoder.decode());
      out.next();
    },
  );
};

const byteFallback: StageMaker = (out) => {
  let bytes: number[] = [];
  const flush = (): void => {
    if (bytes.length === 0) return;
    try {
      send(out, new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes)));
    } catch {
      for (const _ of bytes) send(out, "\ufffd");
    }
    bytes = [];
  };
  return wholeTokens(
    out,
    (token) => {
      if (/^<0x[0-9A-Fa-f]{2}>$/.test(token)) bytes.push(parseInt(token.slice(3, 5), 16));
      else {
        flush();
        send(out, token);
      }
    },
    flush,
  );
};

function metaspace(replacement: string, prependScheme: string): StageMaker {
  return (out) => {
    let first = prependScheme !== "never";
    return {
      add(text) {
        out.add(text.replaceAll(replacement, first ? "" : " "));
      },
      next() {
        first = false;
        out.next();
      },
      end() {
        out.end();
      },
    };
  };
}

function wordPiece(prefix: string, cleanup: boolean): StageMaker {
  return (out) => {
    const cleaned = cleanup ? cleaning(DECODER_CLEAN_UP)(out) : out;
    return wholeTokens(cleaned, (token, index) =>
      send(cleaned, index === 0 ? token : token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`),
    );
  };
}

/** The suffix is a space, but at the end of the text: what follows its first occurrence waits for the next token. */
function bpe(suffix: string): StageMaker {
  return (out) => {
    let held: string | undefined;
    const flush = (content: string): void => {
      if (held === undefined) return;
      out.add(held.replaceAll(suffix, content));
      out.next();
      held = undefined;
    };
    return wholeTokens(
      out,
      (token) => {
        flush(" ");
        const cut = token.indexOf(suffix);
        out.add(cut < 0 ? token : token.slice(0, cut));
        held = cut < 0 ? "" : token.slice(cut);
      },
      () => flush(""),
    );
  };
}

function ctc(padToken: string, wordDelimiter: string, cleanup: boolean): StageMaker {
  return (out) => {
    const replaced = (next: Stage): Stage =>
      cleanup ? cleaning([...DECODER_CLEAN_UP, [wordDelimiter, " "]])(next) : next;
    // Equal tokens in a row are one; what is left empty is none.
    const shown = wholeTokens(out, (token) => {
      if (token !== "") send(out, token);
    });
    const cleaned = replacing(replaced(shown), padToken, "");
    let last: string | undefined;
    return wholeTokens(cleaned, (token) => {
      if (token !== last) send(cleaned, token);
      last = token;
    });
  };
}

/** Up to `start` and `stop` times `content` at either end of a token. */
function strip(content: string, start: number, stop: number): StageMaker {
  return (out) => {
    let leading = 0;
    let held = "";
    return {
      add(text) {
        while (leading < start && text.startsWith(content)) {
          leading++;
          text = text.slice(content.length);
        }
        if (text === "") return;
        leading = start;
        text = held + text;
        let cut = text.length;
        for (let n = 0; n < stop && text.slice(0, cut).endsWith(content); n++) cut -= content.length;
        held = text.slice(cut);
        out.add(text.slice(0, cut));
      },
      next() {
        leading = 0;
        held = "";
        out.next();
      },
      end() {
        out.end();
      },
    };
  };
}

function regex(pattern: RegExp, content: string): StageMaker {
  return (out) =>
    wholeTokens(out, (token) =>
      send(
        out,
        token.replace(pattern, () => content),
      ),
    );
}

/**
 * @param json of tokenizer.json's decoder, or of one in a Sequence; null: tokens stand apart by spaces
 * @param fail throws, naming the field
 */
export function decoderStage(json: unknown, field: string, fail: Fail): StageMaker {
  if (json === null || json === undefined) return joinBySpaces;
  const { object, type, string, filled, character, flag, count, parts, unsupported } = fields(json, field, fail);
  switch (type) {
    case "ByteLevel":
      return byteLevel;
    case "ByteFallback":
      return byteFallback;
    case "Fuse":
      return fuse;
    case "WordPiece":
      return wordPiece(string("prefix", "##"), flag("cleanup", true));
    case "BPEDecoder":
      return bpe(filled("suffix", "</w>"));
    case "Metaspace":
      return metaspace(character("replacement", "▁"), prependScheme(json, field, fail));
    case "CTC":
      return ctc(filled("pad_token", "<pad>"), filled("word_delimiter_token", "|"), flag("cleanup", true));
    case "Strip":
      return strip(character("content"), count("start"), count("stop"));
    case "Replace":
      return replace();
    case "Sequence": {
      const stages = parts("decoders").map((one, i) => decoderStage(one, `${field}.decoders[${i}]`, fail));
      return (out) => chain(out, stages);
    }
    default:
      return unsupported(
        "ByteLevel, ByteFallback, Fuse, WordPiece, BPEDecoder, Metaspace, CTC, Strip, Replace and Sequence",
      );
  }

  function replace(): StageMaker {
    const content = string("content");
    const { text, regexp } = patternOf(object["pattern"], `${field}.pattern`, fail);
    return text === null ? regex(regexp, content) : (out) => replacing(out, text, content);
  }
}

/**
 * Decoding while tokens come, against the decoders as Hugging Face's tokenizers define them: functions from a whole
 * list of tokens to a whole list (src/decoders/*.rs, decode_chain), written here plainly.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { data } from "../../src/index.js";

type Json = { type: string; [key: string]: unknown };
type Chain = (tokens: string[]) => string[];
const CLEAN_UP: [string, string][] = [
  [" .", "."],
  [" ?", "?"],
  [" !", "!"],
  [" ,", ","],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" do not", " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];
const clean = (text: string, lines = CLEAN_UP): string =>
  lines.reduce((rest, [from, to]) => rest.replaceAll(from, to), text);

const byteOf = new Map<string, number>();
for (let byte = 0, next = 0; byte < 256; byte++) {
  const own = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  byteOf.set(String.fromCodePoint(own ? byte : 256 + next++), byte);
}
const bytesOf = (token: string): number[] => {
  const bytes = [...token].map((character) => byteOf.get(character));
  return bytes.includes(undefined) ? [...new TextEncoder().encode(token)] : (bytes as number[]);
};

function whole(json: Json): Chain {
  const text = (key: string): string => json[key] as string;
  const count = (key: string): number => json[key] as number;
  switch (json.type) {
    case "ByteLevel":
      return (tokens) => [
        new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(tokens.flatMap(bytesOf))),
      ];
    case "Fuse":
      return (tokens) => [tokens.join("")];
    case "Replace":
      return (tokens) =>
        tokens.map((token) => token.replaceAll((json["pattern"] as { String: string }).String, () => text("content")));
    case "Strip":
      return (tokens) =>
        tokens.map((token) => {
          let rest = token;
          for (let i = 0; i < count("start") && rest.startsWith(text("content")); i++) rest = rest.slice(1);
          for (let i = 0; i < count("stop") && rest.endsWith(text("content")); i++) rest = rest.slice(0, -1);
          return rest;
        });
    case "Metaspace":
      return (tokens) =>
        tokens.map((token, i) => token.replaceAll("▁", i === 0 && json["prepend_scheme"] !== "never" ? "" : " "));
    case "BPEDecoder":
      return (tokens) => tokens.map((token, i) => token.replaceAll(text("suffix"), i === tokens.length - 1 ? "" : " "));
    case "WordPiece":
      return (tokens) =>
        tokens.map((token, i) => {
          const joined = i === 0 ? token : token.startsWith("##") ? token.slice(2) : ` ${token}`;
          return json["cleanup"] ? clean(joined) : joined;
        });
    case "CTC":
      return (tokens) =>
        tokens
          .filter((token, i) => i === 0 || token !== tokens[i - 1])
          .map((token) => {
            const bare = token.replaceAll("<pad>", "");
            return json["cleanup"] ? clean(bare).replaceAll("|", " ") : bare;
          })
          .filter((token) => token !== "");
    case "ByteFallback":
      return (tokens) => {
        const out: string[] = [];
        let bytes: number[] = [];
        const flush = (): void => {
          try {
            if (bytes.length > 0)
              out.push(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes)));
          } catch {
            out.push(...bytes.map(() => "\ufffd"));
          }
          bytes = [];
        };
        for (const token of tokens) {
          if (/^<0x[0-9A-F]{2}>$/.test(token)) bytes.push(Number(token.slice(1, 5)));
          else {
            flush();
            out.push(token);
          }
        }
        flush();
        return out;
      };
    default:
      return (tokens) => (json["decoders"] as Json[]).reduce((rest, one) => whole(one)(rest), tokens);
  }
}

const TOKENS = [
  "a",
  "b",
  " ",
  "▁",
  "▁a",
  "a▁",
  "</w>",
  "a</w>",
  "</w",
  ">",
  "##b",
  "##",
  "<pad>",
  "|",
  "n't",
  " n",
  "'t",
  "'",
  " '",
  "s",
  " .",
  ".",
  " do",
  " not",
  "Ã",
  "©",
  "ðŁ",
  "IJ³",
  "Ġ",
  "é",
  "日",
  "🐳",
  "",
  "\u0301",
  "$&",
  "<0xC3>",
  "<0xA9>",
  "<0xF0>",
  "<0x9F>",
  "<0x90>",
  "<0xB3>",
  "<0x41>",
  "<0x80>",
  "<s>",
];
const simple: fc.Arbitrary<Json> = fc.oneof(
  fc.constantFrom<Json>(
    { type: "ByteLevel" },
    { type: "Fuse" },
    { type: "ByteFallback" },
    { type: "BPEDecoder", suffix: "</w>" },
    { type: "BPEDecoder", suffix: "aa" },
  ),
  fc.record({
    type: fc.constant("Replace"),
    pattern: fc.record({ String: fc.constantFrom("▁", "a", "aa", "aba", " .", "</w>") }),
    content: fc.constantFrom("", " ", "a", "$&"),
  }),
  fc.record({ type: fc.constant("Strip"), content: fc.constantFrom(" ", "a"), start: fc.nat(2), stop: fc.nat(2) }),
  fc.record({
    type: fc.constant("Metaspace"),
    replacement: fc.constant("▁"),
    prepend_scheme: fc.constantFrom("always", "first", "never"),
  }),
  fc.record({ type: fc.constant("WordPiece"), prefix: fc.constant("##"), cleanup: fc.boolean() }),
  fc.record({
    type: fc.constant("CTC"),
    pad_token: fc.constant("<pad>"),
    word_delimiter_token: fc.constant("|"),
    cleanup: fc.boolean(),
  }),
);
const decoders = fc.oneof(
  simple,
  fc.record({ type: fc.constant("Sequence"), decoders: fc.array(simple, { maxLength: 4 }) }),
);
const vocab = Object.fromEntries(TOKENS.map((token, id) => [token, id]));

function check(decoder: Json | null, ids: number[], type: string, cleanUp: boolean): void {
  const model = type === "BPE" ? { type, vocab, merges: [] } : { type, vocab, unk_token: "a" };
  const tokenizer = new data.Tokenizer(
    { model, decoder, added_tokens: [{ id: vocab["<s>"], content: "<s>", special: true }] },
    { clean_up_tokenization_spaces: cleanUp },
  );
  for (const skipSpecialTokens of [false, true]) {
    const tokens = ids.map((id) => TOKENS[id]!).filter((token) => !(skipSpecialTokens && token === "<s>"));
    const joined = decoder === null ? tokens.join(" ") : whole(decoder)(tokens).join("");
    const expected =
      cleanUp && type !== "BPE"
        ? clean(
            joined,
            CLEAN_UP.filter(([from]) => from !== " do not"),
          )
        : joined;
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens }), expected);
    let shown = "";
    for (const piece of tokenizer.decodeStream(ids, { skipSpecialTokens })) {
      assert.notEqual(piece, "");
      shown += piece;
      assert.ok(expected.startsWith(shown), `${JSON.stringify(shown)} was shown of ${JSON.stringify(expected)}`);
    }
    assert.equal(shown, expected);
  }
}

test("every decoder, and every sequence of some, shows what it decodes whole", () => {
  fc.assert(
    fc.property(
      fc.option(decoders),
      fc.array(fc.nat(TOKENS.length - 1), { maxLength: 12 }),
      fc.constantFrom("BPE", "WordLevel"),
      fc.boolean(),
      check,
    ),
    { seed: 1, numRuns: 3000 },
  );
});

test.run();

/**
 * Texts for language models: files to text, text to tokens, tokens to text.
 * @module
 */
export { decodeText } from "./text.js";
export { specialTokens, type SpecialTokens, type TokenIds } from "./special_tokens.js";
export { loadTokenizer, Tokenizer, type DecodeOptions, type EncodeOptions } from "./tokenizer.js";

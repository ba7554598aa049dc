/**
 * Texts for language models: files to text, text to tokens, tokens to batches, and back to text.
 * @module
 */
export { answersOf, type Answer } from "./answers.js";
export { collate, type Batch, type CollateOptions } from "./collate.js";
export { rowsOfStep, stepsPerEpoch, type RowsOfStepOptions } from "./order.js";
export {
  readExamples,
  type ChatMessage,
  type ContentPart,
  type Example,
  type ReadExamplesOptions,
  type RowFormat,
} from "./examples.js";
export type { TrainingRow } from "./labels.js";
export { padTexts, type PaddedTexts, type PadTextsOptions } from "./pad.js";
export { isRowsFile, parseRows, type DataRow } from "./rows.js";
export { decodeText } from "./text.js";
export { ChatTemplate, type ChatTemplateOptions, type RenderOptions } from "./chat_template.js";
export { endOfTurnIds, type EndOfTurnOptions } from "./end_of_turn.js";
export { generationConfig, type GenerationConfig } from "./generation_config.js";
export { previewRow, summarize, type DataSummary, type LengthBin, type PreviewRun } from "./preview.js";
export { specialTokens, type SpecialTokens, type TokenIds } from "./special_tokens.js";
export {
  tokenizeExamples,
  type LossOn,
  type SkippedExample,
  type TokenizedData,
  type TokenizeExamplesOptions,
} from "./tokenize.js";
export { untilStopString } from "./stop_strings.js";
export { loadTokenizer, Tokenizer, type DecodeOptions, type EncodeOptions } from "./tokenizer.js";
export {
  evenWindows,
  randomWindows,
  trainTestSplit,
  type RandomWindowsOptions,
  type TextWindows,
  type Tokens,
} from "./windows.js";

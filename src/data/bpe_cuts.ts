/** Where BPE can be given a text in parts: it takes time that grows faster than what it is given at once. */

/** Cuts a text into parts whose tokens, one after another, are those of the whole. */
export type Cut = (text: string) => string[];

/**
 * BPE begins with characters and joins neighbours that merges name. What first joins the two sides of a place has its
 * end there and its beginning: without a merge whose left token ends with the one character and whose right token
 * begins with the other, nothing ever reaches across, and either side is merged as if it were alone. A SentencePiece
 * vocabulary has none that end before "▁", so its texts fall into words.
 */
export function bpeCut(merges: Iterable<readonly [left: string, right: string]>): Cut {
  /** By the character before a place: those behind it that some merge joins to it. */
  const joined = new Map<number, Set<number>>();
  for (const [left, right] of merges) {
    const before = Array.from(left).at(-1)!.codePointAt(0)!;
    let behind = joined.get(before);
    if (behind === undefined) joined.set(before, (behind = new Set()));
    behind.add(right.codePointAt(0)!);
  }
  return (text) => {
    const parts: string[] = [];
    let start = 0;
    let behind: Set<number> | undefined;
    for (let i = 0; i < text.length; ) {
      const character = text.codePointAt(i)!;
      if (i > 0 && !behind?.has(character)) {
        parts.push(text.slice(start, i));
        start = i;
      }
      behind = joined.get(character);
      i += character > 0xffff ? 2 : 1;
    }
    parts.push(text.slice(start));
    return parts;
  };
}

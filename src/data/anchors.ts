/** Where a text is cut whatever else is in it: at added tokens ("<|im_end|>"), which are looked for before all else. */

/** A token at its place in a text. */
export interface Anchor {
  readonly start: number;
  readonly end: number;
  readonly id: number;
}

/** Tokens by their characters. */
interface Branch {
  id: number | null;
  readonly next: Map<string, Branch>;
}

/** Finds added tokens as tokenizers do: from left to right, the longest at each place. */
export class AnchorFinder {
  readonly #root: Branch = { id: null, next: new Map() };
  /** Characters of the longest. */
  readonly longest: number;

  constructor(tokens: Iterable<{ readonly id: number; readonly content: string }>) {
    let longest = 0;
    for (const { id, content } of tokens) {
      let branch = this.#root;
      for (let i = 0; i < content.length; i++) {
        const character = content[i]!;
        let next = branch.next.get(character);
        if (!next) branch.next.set(character, (next = { id: null, next: new Map() }));
        branch = next;
      }
      branch.id = id;
      longest = Math.max(longest, content.length);
    }
    this.longest = longest;
  }

  find(text: string): Anchor[] {
    const found: Anchor[] = [];
    for (let start = 0; start < text.length; ) {
      const one = this.#longestAt(text, start);
      if (one) found.push(one);
      start = one ? one.end : start + 1;
    }
    return found;
  }

  #longestAt(text: string, start: number): Anchor | undefined {
    let best: Anchor | undefined;
    let branch = this.#root.next.get(text[start]!);
    for (let end = start + 1; branch; end++) {
      if (branch.id !== null) best = { start, end, id: branch.id };
      branch = end < text.length ? branch.next.get(text[end]!) : undefined;
    }
    return best;
  }
}

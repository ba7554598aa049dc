/** Elements by their ids, and sentences in them. */
export const $ = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;

export function show(id: string, value: string): void {
  $(id).textContent = value;
}

/** For a screen reader; nothing is seen of it. */
export function announce(sentence: string): void {
  show("announce", sentence);
}

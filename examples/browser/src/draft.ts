/** What is in the fields, kept for the next visit. */
import { get, set } from "idb-keyval";

export interface Draft { text: string; rank: string; steps: string; prompt: string }

const KEY = "draft";
let timer: ReturnType<typeof setTimeout> | undefined;

/** Written a moment after the last change. Where nothing can be kept, nothing is: the worker says so when it matters. */
export function keepDraft(draft: Draft): void {
  clearTimeout(timer);
  timer = setTimeout(() => void set(KEY, draft).catch(() => {}), 300);
}

export function loadDraft(): Promise<Draft | undefined> { return get<Draft>(KEY).catch(() => undefined); }

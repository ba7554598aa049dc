/** What is in the fields, kept for the next visit. */
import { get, set } from "idb-keyval";

export interface Draft {
  text: string;
  rank: string;
  steps: string;
  prompt: string;
}

export const DRAFT = "draft";
let timer: ReturnType<typeof setTimeout> | undefined;
let waiting: Draft | undefined;

/**
 * Written a moment after the last change. Where nothing can be kept, nothing is: the worker says so when it matters.
 */
export function keepDraft(draft: Draft): void {
  waiting = draft;
  clearTimeout(timer);
  timer = setTimeout(keepNow, 300);
}

/** Writes what waits: the page may go, or a run that brings its own fields begins. */
export function keepNow(): void {
  clearTimeout(timer);
  if (waiting) void set(DRAFT, waiting).catch(() => {});
  waiting = undefined;
}

export function loadDraft(): Promise<Draft | undefined> {
  return get<Draft>(DRAFT).catch(() => undefined);
}

/** What is in the fields, kept for the next visit. */
import { del, get, set } from "idb-keyval";
import type { Settings } from "./views";

/** A run's settings as they stand in its fields. */
export type Fields = Record<keyof Settings, string>;

export interface Draft extends Fields {
  text: string;
}

/** A file of rows that was opened; kept apart, since it does not change with every letter that is typed. */
export interface DraftFile {
  name: string;
  bytes: Uint8Array;
}

export const DRAFT = "draft";
const FILE = "draft-file";
let timer: ReturnType<typeof setTimeout> | undefined;
let waiting: Draft | undefined;

export function fieldsOf({ rank, steps, epochs, patience, prompt }: Settings): Fields {
  return { rank: `${rank}`, steps: `${steps}`, epochs: `${epochs}`, patience: `${patience}`, prompt };
}

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

export function keepFile(file: DraftFile | null): void {
  void (file ? set(FILE, file) : del(FILE)).catch(() => {});
}

export function loadFile(): Promise<DraftFile | undefined> {
  return get<DraftFile>(FILE).catch(() => undefined);
}

/**
 * The run in IndexedDB, and the one saved before it, each under a digest. A change is written whole or not at all, and
 * only over what this tab has seen: another tab's run is never replaced unseen.
 */
import { createStore, promisifyRequest } from "idb-keyval";
import { train } from "wasm-lora";
import { DRAFT, type Draft } from "../draft";
import { Refusal } from "../refusal";
import { packRows, unpackRows, type Rows } from "./rows";
import type { SavedRun } from "./run";

export interface KeptRun {
  /** The run's state, with the rest of it as notes, as the library writes it. */
  checkpoint: Uint8Array;
  /** The rows that it learns from, if it does not learn a text. */
  rows: Uint8Array | null;
  /** Another number with each save: by it a tab knows the record that it has seen. */
  revision: number;
}

const LATEST = "run";
const BEFORE = "run-before";
/** Where idb-keyval keeps the draft too. */
const store = createStore("keyval-store", "keyval");

/** Rows stay the same from save to save. */
const packed = new WeakMap<Rows, ReturnType<typeof packRows>>();

export function seal({ state, rows, ...notes }: SavedRun): KeptRun {
  const pack = rows && (packed.get(rows) ?? packRows(rows));
  if (rows && pack) packed.set(rows, pack);
  const checkpoint = train.encodeCheckpoint(state, { ...notes, rows: pack?.digest ?? null });
  return { checkpoint, rows: pack?.bytes ?? null, revision: Math.random() };
}

/** The run of a record; null: it is not what was sealed, to the bit. */
export function unseal(record: unknown): SavedRun | null {
  try {
    const { checkpoint, rows } = record as KeptRun;
    const { state, notes } = train.decodeCheckpoint(checkpoint);
    const { rows: digest, ...rest } = notes as unknown as Omit<SavedRun, "state" | "rows"> & { rows: string | null };
    return { ...rest, rows: digest === null ? null : unpackRows(rows!, digest), state };
  } catch {
    return null; // it does not even have the parts of a run
  }
}

export function revisionOf(record: unknown): number | null {
  return (record as Partial<KeptRun> | undefined)?.revision ?? null;
}

export function readRuns(): Promise<{ latest: unknown; before: unknown }> {
  return store("readonly", async (runs) => {
    const [latest, before] = await Promise.all([LATEST, BEFORE].map((key) => promisifyRequest<unknown>(runs.get(key))));
    return { latest, before };
  });
}

/**
 * The latest becomes the one before.
 * @param draft the fields that belong to the run, if they are to be written with it
 */
export function writeRun(next: KeptRun, seen: number | null, draft?: Draft): Promise<void> {
  return change(seen, (runs, latest) => {
    if (latest !== undefined) runs.put(latest, BEFORE);
    runs.put(next, LATEST);
    if (draft) runs.put(draft, DRAFT);
  });
}

/** The one before takes the latest's place. */
export function returnToBefore(before: KeptRun, seen: number | null): Promise<void> {
  return change(seen, (runs) => {
    runs.put(before, LATEST);
  });
}

export function deleteRuns(seen: number | null): Promise<void> {
  return change(seen, (runs) => {
    runs.delete(LATEST);
    runs.delete(BEFORE);
  });
}

/** One transaction. @throws Refusal if the latest is not the one that was seen; then nothing is changed */
async function change(seen: number | null, make: (runs: IDBObjectStore, latest: unknown) => void): Promise<void> {
  let refusal: Refusal | undefined;
  try {
    await store("readwrite", (runs) => {
      const done = promisifyRequest(runs.transaction);
      const reading = runs.get(LATEST) as IDBRequest<unknown>;
      reading.onsuccess = () => {
        if (revisionOf(reading.result) === seen) return make(runs, reading.result);
        refusal = new Refusal(
          "page",
          "Another tab of this page has saved a run since this one last looked. It was not overwritten: reload to " +
            "go on with it.",
        );
        runs.transaction.abort();
      };
      return done;
    });
  } catch (error) {
    throw refusal ?? error;
  }
}

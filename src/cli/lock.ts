/**
 * One run owns its output folder: a file in it names the owner while the run goes on. A killed run leaves its file;
 * whether its owner lives is told by the process, where that can be seen from here, else by when the file was last
 * touched.
 */
import { randomBytes } from "node:crypto";
import { linkSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { readBytes } from "../io/files.js";
import { show } from "../io/json.js";
import { FileError, StateError } from "../runtime/errors.js";

/** Its name in the folder. */
export const LOCK_FILE = ".wasm-lora.lock";
/** An owner touches its file this often, while it gets to do so. */
const TOUCH_MS = 5_000;
/** An owner on another machine, or in another container, counts as dead when it did not for so long. */
const DEAD_MS = 120_000;

interface Owner {
  host: string;
  /** Of the machine's start: the same process number after another start is another process. */
  boot: string;
  /** In which process numbers count: containers have their own. */
  space: string;
  process: number;
  /** When the process began, in the system's ticks. */
  began: string;
  /** Of this lock alone. */
  token: string;
}

/** An owner's side of the lock. */
export interface FolderLock {
  /** Says that the run is alive. @throws StateError if another run has taken the folder meanwhile */
  keep(): void;
  /** Gives the folder back. */
  release(): void;
}

/** Who has a folder. */
interface Holder {
  who: string;
  /** Seconds since it was last seen. */
  seen: number;
  /** Its lock. */
  path: string;
}

/**
 * Takes a folder, which must exist, for one run, or refuses.
 * @param where the command, for errors
 * @throws FileError naming the owner if another run has it
 */
export function lockFolder(where: string, folder: string): FolderLock {
  if (folder.startsWith("memory:")) return lockInMemory(where, folder);
  const lock = tryLock(where, folder);
  if ("keep" in lock) return lock;
  throw new FileError(
    `${where}: another run has ${folder} (${lock.who}, last seen ${lock.seen} s ago): wait for its end ` +
      `or choose another --out; ` +
      `if it is dead, remove ${lock.path}.`,
  );
}

/** As `lockFolder`, of a folder on the disk; another owner is no error. */
export function tryLock(where: string, folder: string): FolderLock | Holder {
  const path = `${folder}/${LOCK_FILE}`;
  const self = describeSelf();
  // A dead owner's lock is taken away once or twice; who has to do it more often competes with other runs.
  for (let attempts = 0; !create(path, self); attempts++) {
    const owner = readOwner(path);
    const age = ageOf(path);
    if (attempts > 8 || (owner ? isAlive(owner, self, age) : age < DEAD_MS)) {
      const who = owner ? `process ${owner.process} on ${show(owner.host)}` : "an owner that it does not name";
      return { who, seen: Math.round(age / 1000), path };
    }
    takeAway(path, owner?.token);
  }
  let touched = Date.now();
  const isOurs = (): boolean => readOwner(path)?.token === self.token;
  const release = (): void => {
    process.off("exit", release);
    if (isOurs())
      tryTo(() => {
        rmSync(path, { force: true });
      });
  };
  process.once("exit", release);
  return {
    keep: () => {
      if (Date.now() - touched < TOUCH_MS) return;
      touched = Date.now();
      if (!isOurs())
        throw new StateError(
          `${where}: another run has taken ${folder} since, for this one gave no sign of life; nothing more is ` +
            `written.`,
        );
      tryTo(() => {
        utimesSync(path, touched / 1000, touched / 1000);
      });
    },
    release,
  };
}

/** Cares for the lock, and lets the run go on if that fails: at worst somebody else must find out whether it lives. */
function tryTo(care: () => void): void {
  try {
    care();
  } catch {
    // The folder is gone, or has become read-only: what is written into it next says so.
  }
}

/** Folders of io.memoryFiles: their runs are all in this process. */
const taken = new Set<string>();

function lockInMemory(where: string, folder: string): FolderLock {
  if (taken.has(folder))
    throw new FileError(`${where}: another run has ${folder}: wait for its end or choose another --out.`);
  taken.add(folder);
  return {
    keep: () => {},
    release: () => {
      taken.delete(folder);
    },
  };
}

/** Whether the lock was made; no reader sees it half-written, and it is never made twice. */
function create(path: string, self: Owner): boolean {
  const contents = JSON.stringify(self);
  const draft = `${path}.${process.pid}.${self.token}.tmp`;
  try {
    writeFileSync(draft, contents, { flag: "wx" });
    try {
      linkSync(draft, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") throw error;
      // This file system has no links, so the lock is written in place.
      writeFileSync(path, contents, { flag: "wx" });
    }
    return true;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST") return false;
    throw new FileError(`cannot write ${path}: ${message}.`, { cause });
  } finally {
    rmSync(draft, { force: true });
  }
}

/** Removes a dead owner's lock; if somebody else did so first and made its own, that is put back. */
function takeAway(path: string, token: string | undefined): void {
  const aside = `${path}.${process.pid}.${randomBytes(8).toString("hex")}.tmp`;
  try {
    renameSync(path, aside);
    if (readOwner(aside)?.token !== token) linkSync(aside, path);
  } catch {
    // Somebody else took it away meanwhile; the next attempt sees what is there now.
  }
  rmSync(aside, { force: true });
}

function readOwner(path: string): Owner | undefined {
  try {
    const owner = JSON.parse(new TextDecoder().decode(readBytes(path))) as Partial<Owner> | null;
    const isText = (v: unknown): boolean => typeof v === "string";
    return owner !== null &&
      isText(owner.host) &&
      isText(owner.boot) &&
      isText(owner.space) &&
      isText(owner.began) &&
      isText(owner.token) &&
      Number.isSafeInteger(owner.process)
      ? (owner as Owner)
      : undefined;
  } catch {
    return undefined;
  }
}

function ageOf(path: string): number {
  try {
    return Math.max(0, Date.now() - statSync(path).mtimeMs);
  } catch {
    return Infinity;
  }
}

function isAlive(owner: Owner, self: Owner, age: number): boolean {
  // The owner is a process of this machine, so it can be asked for; one of the same number that began at another time
  // is another process.
  if (owner.host === self.host && owner.boot === self.boot && owner.space === self.space) {
    if (!isRunning(owner.process)) return false;
    if (owner.began !== "") return beganAt(owner.process) === owner.began;
  }
  return age < DEAD_MS;
}

function isRunning(id: number): boolean {
  try {
    process.kill(id, 0);
    return true;
  } catch (error) {
    // EPERM: the process is there and belongs to somebody else.
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

function describeSelf(): Owner {
  const orNothing = (read: () => string): string => {
    try {
      return read();
    } catch {
      return "";
    }
  };
  return {
    host: orNothing(hostname),
    boot: orNothing(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()),
    space: orNothing(() => readlinkSync("/proc/self/ns/pid")),
    process: process.pid,
    began: beganAt(process.pid),
    token: randomBytes(8).toString("hex"),
  };
}

/**
 * Field 22 of Linux' /proc/<id>/stat; the second, a name in brackets, may hold spaces. Of a dead process that nobody
 * fetched: nothing.
 */
function beganAt(id: number): string {
  try {
    const stat = readFileSync(`/proc/${id}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return /^[ZX]$/.test(fields[0]!) ? "" : (fields[19] ?? "");
  } catch {
    return "";
  }
}

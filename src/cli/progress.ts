/**
 * How far long work has come, on stderr: a bar on a terminal, elsewhere a line now and then. Nothing waits for a timer:
 * the work lets nobody in while it computes.
 */
import { SingleBar } from "cli-progress";
import type { LoadProgress } from "../models/index.js";
import { engine, memoryStats } from "../runtime/engine.js";
import type { RowsWatch } from "./data.js";
import { formatTime, megabytes, oneLine } from "./format.js";
import type { EncodingWatch } from "./text.js";

/** Of lines: the first is soon, since somebody wonders whether anything happens. */
const FIRST_LINE_MS = 1000;
const LINE_MS = 5000;
/** Between two looks at work that is going on. */
const LOOK_MS = 200;
/** Below this share of the work no time that is left can be told. */
const FEWEST = 0.005;

interface Progress {
  /** Tells how much of all is done, parts of one too. */
  at(done: number, values?: Record<string, string | number>): void;
  /** Lets something else write meanwhile. */
  aside<T>(work: () => T): T;
  stop(): void;
}

interface Shown {
  total: number;
  /** What was done before. */
  first?: number | undefined;
  /** What stands before the bar. */
  label?: string | undefined;
  /** Writes an amount. */
  amount?: ((n: number) => string) | undefined;
  /** What stands behind it, with values in braces, and their first values. */
  more?: string | undefined;
  values?: Record<string, string | number> | undefined;
  /** Whether the bar stays when it is done, and is written where there is no terminal, too. */
  stays?: boolean | undefined;
}

/** Whether a line may be drawn over: a log of CI, or a terminal that knows no cursor, keeps all that was written. */
function isDrawnOver(): boolean {
  const { CI, TERM } = process.env;
  return process.stderr.isTTY && !CI && TERM !== "dumb";
}

/** Where bars go; what may not be drawn over is no terminal to them. */
function barStream(): NodeJS.WriteStream {
  const { stderr } = process;
  return isDrawnOver() ? stderr : ({ write: (text: string) => stderr.write(text) } as NodeJS.WriteStream);
}

function show({ total, first = 0, label = "", amount, more = "", values = {}, stays = false }: Shown): Progress {
  const written = amount ?? ((n: number): string => String(Math.floor(n)));
  const start = performance.now();
  const left = (done: number): string => {
    const share = (done - first) / (total - first);
    return share < FEWEST ? "?" : formatTime(((performance.now() - start) / 1000) * (1 / share - 1));
  };
  const isTTY = isDrawnOver();
  if (!isTTY && !stays) {
    let next = start + FIRST_LINE_MS;
    return {
      at: (done) => {
        if (performance.now() < next || done >= total) return;
        next = performance.now() + LINE_MS;
        console.error(`${label ? `${label}: ` : ""}${written(done)}/${written(total)} | ${left(done)} left`);
      },
      aside: (work) => work(),
      stop: () => {},
    };
  }
  const bar = new SingleBar({
    stream: barStream(),
    barsize: 24,
    hideCursor: true,
    noTTYOutput: stays,
    notTTYSchedule: LINE_MS,
    clearOnComplete: !stays,
    formatValue: (value, _, type) => (type === "value" || type === "total" ? written(value) : String(value)),
    format: `${label ? `${label} ` : ""}{bar} {value}/{total}${more} | {left} left`,
  });
  bar.start(total, first, { ...values, left: "?" });
  let drawn = start;
  let isAside = false;
  return {
    at: (done, given = {}) => {
      if (isAside) bar.start(total, done, { ...values, ...given, left: left(done) });
      isAside = false;
      bar.update(done, { ...given, left: left(done) });
      if (isTTY || performance.now() - drawn < LINE_MS) return;
      drawn = performance.now();
      (bar as unknown as { render(): void }).render();
    },
    aside: (work) => {
      // Elsewhere lines do not meet: what is written goes to stdout.
      if (isTTY && !isAside) bar.stop();
      isAside ||= isTTY;
      return work();
    },
    stop: () => {
      if (!isAside) bar.stop();
    },
  };
}

/** The progress of a pass over so many windows, or tokens. */
export function passProgress(label: string, total: number): Progress {
  return show({ label, total });
}

/** The progress of encoding a text of so many characters. */
export function textProgress(characters: number): Progress {
  return show({ label: "Encoding", total: characters });
}

/** The progress of encoding a file that is a text. */
export function encodingProgress(): EncodingWatch {
  let bar: Progress | undefined;
  return {
    began: (characters) => {
      bar = textProgress(characters);
    },
    progress: (done) => {
      bar?.at(done);
    },
    ended: () => bar?.stop(),
  };
}

/** The progress of encoding rows, file by file. */
export function rowsProgress(): RowsWatch {
  let bar: Progress | undefined;
  return {
    began: (file, rows) => {
      bar = show({ label: `Encoding ${oneLine(file)}`, total: rows });
    },
    progress: (done) => {
      bar?.at(done);
    },
    ended: () => bar?.stop(),
  };
}

/** The progress of loading a model's files, one after the other. */
export function loadingProgress(): { onProgress(progress: LoadProgress): void; stop(): void } {
  let bar: Progress | undefined;
  let shown = "";
  return {
    onProgress: ({ file, loaded, total }) => {
      if (total === null) return;
      if (shown !== file) {
        bar?.stop();
        bar = show({ label: file, total, amount: (n) => `${megabytes(n)} MB` });
        shown = file;
      }
      bar!.at(loaded);
    },
    stop: () => {
      bar?.stop();
    },
  };
}

/** The progress of training; a step's values are its loss and its tokens a second. */
export function trainingProgress(total: number, first: number): Progress {
  const progress = show({
    total,
    first,
    more: " | loss {loss} | {rate} tokens/s | peak {memory} MB",
    values: { loss: "-", rate: "-", memory: "-" },
    stays: true,
  });
  return {
    ...progress,
    at: (done, values) => {
      progress.at(done, { ...values, memory: megabytes(memoryStats().peakBytes) });
    },
  };
}

/** The progress of a download, in bytes. */
export function downloadProgress(total: number, done: number): { add(bytes: number): void; stop(): void } {
  const bar = new SingleBar({
    stream: barStream(),
    barsize: 24,
    hideCursor: true,
    formatTime,
    // The speed of the last seconds, not of the last parts, of which there are hundreds in one.
    etaBuffer: 500,
    format: "{bar} {value}/{total} MB | {eta_formatted} left",
    formatValue: (value, _, type) => (type === "value" || type === "total" ? megabytes(value) : String(value)),
    noTTYOutput: true,
    notTTYSchedule: LINE_MS,
  });
  bar.start(total, done);
  return {
    add: (bytes) => {
      bar.increment(bytes);
    },
    stop: () => {
      bar.stop();
    },
  };
}

/**
 * Runs work that lets nobody in, and tells now and then how far it is.
 * @param blocks of memory that the work takes in all, as a rehearsal counts them: they come along with the work
 * @param told a share of it
 */
export function watched<T>(blocks: number, told: (share: number) => void, work: () => T): T {
  const { memory } = engine();
  const first = memory.allocations;
  let next = performance.now() + LOOK_MS;
  memory.onAlloc = () => {
    if (performance.now() < next) return;
    told(Math.min(1, (memory.allocations - first) / blocks));
    next = performance.now() + LOOK_MS;
  };
  try {
    return work();
  } finally {
    memory.onAlloc = null;
  }
}

/** Says what takes its time, to somebody who waits: what is written into files and pipes is the result alone. */
export function announce(text: string): void {
  if (process.stderr.isTTY) console.error(text);
}

/** How far long work has come: a bar on a terminal; of training a line now and then elsewhere. */
import { SingleBar } from "cli-progress";
import { memoryStats } from "../runtime/engine.js";
import { formatTime, megabytes } from "./format.js";

const OPTIONS = { barsize: 24, hideCursor: true, etaBuffer: 50, formatTime };

interface Progress {
  step(values?: Record<string, string | number>): void;
  stop(): void;
}

/** The progress of a pass over `total` windows, on a terminal alone. */
export function passProgress(label: string, total: number): Progress {
  return start(
    new SingleBar({
      ...OPTIONS,
      format: `${label} {bar} {value}/{total} | {eta_formatted} left`,
      clearOnComplete: true,
    }),
    total,
    0,
    {},
  );
}

/** The progress of encoding a text of so many characters, on a terminal alone. */
export function textProgress(characters: number): { at(done: number): void; stop(): void } {
  const bar = new SingleBar({
    ...OPTIONS,
    format: "{bar} {percentage} % | {eta_formatted} left",
    clearOnComplete: true,
  });
  bar.start(characters, 0);
  return {
    at: (done) => {
      bar.update(done);
    },
    stop: () => {
      bar.stop();
    },
  };
}

/** The progress of training; a step's values are its loss and its tokens a second. */
export function trainingProgress(total: number, done: number): Progress {
  const format = "{bar} {value}/{total} | loss {loss} | {rate} tokens/s | {eta_formatted} left | peak {memory} MB";
  const progress = start(new SingleBar({ ...OPTIONS, format, noTTYOutput: true, notTTYSchedule: 5000 }), total, done, {
    loss: "-",
    rate: "-",
    memory: "-",
  });
  return {
    ...progress,
    step: (values) => {
      progress.step({ ...values, memory: megabytes(memoryStats().peakBytes) });
    },
  };
}

/** The progress of a download, in bytes. */
export function downloadProgress(total: number, done: number): { add(bytes: number): void; stop(): void } {
  const bar = new SingleBar({
    ...OPTIONS,
    // The speed of the last seconds, not of the last parts, of which there are hundreds in one.
    etaBuffer: 500,
    format: "{bar} {value}/{total} MB | {eta_formatted} left",
    formatValue: (value, _, type) => (type === "value" || type === "total" ? megabytes(value) : String(value)),
    noTTYOutput: true,
    notTTYSchedule: 5000,
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

function start(bar: SingleBar, total: number, done: number, values: Record<string, string>): Progress {
  bar.start(total, done, values);
  return {
    step: (values) => {
      bar.increment(1, values ?? {});
    },
    stop: () => {
      bar.stop();
    },
  };
}

/** Says what takes its time, to somebody who waits: what is written into files and pipes is the result alone. */
export function announce(text: string): void {
  if (process.stderr.isTTY) console.error(text);
}

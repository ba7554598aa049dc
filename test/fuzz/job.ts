/** What the watchdog and its workers tell each other. */
export interface Job {
  target: string;
  seed: number;
  /** Inputs from .. to - 1; below 0 are those kept, -1 the last of them. */
  from: number;
  to: number;
  skip: readonly number[];
  /**
   * Words: the clock that ticks at each phase of each input, the input, its bytes, resident bytes (in KiB) before it
   * ran.
   */
  shared: SharedArrayBuffer;
}

export const CLOCK = 0,
  INPUT = 1,
  SIZE = 2,
  RESIDENT = 3;

export interface Progress {
  kind: "progress";
  /** The last input that is counted here. */
  index: number;
  accepted: number;
  refused: Record<string, number>;
  slowest: { ms: number; index: number; bytes: number };
  /** Most bytes that one input took, in linear memory and on the heap. */
  bytes: number;
}
export interface Fault {
  kind: "fault";
  index: number;
  title: string;
  stack: string;
}

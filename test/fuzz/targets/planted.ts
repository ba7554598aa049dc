/** Faults of every kind on purpose, to see that the harness finds them. It is no target of a run. */
import { FormatError, zeros } from "../../../src/index.js";
import { must, type Target } from "../target.js";

const FAULTS: (() => void)[] = [
  () => {},
  () => {
    throw new FormatError("refused");
  },
  () => {
    throw new TypeError("not ours");
  },
  () => {
    must(false, () => "does not hold");
  },
  () => {
    zeros([4]);
  },
  () => {
    for (;;);
  },
  () => {
    (Object.prototype as { polluted?: number }).polluted = 1;
  },
  () => {
    throw new FormatError("n".repeat(10), { cause: hog(40) });
  },
  () => {},
];

const held: number[][] = [];
/** Keeps as many MB of numbers. */
function hog(megabytes: number): number {
  for (let i = 0; i < megabytes; i++) held.push(new Array<number>(125_000).fill(i + 0.5));
  return held.length;
}

export const planted: Target<{ fault: number }> = {
  name: "planted",
  inputs: FAULTS.length,
  generate: (_, index) => ({ fault: index }),
  run: ({ fault }) => {
    FAULTS[fault]!();
  },
};

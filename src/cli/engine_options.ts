/** What computes: the options of every command whose kernels run, and the engine that they ask for. */
import { Option } from "commander";
import { init, type Engine } from "../runtime/engine.js";
import { integerFrom, rule, type Rule } from "../train/settings.js";
import { parsed, parseNumberOrAuto } from "./option_values.js";

export interface EngineCommand {
  /** Decides no bits. */
  threads?: number | "auto" | undefined;
  /** Decides the last bits. */
  fused?: boolean | undefined;
}

const THREADS: Rule<number | "auto"> = rule(
  "an integer of at least 1, or auto",
  (v) => v === "auto" || integerFrom(1).holds(v),
);

/** `--threads`, `--fused`. */
export function engineOptions(): Option[] {
  return [
    new Option("--threads <n|auto>", "threads that compute, or auto: one for each processor; the same bits with any")
      .argParser(parsed(THREADS, parseNumberOrAuto))
      .default("auto"),
    new Option(
      "--fused",
      "round a matrix product's multiply-adds once: faster where engine and processor do so (Node 22 and later), " +
        "refused elsewhere; other last bits, again the same everywhere",
    ),
  ];
}

/** @throws EngineError for fused arithmetic where there is none */
export function startEngine({ threads, fused }: EngineCommand): Promise<Engine> {
  return init({ threads, fused });
}

/** The two as they must be given again, for a command to paste. */
export function sameEngine({ threads, fused }: EngineCommand, explicit: ReadonlySet<string>): string[] {
  return [...(explicit.has("threads") ? ["--threads", String(threads)] : []), ...(fused ? ["--fused"] : [])];
}

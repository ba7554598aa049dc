/** What computes: the options of every command whose kernels run, and the engine that they ask for. */
import { Option } from "commander";
import { init, type Engine } from "../runtime/engine.js";

export interface EngineCommand {
  /** Decides the last bits. */
  fused?: boolean | undefined;
}

/** `--fused`. */
export function engineOptions(): Option[] {
  return [
    new Option(
      "--fused",
      "round a matrix product's multiply-adds once: faster where engine and processor do so (Node 22 and later), " +
        "refused elsewhere; other last bits, again the same everywhere",
    ),
  ];
}

/** @throws EngineError for fused arithmetic where there is none */
export function startEngine({ fused }: EngineCommand): Promise<Engine> {
  return init({ fused });
}

/** What must be given again, for a command to paste. */
export function sameEngine({ fused }: EngineCommand): string[] {
  return fused ? ["--fused"] : [];
}

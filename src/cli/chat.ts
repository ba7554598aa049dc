/** A conversation in the terminal, or with lines from a pipe, which are answered one after the other. */
import { createInterface } from "node:readline";
import { exists, writeAtomic } from "../io/files.js";
import { ArgumentError, WasmLoraError } from "../runtime/errors.js";
import { oneLine } from "./format.js";
import type { Partner } from "./partner.js";
import { announce } from "./progress.js";

/** Answers a prompt, a piece after the other; what leaves the loop over it ends it. */
export type Say = (prompt: readonly number[], turn: number) => Iterable<string>;

const HELP = `/reset          forget what was said
/system <text>  begin anew with this message of the system's; without a text: with none
/save <file>    write what was said, as rows that finetune --data takes (.jsonl)
/help           this
/quit           end, as Ctrl-D does; Ctrl-C ends an answer, and then the program
A line that ends in \\ goes on in the next one.`;

/**
 * Answers lines until they end. In a terminal what cannot be answered is told and forgotten; lines of a pipe are worth
 * an error.
 * @param write takes an answer's pieces
 */
export async function converse(partner: Partner, say: Say, write: (text: string) => void): Promise<void> {
  const { stdin, stdout, stderr } = process;
  const output = stdout.isTTY ? stdout : stderr;
  const isTerminal = stdin.isTTY && output.isTTY;
  const lines = createInterface({ input: stdin, output: isTerminal ? output : undefined, terminal: isTerminal });
  let isClosed = false;
  lines.once("close", () => {
    isClosed = true;
  });
  /** Lets the next line be typed. */
  const ask = (isFirst: boolean): void => {
    if (!isTerminal || isClosed) return;
    stdin.setRawMode(true);
    lines.setPrompt(isFirst ? "> " : ". ");
    lines.prompt();
  };
  let turn = 0;
  /** Whether to go on. */
  const respond = async (line: string): Promise<boolean> => {
    if (isTerminal && !isClosed) {
      // While an answer is written, the terminal itself makes Ctrl-C a signal.
      lines.pause();
      stdin.setRawMode(false);
    }
    if (line.startsWith("/")) return command(partner, line);
    const pieces = say(partner.promptFor(line), turn++);
    partner.heard(line, await stoppable((isStopped) => answer(pieces, write, isStopped)));
    return true;
  };
  let begun = "";
  announce(partner.greeting);
  try {
    ask(true);
    for await (const typed of lines) {
      const line = begun + typed;
      begun = line.endsWith("\\") ? `${line.slice(0, -1)}\n` : "";
      try {
        if (begun === "" && line.trim() !== "" && !(await respond(line))) break;
      } catch (error) {
        if (!isTerminal || !(error instanceof WasmLoraError)) throw error;
        console.error(oneLine(`${error.name}: ${error.message}`, 2_000));
      }
      ask(begun === "");
    }
  } finally {
    // Whoever holds the other end of an open pipe may be waiting for the program's end, which waits for the pipe's.
    lines.close();
  }
  if (isTerminal) output.write("\n");
}

/**
 * Writes an answer and a newline.
 * @param isStopped asked after each piece
 * @returns what was written
 */
export async function answer(
  pieces: Iterable<string>,
  write: (text: string) => void,
  isStopped: () => boolean = () => false,
): Promise<string> {
  let text = "";
  for (const piece of pieces) {
    text += piece;
    write(piece);
    // Lets signals in, and a pipe that nobody reads any more end the program.
    await new Promise((resolve) => setImmediate(resolve));
    if (isStopped()) break;
  }
  write("\n");
  return text;
}

/** Runs `work` until it ends, which Ctrl-C asks for. */
async function stoppable<T>(work: (isStopped: () => boolean) => Promise<T>): Promise<T> {
  let isStopped = false;
  const stop = (): void => {
    isStopped = true;
  };
  process.on("SIGINT", stop);
  try {
    return await work(() => isStopped);
  } finally {
    process.off("SIGINT", stop);
  }
}

/** @returns whether to go on */
function command(partner: Partner, line: string): boolean {
  const [, name, rest] = /^\/(\S*)\s*(.*)$/s.exec(line)!;
  switch (name) {
    case "reset":
      partner.reset();
      announce("What was said is forgotten.");
      return true;
    case "system":
      partner.setSystem(rest!);
      announce(rest === "" ? "There is no message of the system's now." : "The conversation begins anew.");
      return true;
    case "save":
      save(partner, rest!);
      return true;
    case "help":
      announce(HELP);
      return true;
    case "quit":
      return false;
    default:
      throw new ArgumentError(
        `generate: there is no command /${name}; expected /reset, /system, /save, /help or /quit. A line that begins ` +
          "with a space is text.",
      );
  }
}

function save(partner: Partner, file: string): void {
  if (file === "") throw new ArgumentError("generate: /save needs the name of a file: /save talk.jsonl.");
  const rows = partner.rows();
  if (rows === "") throw new ArgumentError("generate: nothing was said yet, so there is nothing to save.");
  if (exists(file)) throw new ArgumentError(`generate: ${file} is there already; save under another name.`);
  writeAtomic(file, rows);
  announce(`Wrote ${oneLine(file)}.`);
}

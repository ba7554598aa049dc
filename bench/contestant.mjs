/**
 * A contestant in a process of its own, so that its threads, its memory and what it imports disturb no other. It is
 * asked by lines on its standard input and answers each with a line of JSON; the first line, unasked, says what it is:
 *
 *   check NAME   a step from where it is; { loss }, and the factors after it, float32, in the job's file NAME
 *   run COUNT    as many steps; { times: [[milliseconds, milliseconds of all its threads' CPU time], ...] }
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export class Contestant {
  #child;
  #lines;
  #errors = "";
  #ended;

  constructor(command, args) {
    this.#child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] });
    this.#child.stderr.on("data", (text) => {
      this.#errors += text;
    });
    this.#ended = new Promise((resolve) => {
      this.#child.on("close", resolve);
      this.#child.on("error", ({ message }) => {
        this.#errors += message;
        resolve();
      });
    });
    // A contestant that died is told by what it wrote, not by the pipe that it left.
    this.#child.stdin.on("error", () => {});
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** @throws with its error, or its last line of errors, where it ended */
  async #answer() {
    const { value, done } = await this.#lines.next();
    if (!done) return JSON.parse(value);
    await this.#ended;
    const lines = this.#errors.trim().split("\n");
    throw new Error(lines.findLast((line) => line.includes("Error:")) ?? lines.at(-1));
  }

  /** What it says to start with: { ready }. */
  opened() {
    return this.#answer();
  }

  ask(line) {
    this.#child.stdin.write(`${line}\n`);
    return this.#answer();
  }

  close() {
    this.#child.kill();
  }
}

/** How fast a run is, and how long it will take. */

/** Steps that the speed is averaged over. */
const RECENT = 20;

export class Clock {
  readonly #steps: { ms: number; tokens: number }[] = [];
  #evaluationMs = 0;

  step(ms: number, tokens: number): void {
    this.#steps.push({ ms, tokens });
    if (this.#steps.length > RECENT) this.#steps.shift();
  }
  evaluation(ms: number): void {
    this.#evaluationMs = ms;
  }

  get tokensPerSecond(): number {
    const sum = this.#sum();
    return sum.ms === 0 ? 0 : (1000 * sum.tokens) / sum.ms;
  }
  secondsLeft(steps: number, evaluations: number): number {
    const perStep = this.#steps.length === 0 ? 0 : this.#sum().ms / this.#steps.length;
    return (steps * perStep + evaluations * this.#evaluationMs) / 1000;
  }

  #sum(): { ms: number; tokens: number } {
    return this.#steps.reduce((a, b) => ({ ms: a.ms + b.ms, tokens: a.tokens + b.tokens }), { ms: 0, tokens: 0 });
  }
}

/** Cloudflare's workerd has no threads. */
import type { Spawned, ThreadStart } from "./thread.js";

export function refusal(): string | undefined {
  return "Cloudflare's workerd has no threads";
}

export function processors(): number {
  return 1;
}

export function spawn(_source: string, _start: ThreadStart, _lost: (why: string) => void): Spawned {
  throw new Error(refusal());
}

/**
 * The relaxed build where the engine takes it; elsewhere what `init({ relaxed: true })` falls back to. In workerd
 * test/matrix/adapters/relaxed.workerd.mjs stands for this file.
 */
import { type Engine, init } from "../../src/index.js";

/** (module (func (param v128) (result v128) (f32x4.relaxed_madd (local.get 0) (local.get 0) (local.get 0)))) */
const PROBE = Uint8Array.of(
  0,
  0x61,
  0x73,
  0x6d,
  1,
  0,
  0,
  0,
  1,
  6,
  1,
  0x60,
  1,
  0x7b,
  1,
  0x7b,
  3,
  2,
  1,
  0,
  10,
  13,
  1,
  11,
  0,
  0x20,
  0,
  0x20,
  0,
  0x20,
  0,
  0xfd,
  0x85,
  0x02,
  0x0b,
);

/** Whether `initRelaxed` must give the relaxed build, and whether `init({ relaxed: true })` must. */
export const runs = WebAssembly.validate(PROBE),
  byOption = runs;

export function initRelaxed(): Promise<Engine> {
  return init({ relaxed: true });
}

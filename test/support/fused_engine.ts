/**
 * An engine in fused arithmetic where it is to be had, and the default one elsewhere, so that the tests are as many
 * everywhere. In workerd test/matrix/adapters/fused_engine.workerd.mjs stands for this file.
 */
import { type Engine, init, supportsFused } from "../../src/index.js";

export const runs = await supportsFused();

/** Refused where it is not to be had. */
export const askFused = (threads = 1): Promise<Engine> => init({ fused: true, threads });

export const initFused = (): Promise<Engine> => (runs ? askFused() : init());

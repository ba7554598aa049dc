/**
 * An engine in fused arithmetic where it is to be had, and the default one elsewhere, so that the tests are as many
 * everywhere. In workerd test/matrix/adapters/fused.workerd.mjs stands for this file.
 */
import { type Engine, init, supportsFused } from "../../src/index.js";

export const runs = await supportsFused();

export const initFused = (): Promise<Engine> => init({ fused: runs });

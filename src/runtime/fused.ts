/**
 * Fused arithmetic: the second build of the kernels, whose matrix products round once for each multiply-add. What
 * relaxed SIMD leaves to the machine is no matter of belief: the build itself computes values that tell.
 */
import { loadModule } from "#load";
import { EngineError } from "./errors.js";

/**
 * How matrix products round a multiply-add: the product, then the sum, as on every machine, or once. Two sets of bits,
 * each of them one everywhere.
 */
export type Arithmetic = "separate" | "fused";

/** The export that only the fused build has, and the question that it answers. */
const PROBE = "fuses";

/** What a compiled build computes in. @internal */
export function arithmeticOf(module: WebAssembly.Module): Arithmetic {
  return WebAssembly.Module.exports(module).some(({ name }) => name === PROBE) ? "fused" : "separate";
}

/** @throws EngineError if these are the kernels of the fused build, and this machine does not fuse @internal */
export function assertFuses(kernels: Record<string, unknown>): void {
  if (PROBE in kernels && !(kernels[PROBE] as () => number)())
    throw new EngineError(
      "init: fused arithmetic needs an engine and a processor that round a multiply-add once, and here the product " +
        "is rounded before the sum (as Bun, Safari and processors without FMA do); leave fused out, and the default " +
        "arithmetic computes.",
    );
}

/**
 * Whether `init({ fused: true })` would run here, for pages that offer it: the fused build is loaded, compiled and
 * asked. False where the engine has no relaxed SIMD, where engine or processor do not fuse, and where the build's file
 * is not to be had; init says which.
 *
 * @param module the fused build where it cannot be found by itself, as in workerd: then for `init({ module })`
 *
 * @example
 * const engine = await init({ fused: await supportsFused() });
 * console.log(engine.alive); // true
 */
export async function supportsFused(module?: WebAssembly.Module): Promise<boolean> {
  try {
    const fused = module ?? (await loadModule({ fused: true, shared: false }));
    const memory = new WebAssembly.Memory({ initial: 2, maximum: 65536 });
    const { exports } = await WebAssembly.instantiate(fused, { env: { memory } });
    assertFuses(exports);
    return PROBE in exports;
  } catch {
    return false;
  }
}

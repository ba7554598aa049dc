/** The ABI: every kernel the wrapper may call, grouped by room. */

/** First address that the module's own data does not use. */
export function heapBase(): usize { return __heap_base; }

export { sgemmNN, sgemmNT, sgemmTN, sgemmScratchBytes } from "./gemm/sgemm";

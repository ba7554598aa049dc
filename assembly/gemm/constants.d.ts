/**
 * What the build puts in, declared for editors: asc gets FUSED and TRACE by --use, scripts/asc-unrolled.mjs replaces
 * STEP.
 */
declare const FUSED: i32;
declare const TRACE: i32;
declare const STEP: usize;

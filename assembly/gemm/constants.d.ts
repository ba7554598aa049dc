/** What the build puts in, declared for editors: asc gets RELAXED by --use, scripts/asc-unrolled.mjs replaces STEP. */
declare const RELAXED: i32;
declare const STEP: usize;

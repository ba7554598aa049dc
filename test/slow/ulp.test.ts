/** exp, log, tanh, erf, sin, cos against float64 over four million bit patterns of float32 and a million even steps. */
import { test } from "uvu";
import { loadProbes } from "../support/probes.js";
import { CASES, checkUlp, ULP_LIMIT } from "../support/vector_functions.js";

for (const the of CASES) {
  test(`${the.kernel}: at most ${ULP_LIMIT} ulp from float64`, async () =>
    checkUlp(await loadProbes(), the, 1009, 1_000_000));
}

test.run();

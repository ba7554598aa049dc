/** What the bundle of a test file exports: runs everything that the file gave to uvu's queue (uvu_globals.mjs). */
export async function run() {
  const result = { passed: 0, total: 0, failures: "" };
  for (const suite of globalThis.UVU_QUEUE[0]) {
    // [true or what failed, with names; how many passed, were skipped, should have run]
    const [failures, passed, , total] = await suite();
    result.passed += passed;
    result.total += total;
    if (failures !== true) result.failures += failures;
  }
  return result;
}
